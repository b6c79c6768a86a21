/* paged.c - the kernels without the pool: an engine's own pages, two sequences that share one.
 * SPDX-License-Identifier: Apache-2.0
 *
 * The allocator is the engine's: here a counter. A formula stands in for the model, and a plain
 * loop over the pages checks the last output.
 * Build: cc paged.c $(pkg-config --cflags --libs quire) -lm */
#include <math.h>
#include <stdio.h>

#include <quire/quire.h>

enum { PAGES = 8, PAGE = 16, HEADS = 4, KV_HEADS = 2, DIM = 64, SEQS = 2, TOKENS_MAX = 20 };

/* What the engine owns: K and V of its one layer, and who has which page. */
static float k_pages[PAGES][KV_HEADS][PAGE][DIM], v_pages[PAGES][KV_HEADS][PAGE][DIM];
static uint32_t pages_taken, tables[SEQS][PAGES], lens[SEQS];

static float q[TOKENS_MAX][HEADS][DIM], out[TOKENS_MAX][HEADS][DIM];
static float k[TOKENS_MAX][KV_HEADS][DIM], v[TOKENS_MAX][KV_HEADS][DIM];

/* Makes sequence s longer, and takes pages where it has none yet. */
static void grow(uint32_t s, uint32_t n_new)
{
    uint32_t have = (lens[s] + PAGE - 1) / PAGE;
    lens[s] += n_new;
    for (; have * PAGE < lens[s]; have++)
        tables[s][have] = pages_taken++;
}

static void compute(float *x, uint32_t count, uint32_t what)
{
    for (uint32_t i = 0; i < count; i++)
        x[i] = sinf((float)(i * 7 + what * 3 + lens[0]) * 0.1f);
}

/* One step: n_new[s] tokens of every sequence, in CSR form. */
static quire_status run_step(struct quire_paged *paged, const uint32_t n_new[SEQS],
                             struct quire_error *error)
{
    uint32_t qo[SEQS + 1] = {0}, kv[SEQS + 1] = {0}, indices[SEQS * PAGES], last[SEQS];
    for (uint32_t s = 0; s < SEQS; s++) {
        grow(s, n_new[s]);
        qo[s + 1] = qo[s] + n_new[s];
        kv[s + 1] = kv[s];
        for (uint32_t p = 0; p * PAGE < lens[s]; p++)
            indices[kv[s + 1]++] = tables[s][p];
        last[s] = (lens[s] + PAGE - 1) % PAGE + 1;
    }
    struct quire_paged_batch batch = {sizeof batch, SEQS, qo, kv, indices, last};
    quire_status status = quire_paged_plan(paged, &batch, error);
    uint32_t rows = qo[SEQS];
    struct quire_view kr = quire_view_host(k, QUIRE_F32, rows, KV_HEADS, DIM);
    struct quire_view vr = quire_view_host(v, QUIRE_F32, rows, KV_HEADS, DIM);
    struct quire_view qr = quire_view_host(q, QUIRE_F32, rows, HEADS, DIM);
    struct quire_view outr = quire_view_host(out, QUIRE_F32, rows, HEADS, DIM);
    compute(&k[0][0][0], rows * KV_HEADS * DIM, 0); /* of each layer, if there were more */
    compute(&v[0][0][0], rows * KV_HEADS * DIM, 1);
    compute(&q[0][0][0], rows * HEADS * DIM, 2);
    if (status == QUIRE_OK)
        status = quire_paged_write(paged, 0, &kr, &vr, error);
    if (status == QUIRE_OK)
        status = quire_paged_attend(paged, 0, &qr, &outr, NULL, error);
    return status;
}

/* How far row `row`, the last token of sequence s, is from softmax(q k / sqrt(DIM)) v. */
static double difference(uint32_t s, uint32_t row)
{
    double worst = 0;
    for (uint32_t h = 0; h < HEADS; h++) {
        double sum = 0, value[DIM] = {0};
        uint32_t g = h / (HEADS / KV_HEADS);
        for (uint32_t t = 0; t < lens[s]; t++) {
            uint32_t page = tables[s][t / PAGE], at = t % PAGE; /* where position t lies */
            double dot = 0;
            for (uint32_t i = 0; i < DIM; i++)
                dot += (double)q[row][h][i] * (double)k_pages[page][g][at][i];
            double weight = exp(dot / sqrt(DIM));
            sum += weight;
            for (uint32_t i = 0; i < DIM; i++)
                value[i] += weight * (double)v_pages[page][g][at][i];
        }
        for (uint32_t i = 0; i < DIM; i++)
            worst = fmax(worst, fabs(value[i] / sum - (double)out[row][h][i]));
    }
    return worst;
}

int main(void)
{
    struct quire_error error = {0};
    struct quire_backend *backend = NULL;
    struct quire_paged *paged = NULL;
    struct quire_paged_layer layer = {
        .num_heads = HEADS,
        .num_kv_heads = KV_HEADS,
        .head_dim = DIM,
        .dtype_k = QUIRE_F32,
        .dtype_v = QUIRE_F32,
        .k = {.memory = k_pages, .bytes = sizeof k_pages},
        .v = {.memory = v_pages, .bytes = sizeof v_pages},
    };
    struct quire_paged_config config;
    quire_paged_config_init(&config);
    quire_status status = quire_backend_create("cpu", NULL, &backend, &error);
    config.backend = backend, config.layers = &layer, config.num_layers = 1;
    config.page_size = PAGE, config.num_pages = PAGES;
    if (status == QUIRE_OK)
        status = quire_paged_create(&config, &paged, &error);
    /* A prompt of 20 tokens; the second sequence begins with its first, full, page. */
    if (status == QUIRE_OK)
        status = run_step(paged, (uint32_t[]){20, 0}, &error);
    tables[1][0] = tables[0][0], lens[1] = PAGE;
    /* Then each goes its own way: 4 tokens and 1, and one each. */
    if (status == QUIRE_OK)
        status = run_step(paged, (uint32_t[]){1, 4}, &error);
    for (uint32_t i = 0; i < 3 && status == QUIRE_OK; i++)
        status = run_step(paged, (uint32_t[]){1, 1}, &error);
    double worst = status == QUIRE_OK ? fmax(difference(0, 0), difference(1, 1)) : 0;
    if (status == QUIRE_OK)
        printf("lengths %u and %u in %u pages; out %.6f %.6f; the plain loop agrees: %s\n", lens[0],
               lens[1], pages_taken, (double)out[0][0][0], (double)out[1][0][0],
               worst < 0.02 ? "yes" : "no"); /* levels with bf16 products round to 2^-9 */
    else
        (void)fprintf(stderr, "paged: %s %s\n", quire_status_text(status), error.message);
    quire_paged_destroy(paged);
    quire_backend_destroy(backend);
    return status == QUIRE_OK && worst < 0.02 ? 0 : 1;
}
