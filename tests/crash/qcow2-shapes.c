/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The table of shapes. Lengths are a few clusters, so that requests meet.
 */
#include <string.h>

#include "qcow2-shapes.h"
#include "with-snapshot.h"

#define SHAPE(NAME, UNIT, UNITS, BASE_UNITS, OPEN, CREATE, VERBS)                                  \
    {                                                                                              \
        .name = "qcow2" NAME, .options = CRASH_QCOW2_OPEN OPEN, .length = (UNITS) * (UNIT),        \
        .unit = (UNIT), .base_bytes = (BASE_UNITS) * (UNIT), .create = crash_create_by_driver,     \
        .driver = "qcow2", .create_options = CREATE, .verbs = VERBS,                               \
    }

static const CrashFormat plain =
    SHAPE("", 4096, 12, 0, "", "size=48k,cluster_size=4k", crash_verbs_compress);
static const CrashFormat small =
    SHAPE("-small", 512, 24, 6, ",l2-cache-size=1k,refcount-cache-size=512",
          "size=12k,cluster_size=512,refcount_bits=64", crash_verbs_compress);
static const CrashFormat extended =
    SHAPE("-extended", 16384, 6, 2, "", "size=96k,cluster_size=16k,extended_l2=on",
          crash_verbs_compress);
static const CrashFormat old = SHAPE("-v2", 1024, 12, 4, "",
                                     "size=12k,cluster_size=1k,compat=0.10", crash_verbs_compress);
/* 60 clusters are described at first, so that tables grow under the guest. */
static const CrashFormat growing = {
    .name = "qcow2-growing",
    .options = CRASH_QCOW2_OPEN ",l2-cache-size=1k",
    .length = 96 * 512,
    .unit = 4096,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options = "size=48k,cluster_size=512,refcount_bits=64",
    .verbs = crash_verbs_fixed,
};
static const CrashFormat lazy = SHAPE("-lazy", 4096, 12, 4, "",
                                      "size=48k,cluster_size=4k,lazy_refcounts=on",
                                      crash_verbs_compress);
static const CrashFormat one_bit = SHAPE("-one-bit", 4096, 12, 4, ",overlap-check=all",
                                         "size=48k,cluster_size=4k,refcount_bits=1",
                                         crash_verbs_compress);
static const CrashFormat zstd = SHAPE("-zstd", 4096, 12, 4, ",pass-discard-other=on",
                                      "size=48k,cluster_size=4k,compression_type=zstd",
                                      crash_verbs_compress);
static const CrashFormat data_file =
    SHAPE("-data-file", 4096, 12, 4, "", "size=48k,cluster_size=4k,data_file=recorder:data",
          crash_verbs_fixed);
static const CrashFormat raw_data_file =
    SHAPE("-data-file-raw", 4096, 12, 4, "",
          "size=48k,cluster_size=4k,data_file=recorder:data,data_file_raw=on", crash_verbs_fixed);
static const CrashFormat no_unref = SHAPE("-no-unref", 4096, 12, 4, ",discard-no-unref=on",
                                          "size=48k,cluster_size=4k", crash_verbs_compress);

/* ---- With a snapshot of what was there at first ------------------------------------------- */

static const CrashFormat snapshot = {
    .name = "qcow2-with-snapshot",
    .options = CRASH_QCOW2_OPEN,
    .length = 12 * 4096,
    .unit = 4096,
    .base_bytes = 5 * 4096,
    .create = crash_create_with_snapshot,
    .driver = "qcow2",
    .create_options = "size=48k,cluster_size=4k",
    .examine = crash_snapshot_is_whole,
    .verbs = crash_verbs_compress,
};

/* ---- With a backing file, which has the data that was there at first ------------------------ */

static const CrashFormat overlay = {
    .name = "qcow2-overlay",
    .options = CRASH_QCOW2_OPEN,
    .length = 12 * 4096,
    .unit = 4096,
    .base_bytes = 9 * 4096 - 1024,
    .backing = true,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options = "size=48k,cluster_size=4k,backing_file=" CRASH_BASE ",backing_fmt=raw",
    .verbs = crash_verbs_overlay,
};
static const CrashFormat old_overlay = {
    .name = "qcow2-v2-overlay",
    .options = CRASH_QCOW2_OPEN,
    .length = 12 * 1024,
    .unit = 1024,
    .base_bytes = 9 * 1024,
    .backing = true,
    .create = crash_create_by_driver,
    .driver = "qcow2",
    .create_options =
        "size=12k,cluster_size=1k,compat=0.10,backing_file=" CRASH_BASE ",backing_fmt=raw",
    .verbs = crash_verbs_overlay,
};

const CrashFormat *const crash_qcow2_shapes[] = {
    &plain,     &small,         &extended, &old,     &growing,     &lazy, &one_bit, &zstd,
    &data_file, &raw_data_file, &no_unref, &overlay, &old_overlay, &snapshot, NULL,
};
