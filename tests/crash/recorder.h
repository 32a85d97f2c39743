/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The "recorder" driver: a protocol whose disks are those of the active store.
 * Opened as "driver=recorder,disk=NAME" or "recorder:NAME". What is asked of it
 * is written to the store's log, and takes as long as the store's world decides,
 * so that requests overlap and finish in any order. All contexts that use it
 * run on one thread: those of one simulated world.
 */
#ifndef TESTS_CRASH_RECORDER_H
#define TESTS_CRASH_RECORDER_H

#include "blockgraph/block-driver.h"
#include "log.h"

/* Register the driver, if that was not done since blockgraph_init(). */
void recorder_register(void);

#endif
