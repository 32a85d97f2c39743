/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Images of which a snapshot was taken before the guest came. */
#ifndef TESTS_CRASH_WITH_SNAPSHOT_H
#define TESTS_CRASH_WITH_SNAPSHOT_H

#include "workload.h"

/* For CrashFormat.create: by the driver, then a snapshot of it. */
bool crash_create_with_snapshot(const CrashFormat *format, CrashStore *store, GString *why);
/* For CrashFormat.examine: the check is content, and the snapshot has what it had. */
bool crash_snapshot_is_whole(const CrashFormat *format, BlockBackend *blk, GString *why);

#endif
