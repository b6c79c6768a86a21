/* ruler.c - holds calls of kernels against what the machine can do at most.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/ruler.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"

enum {
    ROOFS = 5,  /* readings of the roof beside a row's runs */
    CACHES = 4, /* the ring, in last caches */
    BAR_WIDTH = 25,
    RUNS = 9,
    QUICK_RUNS = 3,
};
static const double run_ns_min = 30e6, wrong_over = 1.02;
static const uint64_t cache_unknown_bytes = (uint64_t)64 << 20, quick_bytes = (uint64_t)4 << 20;

void ruler_args(struct ruler_options *options, struct cli_arg args[RULER_ARGS])
{
    const struct cli_arg rows[RULER_ARGS] = {
        {"--only", CLI_TEXT, &options->only, 0, 0, "NAME", "rows with this in their names"},
        {"--threads", CLI_U32, &options->threads, 1, 1024, "N", "threads (all that may be used)"},
        {"--runs", CLI_U32, &options->runs, 3, RULER_RUNS_MAX, "N",
         "runs of each row (9; quick: 3)"},
        {"--quick", CLI_FLAG, &options->quick, 0, 0, NULL, "small shapes: only to see it work"},
        {"--json", CLI_FLAG, &options->json, 0, 0, NULL, "print one JSON object"},
    };
    memcpy(args, rows, sizeof rows);
}

/* ---- the machine ---- */

static uint64_t last_cache_bytes(void)
{
    long bytes = sysconf(_SC_LEVEL3_CACHE_SIZE);
    if (bytes <= 0)
        bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return bytes > 0 ? (uint64_t)bytes : cache_unknown_bytes;
}

/* The ring is there up to three times: as it is, repacked, and for the roof to read. */
static void size_ring(struct ruler *ruler)
{
    const uint64_t free_bytes = quire__memory_available() / 5;
    ruler->cache_bytes = last_cache_bytes();
    ruler->ring_bytes = ruler->options->quick ? quick_bytes : CACHES * ruler->cache_bytes;
    ruler->capped = free_bytes != 0 && ruler->ring_bytes > free_bytes;
    if (ruler->capped)
        ruler->ring_bytes = free_bytes;
    ruler->ring_bytes &= ~(uint64_t)4095;
}

static void say_machine(const struct ruler *ruler)
{
    if (ruler->options->json)
        return;
    info_cpu_line(&ruler->choice);
    (void)putchar('\n');
    if (ruler->options->quick)
        (void)printf("--quick: the shapes are small and lie in caches; only that it works is "
                     "shown\n");
    else
        (void)printf("calls go round in %.0f MiB, %s the last cache\n",
                     (double)ruler->ring_bytes / 1048576,
                     ruler->capped ? "what free memory allows of 4 times" : "4 times");
}

int ruler_open(struct ruler *ruler, const char *bench, const struct ruler_options *options)
{
    *ruler = (struct ruler){.options = options, .bench = bench, .runs = options->runs};
    if (ruler->runs == 0)
        ruler->runs = options->quick ? QUICK_RUNS : RUNS;
    struct quire_error error;
    struct quire_backend_config config;
    quire_backend_config_init(&config);
    config.num_threads = options->threads;
    ruler->choice.struct_size = sizeof ruler->choice;
    if (quire_cpu_choose(&config, &ruler->choice, &error) != QUIRE_OK ||
        quire_backend_create("cpu", &config, &ruler->backend, &error) != QUIRE_OK)
        return cli_fail(&error);
    size_ring(ruler);
    ruler->memory = quire__alloc_aligned(4096, ruler->ring_bytes);
    ruler->rows = quire__calloc(RULER_ROWS_MAX, sizeof *ruler->rows);
    ruler->json = json_array();
    ruler->skipped = json_array();
    if (ruler->memory == NULL || ruler->rows == NULL) {
        cli_error("bench %s: no memory for %llu bytes to read", bench,
                  (unsigned long long)ruler->ring_bytes);
        return CLI_BAD_DATA;
    }
    memset(ruler->memory, 0x5a, ruler->ring_bytes);
    say_machine(ruler);
    return CLI_OK;
}

void ruler_close(struct ruler *ruler)
{
    quire_backend_destroy(ruler->backend);
    quire__free(ruler->memory);
    quire__free(ruler->rows);
    json_decref(ruler->json);
    json_decref(ruler->skipped);
    *ruler = (struct ruler){0};
}

bool ruler_wants(const struct ruler *ruler, const char *name)
{
    return ruler->options->only == NULL || strstr(name, ruler->options->only) != NULL;
}

bool ruler_has_tiles(const struct ruler *ruler)
{
    const struct quire_cpu_level *level = &ruler->choice.level;
    return strcmp(level->name, "amx") == 0 && level->products == QUIRE_BF16;
}

uint32_t ruler_ring(const struct ruler *ruler, double bytes, uint32_t max)
{
    const double count = (double)ruler->ring_bytes / bytes;
    return count >= max ? max : (uint32_t)count + 1;
}

/* ---- measuring ---- */

static quire_status look_at_roof(struct ruler *ruler, bool codes, struct stats_roof *roof)
{
    struct stats_roof seen = {0};
    uint32_t products = codes ? QUIRE_Q8 : ruler->choice.level.products;
    quire_status status =
        quire_cpu_read_rate(ruler->backend, ruler->memory, ruler->ring_bytes, &seen.bytes);
    if (status == QUIRE_OK)
        status = quire_cpu_product_rate(ruler->backend, products, &seen.products);
    if (status == QUIRE_OK)
        stats_roof_raise(roof, &seen);
    return status;
}

/* Nanoseconds of a call, over `calls` of them from *at on round the ring. */
static quire_status time_calls(struct ruler *ruler, const struct ruler_work *work, uint32_t calls,
                               uint32_t *at, double *ns)
{
    const struct quire_memory_ops *memory = ruler->backend->memory;
    quire_fence fence = 0;
    quire_status status = QUIRE_OK;
    uint64_t started_ns = quire__now_ns();
    for (uint32_t i = 0; i < calls && status == QUIRE_OK; i++, *at = (*at + 1) % work->count)
        status = work->call(work->context, *at);
    if (status == QUIRE_OK)
        status = memory->fence_record(ruler->backend, &fence);
    if (status == QUIRE_OK)
        status = memory->fence_wait(ruler->backend, fence);
    *ns = (double)(quire__now_ns() - started_ns) / calls;
    return status;
}

/* Calls of one run: enough to time, and at most once round the ring. The first call does not count:
 * it may find threads asleep. */
static quire_status count_calls(struct ruler *ruler, const struct ruler_work *work, uint32_t *at,
                                uint32_t *calls)
{
    double ns;
    uint32_t wanted = 1;
    quire_status status = time_calls(ruler, work, 1, at, &ns);
    *calls = 0;
    while (status == QUIRE_OK && *calls < wanted) {
        *calls = wanted;
        status = time_calls(ruler, work, *calls, at, &ns);
        const double enough = ruler->options->quick ? 1 : run_ns_min / ns + 1;
        wanted = enough < work->count ? (uint32_t)enough : work->count;
    }
    return status;
}

quire_status ruler_time(struct ruler *ruler, const struct ruler_work *work, struct ruler_row *row)
{
    const uint32_t runs = ruler->runs;
    const uint32_t looks = ruler->options->quick ? 1 : ROOFS;
    double ns[RULER_RUNS_MAX];
    struct stats_roof roof = {0};
    uint32_t at = 0, calls;
    quire_status status = count_calls(ruler, work, &at, &calls);
    for (uint32_t run = 0, looked = 0; run < runs && status == QUIRE_OK; run++) {
        for (; looked * runs < (run + 1) * looks && status == QUIRE_OK; looked++)
            status = look_at_roof(ruler, row->codes, &roof);
        if (status == QUIRE_OK)
            status = time_calls(ruler, work, calls, &at, &ns[run]);
    }
    if (status != QUIRE_OK)
        return status;
    row->ns = stats_median(ns, runs);
    row->roof_ns = stats_roof_ns(&roof, row->bytes, row->products, &row->by_memory);
    stats_roof_raise(row->codes ? &ruler->codes_roof : &ruler->roof, &roof);
    if (!ruler->options->quick && row->roof_ns > wrong_over * row->ns) {
        ruler->num_wrong++;
        cli_error("bench %s: %s takes %.4f ms, under its roof of %.4f ms: one of them is measured "
                  "wrongly",
                  ruler->bench, row->name, row->ns / 1e6, row->roof_ns / 1e6);
    }
    return QUIRE_OK;
}

/* ---- telling ---- */

static json_t *json_row(const struct ruler_row *row)
{
    return json_pack("{s:s, s:f, s:f, s:f, s:f, s:b, s:f, s:f, s:b}", "name", row->name, "ms",
                     row->ns / 1e6, "roof_ms", row->roof_ns / 1e6, "ratio", row->roof_ns / row->ns,
                     "target", row->target, "by_memory", row->by_memory, "bytes", row->bytes,
                     "products", row->products, "codes", row->codes);
}

static void print_row(struct ruler *ruler, const struct ruler_row *row)
{
    const double ratio = row->roof_ns / row->ns;
    if (!ruler->said)
        (void)cli_print("\n%-28s %8s %8s %6s %6s %-5s %s\n", "row", "ms", "roof ms", "ratio",
                        "target", "", "bound by");
    ruler->said = true;
    char bar[BAR_WIDTH + 1] = "", target[8] = "";
    for (int i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < (int)(ratio * BAR_WIDTH)         ? '#'
                 : i < (int)(row->target * BAR_WIDTH) ? '.'
                                                      : ' ';
    if (row->target > 0)
        (void)snprintf(target, sizeof target, "%.2f", row->target);
    (void)cli_print("%-28s %8.4f %8.4f %6.2f %6s %-5s ", row->name, row->ns / 1e6,
                    row->roof_ns / 1e6, ratio, target,
                    row->target == 0 || ruler->options->quick ? ""
                    : ratio >= row->target                    ? "met"
                                                              : "below");
    const char *bound = row->by_memory ? "memory" : "products";
    if (isatty(STDOUT_FILENO) == 1)
        (void)cli_print("%-8s %s\n", bound, bar);
    else
        (void)cli_print("%s\n", bound);
}

quire_status ruler_measure(struct ruler *ruler, const struct ruler_work *work,
                           struct ruler_row *row)
{
    quire_status status = ruler_time(ruler, work, row);
    if (status != QUIRE_OK)
        return status;
    ruler->num_below += row->roof_ns < row->target * row->ns;
    if (ruler->num_rows < RULER_ROWS_MAX)
        ruler->rows[ruler->num_rows++] = *row;
    (void)json_array_append_new(ruler->json, json_row(row));
    if (!ruler->options->json)
        print_row(ruler, row);
    return QUIRE_OK;
}

void ruler_skip(struct ruler *ruler, const char *name, const char *why)
{
    (void)json_array_append_new(ruler->skipped, json_pack("{s:s, s:s}", "name", name, "why", why));
    if (!ruler->options->json)
        (void)cli_print("%-28s skipped: %s\n", name, why);
}

struct stats_roof ruler_roof(const struct ruler *ruler)
{
    struct stats_roof roof = ruler->roof;
    stats_roof_raise(&roof, &ruler->codes_roof);
    return roof;
}

static json_t *json_whole(struct ruler *ruler, json_t *more)
{
    const struct quire_cpu_choice *choice = &ruler->choice;
    json_t *root = json_pack(
        "{s:s, s:s, s:s, s:s, s:i, s:b, s:I, s:I, s:b, s:f, s:f, s:f, s:O, s:O}", "bench",
        ruler->bench, "processor", choice->processor, "level", choice->level.name, "products",
        quire_dtype_name(choice->level.products), "threads", (int)choice->num_threads, "quick",
        ruler->options->quick, "cache_bytes", (json_int_t)ruler->cache_bytes, "ring_bytes",
        (json_int_t)ruler->ring_bytes, "capped", ruler->capped, "read_gb_s",
        ruler_roof(ruler).bytes / 1e9, "gmac_s", ruler->roof.products / 1e9, "codes_gmac_s",
        ruler->codes_roof.products / 1e9, "rows", ruler->json, "skipped", ruler->skipped);
    if (root != NULL && more != NULL)
        (void)json_object_update(root, more);
    return root;
}

static void print_roof(const struct ruler *ruler)
{
    (void)cli_print("\nroof: %.1f GB/s read", ruler_roof(ruler).bytes / 1e9);
    if (ruler->roof.products > 0)
        (void)cli_print(", %.1f G multiply-adds/s of %s", ruler->roof.products / 1e9,
                        quire_dtype_name(ruler->choice.level.products));
    if (ruler->codes_roof.products > 0)
        (void)cli_print(", %.1f G of weights with codes", ruler->codes_roof.products / 1e9);
    (void)cli_print("; %u of %u rows below their target\n", ruler->num_below, ruler->num_rows);
}

int ruler_finish(struct ruler *ruler, json_t *more)
{
    int result = CLI_OK;
    if (ruler->num_rows == 0 && json_array_size(ruler->skipped) == 0) {
        cli_error("bench %s: no row has %s in its name", ruler->bench, ruler->options->only);
        result = CLI_BAD_DATA;
    } else if (ruler->options->json) {
        result = files_print_json(json_whole(ruler, more));
    } else if (ruler->num_rows > 0 && !ruler->options->quick) {
        print_roof(ruler);
    }
    json_decref(more);
    return ruler->num_wrong > 0 ? CLI_BAD_DATA : result;
}
