/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* read-image FILE: print the length and the first bytes of a disk image of any format. */
#include <blockgraph/blockgraph.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    g_autoptr(GError) err = NULL;
    BlockBackend *blk;
    uint8_t buf[16];
    int ret;

    /* The policy lets the image name a backing file; with NULL it may not. */
    if (argc != 2 || !blockgraph_init(&err) ||
        !(blk = blk_new_open(argv[1], NULL, 0, &block_open_policy_follow, &err))) {
        fprintf(stderr, "read-image: %s\n", err ? err->message : "which file?");
        return 1;
    }
    ret = blk_pread(blk, 0, sizeof(buf), buf, 0);
    if (ret < 0) {
        fprintf(stderr, "read-image: %s: %s\n", argv[1], g_strerror(-ret));
    } else {
        printf("%" G_GINT64_FORMAT " bytes:", blk_getlength(blk));
        for (size_t i = 0; i < sizeof(buf); i++) {
            printf(" %02x", buf[i]);
        }
        printf("\n");
    }
    blk_unref(blk);
    blockgraph_cleanup();
    return ret < 0 ? 1 : 0;
}
