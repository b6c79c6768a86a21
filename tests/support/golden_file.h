/* golden_file.h - the goldens of a model: what a float64 forward pass computes.
 * SPDX-License-Identifier: Apache-2.0
 *
 * tests/golden/README.md describes the files. */
#ifndef QUIRE_TESTS_GOLDEN_FILE_H
#define QUIRE_TESTS_GOLDEN_FILE_H

#include <jansson.h>

#include "model_fixture.h"

struct qt_golden {
    json_t *root;
    char folder[512];
    char logits_name[64]; /* of the one logits file, or empty: a file for each prompt */
};

/* file: under tests/golden, as "tiny/f32_4_4.json". */
void qt_golden_open(struct qt_golden *golden, const char *file);
void qt_golden_close(struct qt_golden *golden);

/* A list of ids; give back with qt_free. */
uint32_t *qt_golden_ids(const json_t *array, uint32_t *count);
/* The arguments of make_tiny_model.py, with the check of the file's hash. */
void qt_golden_arguments(const struct qt_golden *golden, char *out, size_t size);

/* Computes all prompts of the golden file on a model of K/V f32 or of another dtype, and compares
 * the last logits and each token's log-probability within `bound`, the argmax of each position and
 * each greedy token where the choice has a margin of over `margin`. The log-probabilities are
 * within 0.03 in the mean. Levels that multiply bf16 get wider bounds of the others. */
void qt_golden_check(const struct qt_golden *golden, struct qt_engine *engine, double bound,
                     double margin);
/* Mean negative log-likelihood of the golden text within `part` of what it should be. */
void qt_golden_check_nll(const struct qt_golden *golden, struct qt_engine *engine, double part);

#endif
