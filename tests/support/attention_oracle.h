/* attention_oracle.h - attention in double precision, written down directly.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TESTS_ATTENTION_ORACLE_H
#define QUIRE_TESTS_ATTENTION_ORACLE_H

#include "cache_fixture.h"

/* Parameters of each head that the fixture and the oracle share. */
float qt_alibi_slope(uint32_t head);
float qt_sink_logit(uint32_t head);

/* Asserts that env->host_out (and host_lse where asked) hold what the oracle says for every row of
 * the batch. */
void qt_oracle_check(const struct qt_env *env, const struct qt_batch *batch, uint32_t layer,
                     const struct qt_attend *how);

#endif
