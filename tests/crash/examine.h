/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Judging a workload's image: while it runs, and in each state after a power cut.
 */
#ifndef TESTS_CRASH_EXAMINE_H
#define TESTS_CRASH_EXAMINE_H

#include "workload.h"

/* Read all of @blk, and have the model judge it. False with @why. */
bool crash_disk_is_allowed(const CrashRun *run, BlockBackend *blk, CrashView view, GString *why);
/* For CrashExplorer: examines the disks of the active store; @opaque: a CrashRun. */
bool crash_examine(void *opaque, uint64_t cut, GString *why);

#endif
