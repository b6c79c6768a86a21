/* bench_linear.c - quire bench linear: products with weights of every type, beside their roof.
 * SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "quire/chart.h"
#include "quire/commands.h"
#include "quire/console.h"
#include "quire/files.h"
#include "quire/ruler.h"

enum { SIDE = 4096, SIDE_QUICK = 512, TENSORS_MAX = 4096, TOKENS_MAX = 512 };

static const struct {
    uint32_t tokens;
    double target, target_tiles;
} batches[] = {{1, 0.80, 0.80}, {32, 0.60, 0.40}, {512, 0.60, 0.40}};

/* The weight types, and where in a block an f16 scale or two begin; NONE: plain numbers. */
enum { NONE = UINT16_MAX };
struct format {
    uint32_t type, elements, bytes;
    const char *name;
    uint32_t scale_at, num_scales;
    double target_one; /* for one token */
};
static const struct format formats[] = {
    {QUIRE_W_F32, 1, 4, "f32", NONE, 0, 0.80},      {QUIRE_W_F16, 1, 2, "f16", NONE, 0, 0.80},
    {QUIRE_W_BF16, 1, 2, "bf16", NONE, 0, 0.80},    {QUIRE_W_Q8_0, 32, 34, "q8_0", 0, 1, 0.80},
    {QUIRE_W_Q4_0, 32, 18, "q4_0", 0, 1, 0.80},     {QUIRE_W_Q4_1, 32, 20, "q4_1", 0, 2, 0.80},
    {QUIRE_W_Q5_0, 32, 22, "q5_0", 0, 1, 0.50},     {QUIRE_W_Q5_1, 32, 24, "q5_1", 0, 2, 0.50},
    {QUIRE_W_Q4_K, 256, 144, "q4_k", 0, 2, 0.80},   {QUIRE_W_Q5_K, 256, 176, "q5_k", 0, 2, 0.50},
    {QUIRE_W_Q6_K, 256, 210, "q6_k", 208, 1, 0.50},
};

/* The tensors of one type, and the activations. */
struct linear_scene {
    struct quire_backend *backend;
    const struct format *format;
    uint32_t side, count, tokens;
    uint64_t bytes; /* of a tensor */
    uint8_t *data;
    struct quire_weight *weights[TENSORS_MAX];
    float *x, *y; /* [TOKENS_MAX][side] */
};

/* ---- filling ---- */

static uint64_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u; /* TAOCP vol. 2, 3.3.4 */
    return *state ^ *state >> 29;
}

static void store16(uint8_t *to, uint32_t value)
{
    const uint16_t word = (uint16_t)value;
    memcpy(to, &word, sizeof word);
}

/* Numbers of ordinary size: 1/8 .. 1/4 in f16, 1/8 .. 1/2 in bf16 and f32. */
static void tame(const struct format *format, uint8_t *block, uint32_t bits)
{
    if (format->type == QUIRE_W_F16) {
        store16(block, (bits & 0x83ff) | 0x3000);
    } else if (format->type == QUIRE_W_BF16) {
        store16(block, (bits & 0x80ff) | 0x3e00);
    } else if (format->type == QUIRE_W_F32) {
        const uint32_t word = (bits & 0x80ffffff) | 0x3e000000;
        memcpy(block, &word, sizeof word);
    }
    for (uint32_t i = 0; i < format->num_scales; i++)
        store16(block + format->scale_at + (size_t)2 * i, 0x2400 | (bits & 0xff)); /* 1/64 */
}

static void fill_tensor(const struct format *format, uint8_t *data, uint64_t bytes)
{
    uint64_t state = 1;
    for (uint64_t at = 0; at < bytes; at += sizeof state) {
        const uint64_t word = next_random(&state);
        memcpy(data + at, &word, bytes - at < sizeof word ? bytes - at : sizeof word);
    }
    for (uint64_t at = 0; at < bytes; at += format->bytes)
        tame(format, data + at, (uint32_t)(next_random(&state) >> 32));
}

/* ---- the tensors ---- */

static void scene_close(struct linear_scene *scene)
{
    for (uint32_t i = 0; i < scene->count; i++)
        scene->backend->nn->weight_destroy(scene->backend, scene->weights[i]);
    scene->count = 0;
    quire__free(scene->data);
    scene->data = NULL;
}

static quire_status scene_open(struct linear_scene *scene, const struct ruler *ruler,
                               const struct format *format)
{
    const uint64_t row_bytes = scene->side / format->elements * (uint64_t)format->bytes;
    scene->format = format;
    scene->bytes = row_bytes * scene->side;
    const uint32_t count = ruler_ring(ruler, (double)scene->bytes, TENSORS_MAX);
    scene->data = quire__alloc_aligned(4096, count * scene->bytes);
    if (scene->data == NULL)
        return QUIRE_E_NOMEM;
    fill_tensor(format, scene->data, scene->bytes);
    quire_status status = QUIRE_OK;
    for (uint32_t i = 0; i < count && status == QUIRE_OK; i++) {
        uint8_t *data = scene->data + i * scene->bytes;
        if (i > 0)
            memcpy(data, scene->data, scene->bytes);
        const struct quire_weight_desc desc = {.type = format->type,
                                               .rows = scene->side,
                                               .columns = scene->side,
                                               .data = data,
                                               .bytes = scene->bytes};
        status = scene->backend->nn->weight_create(scene->backend, &desc, &scene->weights[i]);
        scene->count += status == QUIRE_OK;
    }
    return status;
}

static quire_status call_linear(void *context, uint32_t i)
{
    struct linear_scene *scene = context;
    struct quire_view x = quire_view_host(scene->x, QUIRE_F32, scene->tokens, 1, scene->side);
    struct quire_view y = quire_view_host(scene->y, QUIRE_F32, scene->tokens, 1, scene->side);
    return scene->backend->nn->linear(scene->backend, scene->weights[i], &x, &y);
}

/* ---- the rows ---- */

static void name_row(const struct format *format, size_t batch, char name[40])
{
    (void)snprintf(name, 40, "linear-%s-%u", format->name, batches[batch].tokens);
}

static double target_of(const struct ruler *ruler, const struct format *format, size_t batch)
{
    if (batches[batch].tokens == 1)
        return format->target_one;
    return ruler_has_tiles(ruler) ? batches[batch].target_tiles : batches[batch].target;
}

static bool wants_any(const struct ruler *ruler, const struct format *format)
{
    bool any = false;
    for (size_t b = 0; b < QUIRE_ARRAY_LEN(batches); b++) {
        char name[40];
        name_row(format, b, name);
        any = any || ruler_wants(ruler, name);
    }
    return any;
}

static quire_status measure_format(struct ruler *ruler, struct linear_scene *scene,
                                   const struct format *format)
{
    if (!wants_any(ruler, format))
        return QUIRE_OK;
    quire_status status = scene_open(scene, ruler, format);
    for (size_t b = 0; b < QUIRE_ARRAY_LEN(batches) && status == QUIRE_OK; b++) {
        const struct ruler_work work = {call_linear, scene, scene->count};
        struct ruler_row row = {.bytes = (double)scene->bytes, .codes = format->num_scales > 0};
        name_row(format, b, row.name);
        scene->tokens = batches[b].tokens;
        row.products = (double)scene->side * scene->side * scene->tokens;
        row.target = target_of(ruler, format, b);
        row.curve = (uint32_t)(format - formats) + 1;
        row.x = scene->tokens;
        if (ruler_wants(ruler, row.name))
            status = ruler_measure(ruler, &work, &row);
    }
    scene_close(scene);
    return status;
}

static int run(struct ruler *ruler)
{
    struct linear_scene *scene = quire__calloc(1, sizeof *scene);
    quire_status status = QUIRE_E_NOMEM;
    if (scene != NULL) {
        scene->backend = ruler->backend;
        scene->side = ruler->options->quick ? SIDE_QUICK : SIDE;
        scene->x = quire__calloc((size_t)TOKENS_MAX * scene->side, sizeof(float));
        scene->y = quire__calloc((size_t)TOKENS_MAX * scene->side, sizeof(float));
        if (scene->x != NULL && scene->y != NULL)
            status = QUIRE_OK;
        for (size_t i = 0; status == QUIRE_OK && i < (size_t)TOKENS_MAX * scene->side; i++)
            scene->x[i] = (float)(i * 7919 % 255) / 128 - 1;
        for (size_t f = 0; f < QUIRE_ARRAY_LEN(formats) && status == QUIRE_OK; f++)
            status = measure_format(ruler, scene, &formats[f]);
        quire__free(scene->x);
        quire__free(scene->y);
        quire__free(scene);
    }
    if (status != QUIRE_OK) {
        cli_error("bench linear: %s", quire_status_text(status));
        return CLI_BAD_DATA;
    }
    return CLI_OK;
}

static int draw(const char *path, const struct ruler *ruler)
{
    const char *names[QUIRE_ARRAY_LEN(formats) + 1] = {NULL};
    for (size_t i = 0; i < QUIRE_ARRAY_LEN(formats); i++)
        names[i] = formats[i].name;
    const struct chart_curves curves = {"linear layers of 4096 x 4096", "rows of x", names, 1};
    return chart_write(path, ruler, &curves, 1);
}

int command_bench_linear(int argc, char **argv)
{
    struct ruler_options options = {0};
    const char *svg = NULL;
    struct cli_arg shared[RULER_ARGS];
    ruler_args(&options, shared);
    const struct cli_arg args[] = {
        {"--svg", CLI_TEXT, &svg, 0, 0, "FILE", "draw the roofline and the curves"},
    };
    const struct cli_command command = {
        .name = "bench linear",
        .synopsis = "[--only NAME] [--svg FILE] [options]",
        .about = "Prints how long products with 4096 x 4096 weights of every type take, for 1, 32 "
                 "and 512 rows,\nand how near that is to the time in which the machine reads the "
                 "weights, or multiplies.",
        .example = "quire bench linear --only q4_k",
        .args = args,
        .num_args = QUIRE_ARRAY_LEN(args),
        .shared = shared,
        .num_shared = RULER_ARGS,
    };
    enum cli_parsed parsed = cli_parse(&command, argc, argv);
    if (parsed != CLI_PARSED)
        return parsed == CLI_HELPED ? CLI_OK : CLI_BAD_USAGE;
    struct ruler ruler = {0};
    int result = files_try_write(svg);
    if (result == CLI_OK)
        result = ruler_open(&ruler, "linear", &options);
    if (result == CLI_OK)
        result = run(&ruler);
    if (result == CLI_OK && svg != NULL)
        result = draw(svg, &ruler);
    if (result == CLI_OK)
        result = ruler_finish(&ruler, NULL);
    ruler_close(&ruler);
    return result;
}
