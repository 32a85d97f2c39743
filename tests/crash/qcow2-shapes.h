/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * qcow2 images of all shapes, small enough for a power cut at every place.
 */
#ifndef TESTS_CRASH_QCOW2_SHAPES_H
#define TESTS_CRASH_QCOW2_SHAPES_H

#include "workload.h"

/* How the recorder's disk "image" is opened as qcow2. */
#define CRASH_QCOW2_OPEN "driver=qcow2,discard=unmap,file.driver=recorder,file.disk=image"

/* Ended by NULL. */
extern const CrashFormat *const crash_qcow2_shapes[];

#endif
