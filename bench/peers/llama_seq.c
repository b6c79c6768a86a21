/* llama_seq.c - times llama.cpp's seq_cp and seq_rm on the works of bench/peers.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Usage: llama_seq MODEL.gguf RUNS; prints JSON. run.sh builds it against llama.cpp's own headers.
 *
 * The cache is unified (cells of all sequences in one array, where seq_cp shares and copies
 * nothing) and has just the cells that the works need: both calls walk all of them. */
#include <stdbool.h>
#include <string.h>

#include "llama.h"

#include "works.h"

enum { FREE, FORK, UNFORK, ROLL, NUM_ROWS };

static struct row rows[NUM_ROWS] = {
    [FREE] = {.name = "free"},
    [FORK] = {.name = "fork"},
    [UNFORK] = {.name = "unfork"},
    [ROLL] = {.name = "rollback"},
};

static void need(int good, const char *what)
{
    if (good)
        return;
    fprintf(stderr, "llama_seq: %s failed\n", what);
    exit(1);
}

static void quiet(enum ggml_log_level level, const char *text, void *data)
{
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

/* Computes positions first .. first + count of sequence 0. */
static void append(struct llama_context *context, int first, int count)
{
    struct llama_batch batch = llama_batch_init(PROMPT, 0, 1);
    for (int done = 0; done < count; done += batch.n_tokens) {
        batch.n_tokens = count - done < PROMPT ? count - done : PROMPT;
        for (int i = 0; i < batch.n_tokens; i++) {
            batch.token[i] = (llama_token)(prompt_token(0, (uint32_t)(first + done + i)) % 256);
            batch.pos[i] = first + done + i;
            batch.n_seq_id[i] = 1;
            batch.seq_id[i][0] = 0;
            batch.logits[i] = done + i == count - 1;
        }
        need(llama_decode(context, batch) == 0, "llama_decode");
    }
    llama_batch_free(batch);
}

static struct llama_context *make_context(struct llama_model *model)
{
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = LONG + 1;
    params.n_batch = PROMPT;
    params.n_ubatch = PROMPT;
    params.n_seq_max = 2;
    params.n_threads = 1;
    params.n_threads_batch = 1;
    params.kv_unified = true;
    params.no_perf = true;
    struct llama_context *context = llama_init_from_model(model, params);
    need(context != NULL, "llama_init_from_model");
    return context;
}

/* Sequence 1 becomes a copy of the long sequence 0, and goes; then 0 loses its last tokens. */
static void share_work(struct llama_context *context, int runs)
{
    llama_memory_t memory = llama_get_memory(context);
    for (int run = 0; run < runs; run++) {
        double begin = now_ns();
        llama_memory_seq_cp(memory, 0, 1, 0, LONG);
        double forked = now_ns();
        bool gone = llama_memory_seq_rm(memory, 1, -1, -1);
        double ended = now_ns();
        need(gone && llama_memory_seq_pos_max(memory, 1) < 0, "llama_memory_seq_rm");
        add_run(&rows[FORK], (forked - begin) / 1000);
        add_run(&rows[UNFORK], (ended - forked) / 1000);
    }
    for (int run = 0; run < runs; run++) {
        const int kept = LONG + 1 - ROLLBACK;
        double begin = now_ns();
        bool gone = llama_memory_seq_rm(memory, 0, kept, -1);
        add_run(&rows[ROLL], (now_ns() - begin) / 1000);
        need(gone && llama_memory_seq_pos_max(memory, 0) == kept - 1, "llama_memory_seq_rm");
        append(context, kept, ROLLBACK);
    }
}

/* The only holder of the long sequence lets go of it; a saved state brings it back. */
static void free_work(struct llama_context *context, int runs)
{
    llama_memory_t memory = llama_get_memory(context);
    size_t bytes = llama_state_seq_get_size(context, 0);
    uint8_t *state = malloc(bytes);
    need(state != NULL && llama_state_seq_get_data(context, state, bytes, 0) == bytes,
         "llama_state_seq_get_data");
    for (int run = 0; run < runs; run++) {
        double begin = now_ns();
        bool gone = llama_memory_seq_rm(memory, 0, -1, -1);
        add_run(&rows[FREE], (now_ns() - begin) / (LONG / BLOCK));
        need(gone && llama_memory_seq_pos_max(memory, 0) < 0, "llama_memory_seq_rm");
        need(llama_state_seq_set_data(context, state, bytes, 0) == bytes &&
                 llama_memory_seq_pos_max(memory, 0) == LONG,
             "llama_state_seq_set_data");
    }
    free(state);
}

int main(int argc, char **argv)
{
    int runs = argc == 3 ? runs_argument(argv[2]) : 0;
    if (runs == 0)
        return 2;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    need(model != NULL, "llama_model_load_from_file");
    struct llama_context *context = make_context(model);
    append(context, 0, LONG + 1);
    share_work(context, runs);
    free_work(context, runs);
    llama_free(context);
    llama_model_free(model);
    print_rows("llama.cpp", LLAMA_VERSION, rows, NUM_ROWS);
    return 0;
}
