/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What nearly every file above util includes: parsed once where b_pch is on. Nobody
 * includes this.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "blockgraph/block-driver.h"
