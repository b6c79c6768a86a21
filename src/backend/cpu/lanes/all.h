/* all.h - every kernel on lanes, for the level whose header came before.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_BACKEND_CPU_LANES_ALL_H
#define QUIRE_BACKEND_CPU_LANES_ALL_H

#include "backend/cpu/lanes/math.h"

#include "backend/cpu/lanes/convert.h"

#include "backend/cpu/lanes/kv.h"

#if defined(WITH_TILES)
#include "backend/cpu/lanes/attend_tiles.h"

#else
#include "backend/cpu/lanes/attend.h"
#endif

#include "backend/cpu/lanes/decode.h"

#include "backend/cpu/lanes/linear.h"

#include "backend/cpu/lanes/nn.h"

#include "backend/cpu/lanes/peak.h"

#endif
