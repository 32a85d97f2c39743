/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Errors: domain, code and text.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <gio/gio.h>
#include "blockgraph/error.h"

static void text_and_positive_code(void **state)
{
    g_autoptr(GError) err = NULL;

    block_error_set(&err, EINVAL, "Image '%s': field %d", "a", 3);
    assert_string_equal(err->message, "Image 'a': field 3");
    assert_true(g_error_matches(err, BLOCK_ERROR, EINVAL));
    assert_int_equal(block_error_to_errno(err), -EINVAL);
}

static void negative_errno_gives_the_same_code(void **state)
{
    g_autoptr(GError) err = NULL;

    block_error_set(&err, -ENOSPC, "full");
    assert_int_equal(err->code, ENOSPC);
    assert_int_equal(block_error_to_errno(err), -ENOSPC);
}

static void errno_text_is_appended(void **state)
{
    g_autoptr(GError) err = NULL;
    g_autofree char *expected = g_strdup_printf("Could not open 'x': %s", g_strerror(ENOENT));

    block_error_set_errno(&err, -ENOENT, "Could not open '%s'", "x");
    assert_string_equal(err->message, expected);
    assert_int_equal(err->code, ENOENT);
}

static void nobody_listens(void **state)
{
    block_error_set(NULL, EIO, "lost");
    block_error_set_errno(NULL, EIO, "lost");
}

static void foreign_errors_are_eio(void **state)
{
    g_autoptr(GError) err = g_error_new(G_IO_ERROR, G_IO_ERROR_NOT_FOUND, "x");
    g_autoptr(GError) zero = g_error_new(BLOCK_ERROR, 0, "x");

    assert_int_equal(block_error_to_errno(err), -EIO);
    assert_int_equal(block_error_to_errno(zero), -EIO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_and_positive_code),
        cmocka_unit_test(negative_errno_gives_the_same_code),
        cmocka_unit_test(errno_text_is_appended),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(foreign_errors_are_eio),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
