/* chart.h - drawings of what a ruler measured, as one SVG file.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef QUIRE_TOOL_CHART_H
#define QUIRE_TOOL_CHART_H

#include "quire/ruler.h"

/* Lines of a chart: row->curve is the index in `names`, from 1 on; rows->x grows along a line. */
struct chart_curves {
    const char *title, *x_text;
    const char *const *names; /* ends with NULL */
    uint32_t first;           /* curve number of names[0] */
};

/* Writes a roofline with every row of the ruler, and below it a chart of roof / time for each set
 * of curves. Gives an exit status after one line on stderr. */
int chart_write(const char *path, const struct ruler *ruler, const struct chart_curves *sets,
                uint32_t num_sets);

#endif
