/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* What nearly every unit test includes: parsed once where b_pch is on. Nobody includes this. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "blockgraph/block-driver.h"
