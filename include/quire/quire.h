/* quire.h - everything: the KV cache of LLM inference as a C library.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_QUIRE_H
#define QUIRE_QUIRE_H

#include <quire/backend.h>
#include <quire/cpu.h>
#include <quire/paged.h>
#include <quire/pool.h>
#include <quire/seq.h>
#include <quire/status.h>
#include <quire/step.h>
#include <quire/types.h>
#include <quire/version.h>

#endif
