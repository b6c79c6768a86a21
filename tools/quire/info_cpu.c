/* info_cpu.c - quire info --cpu: which kernels this machine can run, which it does, and why.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include <quire/quire.h>

#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"

static bool level_at(uint32_t index, struct quire_cpu_level *level)
{
    *level = (struct quire_cpu_level){.struct_size = sizeof *level};
    return quire_cpu_level(index, level) == QUIRE_OK;
}

static json_t *json_levels(void)
{
    json_t *levels = json_array();
    struct quire_cpu_level level;
    for (uint32_t i = 0; level_at(i, &level); i++) {
        json_t *row =
            json_pack("{s:s, s:b, s:s, s:s?}", "name", level.name, "runs", level.lacks == NULL,
                      "products", quire_dtype_name(level.products), "lacks", level.lacks);
        (void)json_array_append_new(levels, row);
    }
    return levels;
}

static void print_levels(const char *chosen)
{
    struct quire_cpu_level level;
    for (uint32_t i = 0; level_at(i, &level); i++)
        (void)printf("%s %-11s %s%s\n", strcmp(level.name, chosen) == 0 ? "*" : " ", level.name,
                     level.lacks != NULL ? "no: " : "products of ",
                     level.lacks != NULL ? level.lacks : quire_dtype_name(level.products));
}

void info_cpu_line(const struct quire_cpu_choice *choice)
{
    (void)printf("%s, level %s (products of %s), %u thread%s", choice->processor,
                 choice->level.name, quire_dtype_name(choice->level.products), choice->num_threads,
                 choice->num_threads == 1 ? "" : "s");
}

int info_cpu(bool json)
{
    struct quire_cpu_choice choice = {.struct_size = sizeof choice};
    struct quire_error error;
    if (quire_cpu_choose(NULL, &choice, &error) != QUIRE_OK)
        return cli_fail(&error);
    if (json)
        return files_print_json(json_pack(
            "{s:s, s:s, s:s, s:i, s:s, s:o}", "processor", choice.processor, "level",
            choice.level.name, "level_why", choice.level_why, "threads", (int)choice.num_threads,
            "threads_why", choice.threads_why, "levels", json_levels()));
    (void)printf("processor     %s\n"
                 "level         %s (%s)\n"
                 "threads       %u (%s)\n",
                 choice.processor, choice.level.name, choice.level_why, choice.num_threads,
                 choice.threads_why);
    print_levels(choice.level.name);
    return CLI_OK;
}
