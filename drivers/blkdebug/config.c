/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * blkdebug's configuration file:
 *
 *   # a comment
 *   [inject-error]
 *   event = "read_aio"
 *   errno = "5"
 *
 * A section may have a name, as in [set-state "two"], which says nothing.
 */
#include <errno.h>
#include <string.h>

#include "drivers/blkdebug/blkdebug.h"

#define MAX_CONFIG_BYTES (1 << 20)

/* A section as it is being read. */
typedef struct Section {
    RuleKind kind;
    JsonObject *options; /* NULL: none has begun */
} Section;

/* Make a rule of the section that ends here. */
static bool end_section(BlkdebugState *s, Section *section, GError **errp)
{
    JsonObject *options = g_steal_pointer(&section->options);
    bool ok = !options || blkdebug_add_rule(s, section->kind, options, errp);

    g_clear_pointer(&options, json_object_unref);
    return ok;
}

/* @line is what stands between [ and ]. */
static bool begin_section(Section *section, char *line, GError **errp)
{
    char *name = strtok(line, " \t");

    if (name && strcmp(name, "inject-error") == 0) {
        section->kind = RULE_INJECT_ERROR;
    } else if (name && strcmp(name, "set-state") == 0) {
        section->kind = RULE_SET_STATE;
    } else {
        block_error_set(errp, EINVAL, "There is no option group '%s'", name ? name : "");
        return false;
    }
    section->options = json_object_new();
    return true;
}

/* KEY = "VALUE" */
static bool add_option(Section *section, const char *line, GError **errp)
{
    const char *equals = strchr(line, '=');
    g_autofree char *key = NULL, *value = NULL;
    size_t len;

    if (!section->options) {
        block_error_set(errp, EINVAL, "no group defined");
        return false;
    }
    if (equals) {
        key = g_strstrip(g_strndup(line, equals - line));
        value = g_strstrip(g_strdup(equals + 1));
        len = strlen(value);
        if (*key && len >= 2 && value[0] == '"' && value[len - 1] == '"') {
            value[len - 1] = 0;
            json_object_set_string_member(section->options, key, value + 1);
            return true;
        }
    }
    block_error_set(errp, EINVAL, "Invalid parameter '%s'", line);
    return false;
}

static bool take_line(BlkdebugState *s, Section *section, char *line, GError **errp)
{
    size_t len;

    g_strstrip(line);
    len = strlen(line);
    if (len == 0 || line[0] == '#') {
        return true;
    }
    if (line[0] == '[' && line[len - 1] == ']') {
        line[len - 1] = 0;
        return end_section(s, section, errp) && begin_section(section, line + 1, errp);
    }
    return add_option(section, line, errp);
}

bool blkdebug_read_config(BlkdebugState *s, const char *filename, GError **errp)
{
    g_autofree char *text = NULL;
    g_autoptr(GError) err = NULL;
    g_auto(GStrv) lines = NULL;
    Section section = {0};
    bool ok = true;
    gsize length;

    if (!g_file_get_contents(filename, &text, &length, &err)) {
        bool missing = g_error_matches(err, G_FILE_ERROR, G_FILE_ERROR_NOENT);

        block_error_set_errno(errp, missing ? ENOENT : EIO, "Could not read blkdebug config file");
        return false;
    }
    if (length > MAX_CONFIG_BYTES || memchr(text, 0, length)) {
        block_error_set(errp, EINVAL, "Could not parse blkdebug config file '%s'", filename);
        return false;
    }
    lines = g_strsplit(text, "\n", -1);
    for (int i = 0; lines[i] && ok; i++) {
        ok = take_line(s, &section, lines[i], errp);
        if (!ok) {
            g_prefix_error(errp, "%s:%d: ", filename, i + 1);
        }
    }
    ok = ok && end_section(s, &section, errp);
    g_clear_pointer(&section.options, json_object_unref);
    return ok;
}
