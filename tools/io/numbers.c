/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Numbers as users write them, and as the reports show them; see numbers.h. */
#include "tools/io/numbers.h"

#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "blockgraph/block.h"
#include "blockgraph/options.h"

#define NS_PER_CENTISECOND 10000000
#define NS_PER_SECOND 1000000000

bool io_parse_number(const char *text, int64_t *value)
{
    int ret = block_parse_size(text, 'b', value);

    if (ret == -ERANGE) {
        printf("Parsing error: argument too large -- %s\n", text);
    } else if (ret < 0) {
        printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n",
               text);
    }
    return ret == 0;
}

bool io_parse_pattern(const char *text, int *pattern)
{
    char *end;
    long value;

    errno = 0;
    value = strtol(text, &end, 0);
    if (errno != 0 || end == text || *end != '\0' || value < 0 || value > UINT8_MAX) {
        printf("%s is not a valid pattern byte\n", text);
        return false;
    }
    *pattern = (int)value;
    return true;
}

char *io_size_text(double bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    GString *text = g_string_new(NULL);
    unsigned unit = 0;
    gsize length;

    while (bytes >= 1024 && unit + 1 < G_N_ELEMENTS(units)) {
        bytes /= 1024;
        unit++;
    }
    g_string_printf(text, unit == 0 ? "%.6f" : "%.3f", bytes);
    length = text->len;
    while (text->str[length - 1] == '0') {
        length--;
    }
    if (text->str[length - 1] == '.') {
        g_string_truncate(text, length - 1); /* a whole number; others keep their zeros */
    }
    g_string_append_printf(text, " %s", units[unit]);
    return g_string_free(text, FALSE);
}

int64_t io_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * NS_PER_SECOND + ts.tv_nsec;
}

/* With hours and minutes if it was that long, or if @full. */
static char *time_text(int64_t ns, bool full)
{
    int64_t seconds = ns / NS_PER_SECOND;
    int centiseconds = (int)(ns % NS_PER_SECOND / NS_PER_CENTISECOND);

    if (!full && seconds < 60) {
        return g_strdup_printf("%02d.%02d sec", (int)seconds, centiseconds);
    }
    return g_strdup_printf("%" G_GINT64_FORMAT ":%02d:%02d.%02d", seconds / 3600,
                           (int)(seconds / 60 % 60), (int)(seconds % 60), centiseconds);
}

bool io_check_sectors(int64_t offset, int64_t size)
{
    if (offset % BDRV_SECTOR_SIZE != 0) {
        printf("%" G_GINT64_FORMAT " is not a sector-aligned value for 'offset'\n", offset);
        return false;
    }
    if (size % BDRV_SECTOR_SIZE != 0) {
        printf("%" G_GINT64_FORMAT " is not a sector-aligned value for 'count'\n", size);
        return false;
    }
    return true;
}

void io_report(const char *verb, bool brief, int64_t start, int64_t offset, int64_t asked,
               int64_t bytes)
{
    int64_t ns = MAX(io_now() - start, 1);
    double per_second = (double)NS_PER_SECOND / (double)ns;
    g_autofree char *elapsed = time_text(ns, brief);
    g_autofree char *amount = io_size_text((double)bytes);
    g_autofree char *rate = io_size_text((double)bytes * per_second);

    if (brief) {
        printf("%" G_GINT64_FORMAT ",1,%s,%.3f,%.3f\n", bytes, elapsed,
               (double)bytes * per_second, per_second);
        return;
    }
    printf("%s %" G_GINT64_FORMAT "/%" G_GINT64_FORMAT " bytes at offset %" G_GINT64_FORMAT "\n",
           verb, bytes, asked, offset);
    printf("%s, 1 ops; %s (%s/sec and %.4f ops/sec)\n", amount, elapsed, rate, per_second);
}
