/* commands.h - the commands of quire, one file each; argv begins behind the command's name.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_COMMANDS_H
#define QUIRE_TOOL_COMMANDS_H

#include <stdbool.h>

#include <quire/cpu.h>

/* Each returns the exit status; stdout is flushed and closed by main. */
int command_run(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_info(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_trace(int argc, char **argv);
int command_bench(int argc, char **argv);
int command_bench_model(int argc, char **argv);
int command_bench_attn(int argc, char **argv);
int command_bench_linear(int argc, char **argv);
int command_bench_roof(int argc, char **argv);
int command_bench_cache(int argc, char **argv);
int command_bench_evict(int argc, char **argv);

/* quire info --cpu. */
int info_cpu(bool json);
/* What a command measures with, on one line that is left open. */
void info_cpu_line(const struct quire_cpu_choice *choice);

#endif
