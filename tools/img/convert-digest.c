/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The digest of what is copied; see convert-engine.h. */
#include "tools/img/convert-engine.h"

static void add_zeros(GChecksum *digest, int64_t bytes)
{
    static const uint8_t zeros[64 << 10];

    while (bytes > 0) {
        int64_t n = MIN(bytes, (int64_t)sizeof(zeros));

        g_checksum_update(digest, zeros, (gssize)n);
        bytes -= n;
    }
}

void convert_digest(ConvertEngine *eng, int64_t offset, const uint8_t *buf, int64_t bytes)
{
    g_assert(offset >= eng->digest_end);
    add_zeros(eng->digest, offset - eng->digest_end);
    if (bytes > 0) {
        g_checksum_update(eng->digest, buf, (gssize)bytes);
    }
    eng->digest_end = offset + bytes;
}
