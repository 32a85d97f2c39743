/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert: its options, and which of them exclude each other. */
#include "tools/img/convert.h"

#include <string.h>
#include "tools/tool.h"

#define MAX_SPARSE_SIZE (16 << 20) /* bytes */

const ImgOption img_convert_options[] = {
    { "source-format", 'f', "FMT", "the sources' format; without it, the format is probed" },
    { "format", 'f', "FMT", NULL },
    { "image-opts", IMG_OPT_IMAGE_OPTS, NULL,
      "source names are option lists (driver=…,file.filename=…), not file names" },
    { "source-image-opts", IMG_OPT_IMAGE_OPTS, NULL, NULL },
    { "source-snapshot", 'l', "SNAPSHOT",
      "copy this snapshot of the source: its ID or its name,\n"
      "or snapshot.id=ID,snapshot.name=NAME" },
    { "snapshot", 'l', "SNAPSHOT", NULL },
    { "source-cache", 'T', "CACHE", "the sources' cache mode (default: writeback)" },
    { "target-format", 'O', "FMT", "the target's format (default: raw)" },
    { "output-format", 'O', "FMT", NULL },
    { "target-image-opts", IMG_OPT_TARGET_IMAGE_OPTS, NULL,
      "the target's name is an option list; needs -n" },
    { "target-options", 'o', "OPTIONS", "create options of the target; \"help\" lists them" },
    { "options", 'o', "OPTIONS", NULL },
    { "target-cache", 't', "CACHE", "the target's cache mode (default: unsafe)" },
    { "output-cache", 't', "CACHE", NULL },
    { "compress", 'c', NULL, "compress the target's data, if its format can" },
    { "backing", 'B', "FILENAME", "give the target a backing file, if its format can" },
    { "backing-format", 'F', "FMT", "the backing file's format" },
    { "no-create", 'n', NULL, "write into a target that exists" },
    { "target-is-zero", IMG_OPT_TARGET_IS_ZERO, NULL, "the existing target reads as zeros" },
    { "sparse-size", 'S', "SIZE",
      "leave holes for runs of zeros that are this long (default: 4k);\n"
      "0 writes everything" },
    { "parallel", 'm', "COUNT", "how many coroutines copy (1 to 16, default: 8)" },
    { "oob-writes", 'W', NULL, "write in any order, which is faster" },
    { "rate", 'r', "RATE", "write at most so many bytes per second" },
    { "rate-limit", 'r', "RATE", NULL },
    { "copy-range-offloading", 'C', NULL,
      "let the storage copy the data where it can, zeros and all" },
    { "digest", CONVERT_OPT_DIGEST, "md5|sha1|sha256|sha384|sha512",
      "print the digest of what was copied, zeros included; copies in order" },
    { "salvage", IMG_OPT_SALVAGE, NULL, "take what cannot be read for zeros" },
    { "bitmaps", IMG_OPT_BITMAPS, NULL, "copy persistent bitmaps, if the target's format can" },
    { "skip-broken-bitmaps", IMG_OPT_SKIP_BROKEN_BITMAPS, NULL,
      "with --bitmaps: leave bad ones out" },
    IMG_OPTION_FORCE_SHARE,
    IMG_OPTION_PROGRESS,
    IMG_OPTION_QUIET,
    { NULL },
};

static bool take_sparse_size(Convert *conv)
{
    int64_t size;

    if (!tool_parse_size("buffer size for sparse output", optarg, 0, INT64_MAX, &size)) {
        return false;
    }
    if (size % BDRV_SECTOR_SIZE != 0 || size > MAX_SPARSE_SIZE) {
        tool_error("Invalid buffer size for sparse output specified. Valid sizes are multiples of "
                   "%d up to %d. Select 0 to disable sparse detection (fully allocates output).",
                   (int)BDRV_SECTOR_SIZE, MAX_SPARSE_SIZE);
        return false;
    }
    conv->sparse_given = true;
    conv->engine.sparse_size = size;
    return true;
}

static bool take_number(Convert *conv, int letter)
{
    int64_t workers;

    switch (letter) {
    case 'S':
        return take_sparse_size(conv);
    case 'r':
        return tool_parse_size("rate limit", optarg, 0, INT64_MAX, &conv->engine.rate);
    default:
        if (!tool_parse_number("number of coroutines", optarg, 1, CONVERT_MAX_WORKERS, &workers)) {
            return false;
        }
        conv->engine.workers = (int)workers;
        return true;
    }
}

static bool take_digest(Convert *conv)
{
    static const struct {
        const char *name;
        GChecksumType type;
    } digests[] = {
        { "md5", G_CHECKSUM_MD5 },       { "sha1", G_CHECKSUM_SHA1 },
        { "sha256", G_CHECKSUM_SHA256 }, { "sha384", G_CHECKSUM_SHA384 },
        { "sha512", G_CHECKSUM_SHA512 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(digests); i++) {
        if (strcmp(digests[i].name, optarg) == 0) {
            g_clear_pointer(&conv->engine.digest, g_checksum_free);
            conv->engine.digest = g_checksum_new(digests[i].type);
            conv->digest_name = digests[i].name;
            return true;
        }
    }
    tool_error("--digest expects 'md5', 'sha1', 'sha256', 'sha384' or 'sha512' not '%s'", optarg);
    return false;
}

static void take_flag(Convert *conv, int letter)
{
    switch (letter) {
    case 'c':
        conv->engine.compressed = true;
        break;
    case 'n':
        conv->skip_create = true;
        break;
    case 'C':
        conv->engine.offload = true;
        break;
    case 'W':
        conv->engine.unordered = true;
        break;
    case IMG_OPT_TARGET_IMAGE_OPTS:
        conv->target_image_opts = true;
        break;
    case IMG_OPT_TARGET_IS_ZERO:
        conv->engine.target_is_zero = true;
        break;
    case IMG_OPT_SALVAGE:
        conv->engine.salvage = true;
        break;
    case IMG_OPT_BITMAPS:
        conv->bitmaps = true;
        break;
    case IMG_OPT_SKIP_BROKEN_BITMAPS:
        conv->skip_broken_bitmaps = true;
        break;
    default:
        break;
    }
}

bool img_convert_take_option(Convert *conv, int letter)
{
    switch (letter) {
    case 'o':
        return img_take_option_list(conv->options, optarg);
    case 'l':
        conv->snapshot = optarg;
        break;
    case 'T':
        conv->source_cache = optarg;
        break;
    case 't':
        conv->target_cache = optarg;
        break;
    case 'O':
        conv->target_format = optarg;
        break;
    case 'B':
        conv->backing = optarg;
        break;
    case 'F':
        conv->backing_format = optarg;
        break;
    case 'S':
    case 'm':
    case 'r':
        return take_number(conv, letter);
    case CONVERT_OPT_DIGEST:
        return take_digest(conv);
    default:
        take_flag(conv, letter);
        break;
    }
    return true;
}

/* What cannot be wanted together; NULL if all is well. */
static const char *find_contradiction(const Convert *conv)
{
    if (conv->target_image_opts && !conv->skip_create) {
        return "--target-image-opts requires use of -n flag";
    }
    if (conv->target_image_opts && conv->target_format != NULL) {
        return "-O cannot be used together with --target-image-opts";
    }
    if (conv->skip_create && conv->options->len > 0) {
        return "-o has no effect when skipping image creation";
    }
    if (conv->engine.target_is_zero && !conv->skip_create) {
        return "--target-is-zero requires use of -n flag";
    }
    if (conv->engine.target_is_zero && conv->backing != NULL) {
        return "Cannot use --target-is-zero when the destination image has a backing file";
    }
    if (conv->engine.offload && conv->engine.compressed) {
        return "Cannot enable copy offloading when -c is used";
    }
    if (conv->engine.offload && conv->sparse_given) {
        return "Cannot enable copy offloading when -S is used";
    }
    if (conv->engine.offload && conv->engine.salvage) {
        return "Cannot use copy offloading in salvaging mode";
    }
    if (conv->skip_broken_bitmaps && !conv->bitmaps) {
        return "Use of --skip-broken-bitmaps requires --bitmaps";
    }
    return NULL;
}

bool img_convert_check_options(const Convert *conv)
{
    const char *contradiction = find_contradiction(conv);

    if (contradiction != NULL) {
        tool_error("%s", contradiction);
        return false;
    }
    return img_check_format_options(conv->args);
}
