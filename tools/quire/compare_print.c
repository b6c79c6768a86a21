/* compare_print.c - what quire eval --compare found: a table, a JSON object, a drawing.
 * SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "quire/compare.h"
#include "quire/console.h"
#include "quire/files.h"

struct compare_row compare_row(const struct compare *self, uint32_t index)
{
    const struct compare_format *format = &self->formats[index];
    const double n = self->tokens != 0 ? (double)self->tokens : 1.0;
    const double first = self->formats[0].nll / n, mean = format->nll / n;
    const uint64_t at = self->tokens * 99 / 100;
    return (struct compare_row){
        .mean_nll = mean,
        .ppl = exp(mean),
        .ppl_more = 100.0 * expm1(mean - first),
        .divergence = format->divergence / n,
        .divergence_99 = self->tokens != 0 ? (double)format->divergences[at] : 0.0,
        .same_best = 100.0 * (double)format->same_best / n,
        .tokens_s = format->ns != 0 ? n * 1e9 / (double)format->ns : 0.0,
    };
}

static int by_size(const void *a, const void *b)
{
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static int print_json(const struct compare *self)
{
    json_t *formats = json_array();
    for (uint32_t i = 0; i < self->count; i++) {
        const struct compare_format *format = &self->formats[i];
        const struct compare_row row = compare_row(self, i);
        (void)json_array_append_new(
            formats, json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:I, s:f}", "name",
                               format->name, "dtype_k", quire_dtype_name(format->options.dtypes[0]),
                               "dtype_v", quire_dtype_name(format->options.dtypes[1]), "mean_nll",
                               row.mean_nll, "ppl", row.ppl, "ppl_more_pct", row.ppl_more,
                               "kl_mean", row.divergence, "kl_99", row.divergence_99, "top1_pct",
                               row.same_best, "bytes_per_token", (json_int_t)format->position_bytes,
                               "tok_s", row.tokens_s));
    }
    return files_print_json(
        json_pack("{s:I, s:o}", "tokens", (json_int_t)self->tokens, "formats", formats));
}

static int print_text(const struct compare *self)
{
    bool written = cli_print("tokens    %llu\n%-10s %9s %9s %9s %10s %10s %8s %11s %9s\n",
                             (unsigned long long)self->tokens, "K/V", "mean_nll", "ppl", "ppl more",
                             "KL mean", "KL 99 %", "top 1", "bytes/token", "tokens/s");
    for (uint32_t i = 0; i < self->count && written; i++) {
        const struct compare_row row = compare_row(self, i);
        written = cli_print("%-10s %9.6f %9.4f %+8.3f%% %10.6f %10.6f %7.2f%% %11llu %9.1f\n",
                            self->formats[i].name, row.mean_nll, row.ppl, row.ppl_more,
                            row.divergence, row.divergence_99, row.same_best,
                            (unsigned long long)self->formats[i].position_bytes, row.tokens_s);
    }
    return written ? CLI_OK : CLI_BAD_DATA;
}

int compare_print(struct compare *self, bool json)
{
    for (uint32_t i = 0; i < self->count; i++) {
        struct compare_format *format = &self->formats[i];
        if (!isfinite(exp(format->nll / (double)(self->tokens != 0 ? self->tokens : 1)))) {
            cli_error("K/V as %s gives no numbers: the model's file is damaged", format->name);
            return CLI_BAD_DATA;
        }
        qsort(format->divergences, self->tokens, sizeof *format->divergences, by_size);
    }
    return json ? print_json(self) : print_text(self);
}

/* ---- the drawing ----
 *
 * A column for each figure, a row for each format: its bar, and the figure beside it. */

enum { LEFT = 90, COLUMN = 210, BAR = 120, TOP = 70, ROW = 26, HEIGHT_BAR = 14 };

struct column {
    const char *title;
    double (*value)(const struct compare *self, uint32_t index);
    const char *format; /* of the figure */
};

static double bytes_of(const struct compare *self, uint32_t index)
{
    return (double)self->formats[index].position_bytes;
}

static double more_of(const struct compare *self, uint32_t index)
{
    return compare_row(self, index).ppl_more;
}

static double divergence_of(const struct compare *self, uint32_t index)
{
    return compare_row(self, index).divergence;
}

static double other_of(const struct compare *self, uint32_t index)
{
    return 100.0 - compare_row(self, index).same_best;
}

static const struct column columns[] = {
    {"bytes of a token", bytes_of, "%.0f"},
    {"perplexity over the first", more_of, "%+.3f %%"},
    {"KL divergence, mean", divergence_of, "%.5f"},
    {"other likeliest token", other_of, "%.2f %%"},
};

static void draw_column(FILE *out, const struct compare *self, const struct column *column, int x)
{
    double most = 0.0;
    (void)fprintf(out, "<text x=\"%d\" y=\"%d\" font-weight=\"bold\">%s</text>\n", x, TOP - 14,
                  column->title);
    for (uint32_t i = 0; i < self->count; i++)
        most = fmax(most, fabs(column->value(self, i)));
    for (uint32_t i = 0; i < self->count; i++) {
        const double value = column->value(self, i);
        const double length = most > 0.0 ? BAR * fabs(value) / most : 0.0;
        const int y = TOP + (int)i * ROW;
        (void)fprintf(out,
                      "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" fill=\"%s\"/>\n"
                      "<text x=\"%.1f\" y=\"%d\">",
                      x, y, length, HEIGHT_BAR, value < 0.0 ? "#b7c9a8" : "#4878a8", x + length + 6,
                      y + 12);
        char figure[32];
        (void)snprintf(figure, sizeof figure, column->format, value);
        (void)fprintf(out, "%s</text>\n", figure);
    }
}

static void draw(FILE *out, const struct compare *self)
{
    const int num_columns = (int)QUIRE_ARRAY_LEN(columns);
    const int width = LEFT + COLUMN * num_columns, height = TOP + ROW * (int)self->count + 10;
    (void)fprintf(out,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
                  "viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" font-size=\"12\" "
                  "fill=\"#222\">\n"
                  "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
                  "<text x=\"10\" y=\"24\" font-size=\"15\">K/V formats over %llu tokens, against "
                  "%s</text>\n",
                  width, height, width, height, (unsigned long long)self->tokens,
                  self->formats[0].name);
    for (uint32_t i = 0; i < self->count; i++)
        (void)fprintf(out, "<text x=\"10\" y=\"%d\" font-family=\"monospace\">%s</text>\n",
                      TOP + (int)i * ROW + 12, self->formats[i].name);
    for (int c = 0; c < num_columns; c++)
        draw_column(out, self, &columns[c], LEFT + c * COLUMN);
    (void)fprintf(out, "</svg>\n");
}

int compare_draw(const struct compare *self, const char *path)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    int result = CLI_BAD_DATA;
    if (out != NULL) {
        draw(out, self);
        if (fclose(out) == 0)
            result = files_write(path, text, size);
    } else {
        cli_error("no memory for a drawing");
    }
    free(text);
    return result;
}
