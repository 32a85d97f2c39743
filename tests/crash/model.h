/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What a guest may find on its disk. The model is told when each of the guest's
 * requests begins and ends, on the clock of the log, and knows from that which
 * values each sector may have, live or after a power cut:
 *  1. A request that is durable (a flush is over that began after the request
 *     had ended, or it had FUA and has ended) wins over all that ended before
 *     it began.
 *  2. Of the others that have begun, each may be there or not.
 *  3. A request that failed may be there or not, for good.
 *  4. A discard is a hint: old data, zeros, or what the backing file has.
 *  5. Emptying brings back what the backing file has, or else zeros.
 *  6. Nothing else is allowed: no other sector's data, no other request's.
 *
 * Every write has data of its own, which says which request and which sector it
 * belongs to.
 */
#ifndef TESTS_CRASH_MODEL_H
#define TESTS_CRASH_MODEL_H

#include "log.h"

typedef enum CrashGuestKind {
    CRASH_GUEST_WRITE,
    CRASH_GUEST_ZEROES,
    CRASH_GUEST_DISCARD,
    CRASH_GUEST_RESIZE, /* @offset: the new length */
    CRASH_GUEST_FLUSH,
    CRASH_GUEST_EMPTY, /* the whole disk; durable when it ends */
} CrashGuestKind;

typedef struct CrashModel CrashModel;

/*
 * A disk of @length bytes: the first @base_bytes are data of request 1, which
 * came before the log, the rest is zeros. With @backing, a discard may bring
 * the former back, since they are the backing file's. @log is borrowed.
 */
CrashModel *crash_model_new(CrashLog *log, int64_t length, int64_t base_bytes, bool backing);
void crash_model_free(CrashModel *model);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(CrashModel, crash_model_free)

/* A guest's request begins; returns its number. Offsets and sizes: whole sectors. */
unsigned crash_model_begin(CrashModel *model, CrashGuestKind kind, int64_t offset, int64_t bytes,
                           bool fua);
/* It ends, with 0 or -errno. */
void crash_model_end(CrashModel *model, unsigned number, int ret);
/* The length after all that has ended. */
int64_t crash_model_length(const CrashModel *model);

/* The data of request @number at @offset. */
void crash_model_fill(unsigned number, int64_t offset, int64_t bytes, uint8_t *data);

/* From when on somebody looks. */
typedef struct CrashView {
    uint64_t until; /* requests that begin from here on are not there */
    uint64_t since; /* what ended before this is there for good */
    uint64_t fua;   /* the same for requests with FUA */
} CrashView;
/* After a power cut; for a read that began at @begin and ends now. */
CrashView crash_model_after_cut(const CrashModel *model, uint64_t cut);
CrashView crash_model_read(const CrashModel *model, uint64_t begin);
/* See CrashExplorer. */
uint64_t crash_model_epoch(const CrashModel *model, uint64_t cut);

/* Whether @data may be what is at @offset; else the reason is appended to @why. */
bool crash_model_allows(const CrashModel *model, CrashView view, int64_t offset, int64_t bytes,
                        const uint8_t *data, GString *why);
/*
 * The same of the length. @between: what lies between two lengths that it may
 * have is good, too (where the length is a file's that writes make longer).
 */
bool crash_model_allows_length(const CrashModel *model, CrashView view, int64_t length,
                               bool between, GString *why);

/* Print the guest's requests to standard error, one a line. */
void crash_model_print(const CrashModel *model);

#endif
