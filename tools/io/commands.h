/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands, each in the file of its job. */
#ifndef TOOLS_IO_COMMANDS_H
#define TOOLS_IO_COMMANDS_H

#include "tools/io/command.h"

extern const IoCommand io_abort_command;
extern const IoCommand io_aio_flush_command;
extern const IoCommand io_aio_read_command;
extern const IoCommand io_aio_write_command;
extern const IoCommand io_alloc_command;
extern const IoCommand io_break_command;
extern const IoCommand io_close_command;
extern const IoCommand io_discard_command;
extern const IoCommand io_flush_command;
extern const IoCommand io_help_command;
extern const IoCommand io_info_command;
extern const IoCommand io_length_command;
extern const IoCommand io_map_command;
extern const IoCommand io_open_command;
extern const IoCommand io_quit_command;
extern const IoCommand io_read_command;
extern const IoCommand io_readv_command;
extern const IoCommand io_remove_break_command;
extern const IoCommand io_reopen_command;
extern const IoCommand io_resume_command;
extern const IoCommand io_sigraise_command;
extern const IoCommand io_sleep_command;
extern const IoCommand io_truncate_command;
extern const IoCommand io_wait_break_command;
extern const IoCommand io_write_command;
extern const IoCommand io_writev_command;

#endif
