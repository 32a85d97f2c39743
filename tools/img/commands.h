/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The commands, each in the file of its name. */
#ifndef TOOLS_IMG_COMMANDS_H
#define TOOLS_IMG_COMMANDS_H

#include "tools/img/options.h"

extern const ImgCommand img_amend_command;
extern const ImgCommand img_bench_command;
extern const ImgCommand img_bitmap_command;
extern const ImgCommand img_check_command;
extern const ImgCommand img_commit_command;
extern const ImgCommand img_compare_command;
extern const ImgCommand img_convert_command;
extern const ImgCommand img_create_command;
extern const ImgCommand img_dd_command;
extern const ImgCommand img_graph_command;
extern const ImgCommand img_info_command;
extern const ImgCommand img_map_command;
extern const ImgCommand img_measure_command;
extern const ImgCommand img_rebase_command;
extern const ImgCommand img_resize_command;
extern const ImgCommand img_snapshot_command;

#endif
