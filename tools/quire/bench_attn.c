/* bench_attn.c - quire bench attn: attention over a full cache, beside its roof.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "quire/attn_scene.h"
#include "quire/chart.h"
#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"

enum { QUICK_SHRINKS = 32, GQA = 8, STEP_MAX = 64 };

/* Curves of the drawing: by depth, those of a dtype in both layouts; by tokens; prefill has one
 * point a dtype, and none. */
static const char *const depth_curves[] = {"f32 contiguous",
                                           "f32 paged",
                                           "f16 contiguous",
                                           "f16 paged",
                                           "bf16 contiguous",
                                           "bf16 paged",
                                           "q8 contiguous",
                                           "q8 paged",
                                           "q4 contiguous",
                                           "q4 paged",
                                           NULL};
static const char *const step_curves[] = {"f16 paged", NULL};
enum { DEPTH_CURVE = 1, STEP_CURVE = 100 };

/* The K/V types, with what decode must reach. */
static const struct {
    const char *name;
    double decode;
} dtypes[] = {{"f32", 0.85}, {"f16", 0.85}, {"bf16", 0.85}, {"q8", 0.70}, {"q4", 0.55}};

static const struct {
    const char *name;
    uint32_t layout;
} layouts[] = {{"contiguous", QUIRE_LAYOUT_CONTIGUOUS}, {"paged", QUIRE_LAYOUT_PAGED}};

struct bench {
    struct ruler ruler;
    json_t *steps; /* the curve of 1 .. 64 new tokens */
    struct quire_error error;
};

/* ---- one row ---- */

/* The K/V type of that name, where this library and this backend have it. */
static bool find_dtype(const struct quire_backend *backend, const char *name, uint32_t *dtype)
{
    for (uint32_t i = 0; i < 32; i++) {
        if (quire_dtype_name(i) != NULL && strcmp(quire_dtype_name(i), name) == 0) {
            *dtype = i;
            return (backend->caps.kv_dtypes >> i & 1) != 0;
        }
    }
    return false;
}

static void shrink(const struct ruler *ruler, struct attn_shape *shape)
{
    if (ruler->options->quick) {
        shape->shared /= QUICK_SHRINKS;
        shape->own = shape->own > 512 ? shape->own / QUICK_SHRINKS : shape->own / 4;
    }
}

static quire_status measure_step(struct bench *bench, struct attn_scene *scene, uint32_t n_new,
                                 struct ruler_row *row, bool told_alone)
{
    const struct ruler_work work = {attn_scene_call, scene, scene->layers};
    quire_status status = attn_scene_begin(scene, n_new);
    if (status != QUIRE_OK)
        return quire__fail(&bench->error, status, "cannot open a step: %s",
                           quire_status_text(status));
    row->bytes = attn_scene_bytes(scene, n_new);
    row->products = attn_scene_products(scene, n_new);
    status = told_alone ? ruler_measure(&bench->ruler, &work, row)
                        : ruler_time(&bench->ruler, &work, row);
    if (status == QUIRE_OK)
        status = attn_scene_end(scene);
    if (status != QUIRE_OK)
        return quire__fail(&bench->error, status, "%s: %s", row->name, quire_status_text(status));
    return QUIRE_OK;
}

/* A row of its own pool; nothing where it is not asked for, a note where the type is not there. */
static quire_status measure_row(struct bench *bench, struct attn_shape shape, const char *dtype,
                                uint32_t n_new, struct ruler_row *row)
{
    if (!ruler_wants(&bench->ruler, row->name))
        return QUIRE_OK;
    if (!find_dtype(bench->ruler.backend, dtype, &shape.dtype)) {
        ruler_skip(&bench->ruler, row->name, "the backend has no K/V of this type");
        return QUIRE_OK;
    }
    struct attn_scene scene;
    shape.new_max = n_new;
    shrink(&bench->ruler, &shape);
    quire_status status = attn_scene_open(&scene, &bench->ruler, &shape, &bench->error);
    if (status == QUIRE_OK)
        status = measure_step(bench, &scene, n_new, row, true);
    attn_scene_close(&scene);
    return status;
}

/* ---- the rows ---- */

/* One sequence, one new token: 4k, 16k, 64k, every type, both layouts. */
static quire_status decode_rows(struct bench *bench)
{
    static const uint32_t depths_k[] = {4, 16, 64};
    quire_status status = QUIRE_OK;
    for (uint32_t t = 0; t < QUIRE_ARRAY_LEN(dtypes); t++) {
        for (uint32_t l = 0; l < QUIRE_ARRAY_LEN(layouts); l++) {
            for (size_t d = 0; d < QUIRE_ARRAY_LEN(depths_k) && status == QUIRE_OK; d++) {
                const struct attn_shape shape = {.seqs = 1,
                                                 .own = depths_k[d] * 1024 - 1,
                                                 .kv_heads = GQA,
                                                 .layout = layouts[l].layout};
                struct ruler_row row = {.target = dtypes[t].decode,
                                        .curve = DEPTH_CURVE + 2 * t + l,
                                        .x = depths_k[d] * 1024};
                (void)snprintf(row.name, sizeof row.name, "decode-%uk-%s-%s", depths_k[d],
                               dtypes[t].name, layouts[l].name);
                status = measure_row(bench, shape, dtypes[t].name, 1, &row);
            }
        }
    }
    return status;
}

/* Batches, groups of other sizes, and a prompt that 64 sequences share. */
static quire_status other_decode_rows(struct bench *bench)
{
    static const struct {
        const char *name;
        struct attn_shape shape;
        double target;
    } rows[] = {
        {"batch-16x2k-f16-paged", {.seqs = 16, .own = 2047, .kv_heads = GQA}, 0.85},
        {"mha-16k-f16-paged", {.seqs = 1, .own = 16383, .kv_heads = ATTN_HEADS}, 0.85},
        {"mqa-16k-f16-paged", {.seqs = 1, .own = 16383, .kv_heads = 1}, 0.75},
        {"cascade-64x128+8k-f16-paged",
         {.seqs = 64, .shared = 8192, .own = 127, .kv_heads = GQA},
         0.50},
    };
    quire_status status = QUIRE_OK;
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(rows) && status == QUIRE_OK; i++) {
        struct attn_shape shape = rows[i].shape;
        struct ruler_row row = {.target = rows[i].target};
        shape.layout = QUIRE_LAYOUT_PAGED;
        (void)snprintf(row.name, sizeof row.name, "%s", rows[i].name);
        status = measure_row(bench, shape, "f16", 1, &row);
    }
    return status;
}

static quire_status prefill_rows(struct bench *bench)
{
    const bool tiles = ruler_has_tiles(&bench->ruler);
    const struct attn_shape shape = {
        .seqs = 1, .own = 8192, .kv_heads = GQA, .layout = QUIRE_LAYOUT_PAGED};
    quire_status status = QUIRE_OK;
    for (size_t t = 1; t < QUIRE_ARRAY_LEN(dtypes) && status == QUIRE_OK; t++) {
        struct ruler_row row = {.target = tiles ? 0.35 : 0.60};
        (void)snprintf(row.name, sizeof row.name, "prefill-512-8k-%s-paged", dtypes[t].name);
        status = measure_row(bench, shape, dtypes[t].name, ATTN_NEW_MAX, &row);
    }
    return status;
}

/* ---- 1 to 64 new tokens ---- */

static bool is_power_of_two(uint32_t n)
{
    return (n & (n - 1)) == 0;
}

/* A time that falls while the work grows, or rises far over the straight line, is a cliff. */
static void tell_cliff(struct bench *bench, const double *ns)
{
    const struct stats_cliff cliff = stats_cliff(ns, STEP_MAX);
    const bool even = cliff.over <= 1.3 && cliff.drop >= 0.95;
    (void)json_object_set_new(bench->steps, "over_chord", json_real(cliff.over));
    (void)json_object_set_new(bench->steps, "over_chord_at", json_integer(cliff.over_at));
    (void)json_object_set_new(bench->steps, "drop", json_real(cliff.drop));
    (void)json_object_set_new(bench->steps, "drop_at", json_integer(cliff.drop_at));
    (void)json_object_set_new(bench->steps, "even", json_boolean(even));
    if (!bench->ruler.options->json)
        (void)cli_print("new-1 .. new-64: at most %.2f of the line from 1 to 64 (at %u; target "
                        "1.30), at least %.2f of the time before (at %u; target 0.95): %s\n",
                        cliff.over, cliff.over_at, cliff.drop, cliff.drop_at,
                        even ? "met" : "below");
}

static void name_step(uint32_t n, char name[40])
{
    (void)snprintf(name, 40, "new-%u-8k-f16-paged", n);
}

/* How many of the steps are asked for. */
static uint32_t wanted_steps(const struct ruler *ruler)
{
    uint32_t wanted = 0;
    for (uint32_t n = 1; n <= STEP_MAX; n++) {
        char name[40];
        name_step(n, name);
        wanted += ruler_wants(ruler, name);
    }
    return wanted;
}

/* All 64 of them make a curve, of which some are rows too; else each that is asked for is a row. */
static quire_status measure_steps(struct bench *bench, struct attn_scene *scene, bool all)
{
    double ns[STEP_MAX];
    json_t *list = json_array();
    quire_status status = QUIRE_OK;
    for (uint32_t n = 1; n <= STEP_MAX && status == QUIRE_OK; n++) {
        struct ruler_row row = {.target = 0.50, .curve = STEP_CURVE, .x = n};
        name_step(n, row.name);
        if (!ruler_wants(&bench->ruler, row.name))
            continue;
        status = measure_step(bench, scene, n, &row, !all || is_power_of_two(n));
        ns[n - 1] = row.ns;
        (void)json_array_append_new(list, json_real(row.ns / 1e6));
    }
    if (status == QUIRE_OK && all) {
        (void)json_object_set(bench->steps, "ms", list);
        tell_cliff(bench, ns);
    }
    json_decref(list);
    return status;
}

static quire_status step_rows(struct bench *bench)
{
    struct attn_shape shape = {.seqs = 1,
                               .own = 8192,
                               .kv_heads = GQA,
                               .dtype = QUIRE_F16,
                               .layout = QUIRE_LAYOUT_PAGED,
                               .new_max = STEP_MAX};
    struct attn_scene scene;
    uint32_t wanted = wanted_steps(&bench->ruler);
    if (wanted == 0)
        return QUIRE_OK;
    shrink(&bench->ruler, &shape);
    quire_status status = attn_scene_open(&scene, &bench->ruler, &shape, &bench->error);
    if (status == QUIRE_OK)
        status = measure_steps(bench, &scene, wanted == STEP_MAX);
    attn_scene_close(&scene);
    return status;
}

/* ---- the command ---- */

static int run(struct bench *bench)
{
    quire_status (*const parts[])(struct bench *) = {decode_rows, other_decode_rows, step_rows,
                                                     prefill_rows};
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(parts); i++)
        if (parts[i](bench) != QUIRE_OK)
            return cli_fail(&bench->error);
    return CLI_OK;
}

static int draw(const char *path, const struct ruler *ruler)
{
    const struct chart_curves sets[] = {
        {"decode, one sequence", "positions", depth_curves, DEPTH_CURVE},
        {"new tokens at depth 8k", "tokens", step_curves, STEP_CURVE},
    };
    return chart_write(path, ruler, sets, QUIRE_ARRAY_LEN(sets));
}

static int measure(const struct ruler_options *options, const char *svg)
{
    struct bench bench = {.steps = json_object()};
    int result = files_try_write(svg);
    if (result == CLI_OK)
        result = ruler_open(&bench.ruler, "attn", options);
    if (result == CLI_OK)
        result = run(&bench);
    if (result == CLI_OK && svg != NULL)
        result = draw(svg, &bench.ruler);
    if (result == CLI_OK)
        result = ruler_finish(&bench.ruler, json_pack("{s:O}", "new_tokens", bench.steps));
    ruler_close(&bench.ruler);
    json_decref(bench.steps);
    return result;
}

int command_bench_attn(int argc, char **argv)
{
    struct ruler_options options = {0};
    const char *svg = NULL;
    struct cli_arg shared[RULER_ARGS];
    ruler_args(&options, shared);
    const struct cli_arg args[] = {
        {"--svg", CLI_TEXT, &svg, 0, 0, "FILE", "draw the roofline and the curves"},
    };
    const struct cli_command command = {
        .name = "bench attn",
        .synopsis = "[--only NAME] [--svg FILE] [options]",
        .about =
            "Prints how long attention takes in one layer of a full cache, with 32 query heads "
            "and 8 key/value\nheads of 128, and how near that is to the time in which the "
            "machine reads K and V, or multiplies.",
        .example = "quire bench attn --only decode-16k --svg attn.svg",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .shared = shared,
        .num_shared = RULER_ARGS,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    return measure(&options, svg);
}
