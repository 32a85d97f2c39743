/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Objects that users define with --object: secrets and throttle groups. */
#ifndef TOOLS_OBJECT_H
#define TOOLS_OBJECT_H

#include <stdbool.h>

/*
 * Take an argument of --object, "TYPE,id=ID,..." or the same as JSON. It is checked, and
 * made by tool_objects_create(); secrets are accepted, and not yet used. False with the
 * exit code if the program is done: it was wrong, which is reported, or asked for help.
 */
bool tool_take_object(const char *definition, int *status);
/* Make what was defined, when the library is set up. False if that fails: it is reported. */
bool tool_objects_create(void);

#endif
