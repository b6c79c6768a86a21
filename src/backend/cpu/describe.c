/* describe.c - which levels there are, and why one of them and so many threads are chosen.
 * SPDX-License-Identifier: Apache-2.0 */
#include "backend/cpu/cpu.h"

#include <quire/cpu.h>

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Levels of other architectures, which this build does not have. */
static const struct {
    const char *name, *lacks;
} foreign[] = {
#if !defined(__x86_64__)
    {"avx2", "it is for x86-64"},
    {"avx512", "it is for x86-64"},
    {"avx512bf16", "it is for x86-64"},
    {"amx", "it is for x86-64"},
#endif
#if !defined(__aarch64__)
    {"neon", "it is for AArch64"},
    {"neonbf16", "it is for AArch64"},
#endif
    {NULL, NULL}, /* so that it is never empty */
};

static struct quire_cpu_level level_of(const struct quire__kernels *kernels, const char *lacks)
{
    return (struct quire_cpu_level){
        .struct_size = sizeof(struct quire_cpu_level),
        .name = kernels->level,
        .lacks = lacks,
        .products = kernels->products,
    };
}

quire_status quire_cpu_level(uint32_t index, struct quire_cpu_level *level)
{
    const struct quire__kernels *kernels;
    const char *lacks;
    uint32_t num_own = 0;
    if (level == NULL || level->struct_size != sizeof *level)
        return QUIRE_E_INVAL;
    for (; quire__level_describe(num_own, &kernels, &lacks); num_own++) {
        if (num_own == index) {
            *level = level_of(kernels, lacks);
            return QUIRE_OK;
        }
    }
    index -= num_own;
    if (index >= QUIRE_ARRAY_LEN(foreign) - 1)
        return QUIRE_E_NOTFOUND;
    *level = (struct quire_cpu_level){
        .struct_size = sizeof *level, .name = foreign[index].name, .lacks = foreign[index].lacks};
    return QUIRE_OK;
}

/* The lowest level above `kernels` that may be taken, which must lack something; NULL: none. */
static const char *what_is_lacking(const struct quire__kernels *kernels, const char *cap,
                                   const char **name)
{
    const struct quire__kernels *other = NULL;
    const char *lacks = NULL;
    bool above = false, capped = false;
    for (uint32_t i = 0; !capped && quire__level_describe(i, &other, &lacks); i++) {
        if (above) {
            *name = other->level;
            return lacks;
        }
        above = other == kernels;
        capped = cap != NULL && strcmp(other->level, cap) == 0;
    }
    return NULL;
}

static void explain_level(const struct quire__kernels *kernels, const char *cap,
                          const char *who_caps, char why[QUIRE_ERROR_MESSAGE_MAX])
{
    const char *name = NULL, *lacks = what_is_lacking(kernels, cap, &name);
    if (lacks != NULL)
        (void)snprintf(why, QUIRE_ERROR_MESSAGE_MAX, "not %s: %s", name, lacks);
    else if (cap != NULL)
        (void)snprintf(why, QUIRE_ERROR_MESSAGE_MAX, "%s caps it", who_caps);
    else
        (void)snprintf(why, QUIRE_ERROR_MESSAGE_MAX, "the best that there is");
}

static void explain_threads(uint32_t asked, uint32_t count, char why[QUIRE_ERROR_MESSAGE_MAX])
{
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (asked != 0)
        (void)snprintf(why, QUIRE_ERROR_MESSAGE_MAX, "as asked for");
    else if (online > 0 && (unsigned long)online == count)
        (void)snprintf(why, QUIRE_ERROR_MESSAGE_MAX, "one for each processor");
    else
        (void)snprintf(why, QUIRE_ERROR_MESSAGE_MAX,
                       "what the limits of this process leave of %ld processors", online);
}

#if defined(__x86_64__)
#include <cpuid.h>

/* The brand string of leaves 80000002h .. 80000004h (Intel SDM volume 2, CPUID). */
static void name_processor(char name[64])
{
    enum { FIRST = 0x80000002, LEAVES = 3, BYTES = 16 };
    uint32_t words[LEAVES * 4 + 1] = {0};
    for (uint32_t i = 0; i < LEAVES; i++) {
        uint32_t *w = words + (size_t)4 * i;
        if (__get_cpuid(FIRST + i, &w[0], &w[1], &w[2], &w[3]) == 0)
            break;
    }
    char text[LEAVES * BYTES + 1];
    memcpy(text, words, sizeof text);
    size_t length = strlen(text), start = strspn(text, " ");
    while (length > start && text[length - 1] == ' ')
        text[--length] = '\0';
    (void)snprintf(name, 64, "%s", text[start] != '\0' ? text + start : "x86-64");
}
#else
static void name_processor(char name[64])
{
#if defined(__aarch64__)
    (void)snprintf(name, 64, "AArch64");
#else
    (void)snprintf(name, 64, "unknown");
#endif
}
#endif

quire_status quire_cpu_choose(const struct quire_backend_config *config,
                              struct quire_cpu_choice *choice, struct quire_error *error)
{
    struct quire_backend_config complete;
    quire_backend_config_init(&complete);
    if (choice == NULL || choice->struct_size != sizeof *choice ||
        (config != NULL && config->struct_size != sizeof complete))
        return quire__fail(error, QUIRE_E_INVAL, "quire_cpu_choose: NULL, or a bad struct_size");
    if (config != NULL)
        complete = *config;
    const char *cap = quire__cpu_cap(&complete);
    const struct quire__kernels *kernels = quire__kernels_select(cap, error);
    if (kernels == NULL)
        return QUIRE_E_INVAL;
    uint32_t num_threads = 0;
    quire_status status = quire__cpu_num_threads(&complete, &num_threads, error);
    if (status != QUIRE_OK)
        return status;
    choice->level = level_of(kernels, NULL);
    choice->num_threads = num_threads;
    name_processor(choice->processor);
    explain_level(kernels, cap, complete.cpu_level != NULL ? "cpu_level" : "QUIRE_CPU",
                  choice->level_why);
    explain_threads(complete.num_threads, num_threads, choice->threads_why);
    return QUIRE_OK;
}
