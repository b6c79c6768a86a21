/* chart.c - drawings of what a ruler measured, as one SVG file.
 * SPDX-License-Identifier: Apache-2.0 */
#include "quire/chart.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "quire/console.h"
#include "quire/files.h"

enum { WIDTH = 760, HEIGHT = 380, LEFT = 70, RIGHT = 170, TOP = 40, BOTTOM = 50 };

static const char *const colours[] = {"#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad",
                                      "#d68910", "#16a2b8", "#6c5b3b", "#444444"};

/* One picture: from values to places, both axes logarithmic where asked. */
struct frame {
    struct quire__bytes *out;
    bool failed;
    double top; /* of the picture on the page */
    double x0, x1, y0, y1;
    bool log_y;
};

static void put(struct frame *frame, const char *format, ...) QUIRE_PRINTF(2, 3);

static void put(struct frame *frame, const char *format, ...)
{
    char text[512];
    struct quire_error error;
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (length < 0 || length >= (int)sizeof text ||
        quire__bytes_append(frame->out, text, (uint64_t)length, &error) != QUIRE_OK)
        frame->failed = true;
}

static double place_x(const struct frame *f, double x)
{
    return LEFT + (log2(x) - log2(f->x0)) / (log2(f->x1) - log2(f->x0)) * (WIDTH - LEFT - RIGHT);
}

static double place_y(const struct frame *f, double y)
{
    double part = f->log_y ? (log2(y) - log2(f->y0)) / (log2(f->y1) - log2(f->y0))
                           : (y - f->y0) / (f->y1 - f->y0);
    return f->top + HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM);
}

/* Letters that mean something to XML do not occur in names of rows; in a processor's they might. */
static void put_text(struct frame *f, double x, double y, const char *anchor, const char *text)
{
    put(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    for (; *text != '\0'; text++) {
        if (*text == '<' || *text == '&' || (unsigned char)*text < 0x20)
            put(f, "?");
        else
            put(f, "%c", *text);
    }
    put(f, "</text>\n");
}

static void put_line(struct frame *f, double xa, double ya, double xb, double yb)
{
    put(f, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"#bbb\"/>\n", xa, ya, xb,
        yb);
}

/* The lowest and the highest power of four that lie between two figures, as exponents. */
static void powers_between(double least, double most, int *first, int *last)
{
    *first = (int)ceil(log2(least) / 2);
    *last = (int)floor(log2(most) / 2);
}

static void put_x_line(struct frame *f, double x)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%.6g", x);
    put_line(f, place_x(f, x), place_y(f, f->y0), place_x(f, x), place_y(f, f->y1));
    put_text(f, place_x(f, x), f->top + HEIGHT - BOTTOM + 18, "middle", text);
}

static void put_y_line(struct frame *f, double y)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%.4g", y);
    put_line(f, LEFT, place_y(f, y), WIDTH - RIGHT, place_y(f, y));
    put_text(f, LEFT - 6, place_y(f, y) + 4, "end", text);
}

/* Powers of four, which are few on either kind of figure; or fifths of the whole. */
static void put_axes(struct frame *f, const char *title, const char *x_text, const char *y_text)
{
    enum { PARTS = 5 };
    int first, last;
    put_text(f, LEFT, f->top + TOP - 16, "start", title);
    put_text(f, (LEFT + WIDTH - RIGHT) / 2.0, f->top + HEIGHT - 12, "middle", x_text);
    put_text(f, LEFT, f->top + TOP - 2, "end", y_text);
    powers_between(f->x0, f->x1, &first, &last);
    for (int i = first; i <= last; i++)
        put_x_line(f, exp2(2 * i));
    if (!f->log_y) {
        for (int i = 0; i <= PARTS; i++)
            put_y_line(f, f->y0 + (f->y1 - f->y0) * i / PARTS);
        return;
    }
    powers_between(f->y0, f->y1, &first, &last);
    for (int i = first; i <= last; i++)
        put_y_line(f, exp2(2 * i));
}

/* ---- the roofline: multiply-adds a second over multiply-adds a byte ---- */

static double intensity(const struct ruler_row *row)
{
    return row->products / row->bytes;
}

static void size_roofline(struct frame *f, const struct ruler *ruler)
{
    const struct stats_roof roof = ruler_roof(ruler);
    double knee = roof.products / roof.bytes, least = roof.products / 1e9;
    f->x0 = knee / 2;
    f->x1 = knee * 2;
    for (uint32_t i = 0; i < ruler->num_rows; i++) {
        const double x = intensity(&ruler->rows[i]);
        const double y = ruler->rows[i].products / ruler->rows[i].ns;
        f->x0 = fmin(f->x0, x / 1.5);
        f->x1 = fmax(f->x1, x * 1.5);
        least = fmin(least, y);
    }
    f->y0 = fmin(least, f->x0 * roof.bytes / 1e9) / 1.5;
    f->y1 = roof.products / 1e9 * 1.5;
    f->log_y = true;
}

static void draw_roofline(struct frame *f, const struct ruler *ruler)
{
    char title[200];
    const struct stats_roof roof = ruler_roof(ruler);
    const double knee = roof.products / roof.bytes, peak = roof.products / 1e9;
    size_roofline(f, ruler);
    (void)snprintf(title, sizeof title, "quire bench %s: %s, level %s, %u threads", ruler->bench,
                   ruler->choice.processor, ruler->choice.level.name, ruler->choice.num_threads);
    put_axes(f, title, "multiply-adds a byte", "G/s");
    put(f,
        "<polyline fill=\"none\" stroke=\"#000\" stroke-width=\"2\" "
        "points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f\"/>\n",
        place_x(f, f->x0), place_y(f, f->x0 * roof.bytes / 1e9), place_x(f, knee), place_y(f, peak),
        place_x(f, f->x1), place_y(f, peak));
    for (uint32_t i = 0; i < ruler->num_rows; i++) {
        const struct ruler_row *row = &ruler->rows[i];
        put(f,
            "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"4\" fill=\"%s\"><title>%s: %.2f of its "
            "roof</title></circle>\n",
            place_x(f, intensity(row)), place_y(f, row->products / row->ns),
            row->roof_ns >= row->target * row->ns ? "#2e8b57" : "#c0392b", row->name,
            row->roof_ns / row->ns);
    }
    put_text(f, WIDTH - RIGHT + 12, f->top + TOP + 14, "start", "green: at its target");
    put_text(f, WIDTH - RIGHT + 12, f->top + TOP + 32, "start", "red: below it");
}

/* ---- lines of roof / time ---- */

static bool size_curves(struct frame *f, const struct ruler *ruler,
                        const struct chart_curves *curves, uint32_t count)
{
    f->x0 = INFINITY;
    f->x1 = 0;
    f->y0 = 0;
    f->y1 = 1;
    f->log_y = false;
    for (uint32_t i = 0; i < ruler->num_rows; i++) {
        const struct ruler_row *row = &ruler->rows[i];
        if (row->curve < curves->first || row->curve >= curves->first + count)
            continue;
        f->x0 = fmin(f->x0, row->x);
        f->x1 = fmax(f->x1, row->x);
    }
    return f->x1 > f->x0;
}

static void draw_curve(struct frame *f, const struct ruler *ruler, uint32_t curve,
                       const char *colour)
{
    put(f, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    for (uint32_t i = 0; i < ruler->num_rows; i++) {
        const struct ruler_row *row = &ruler->rows[i];
        if (row->curve == curve)
            put(f, "%.1f,%.1f ", place_x(f, row->x),
                place_y(f, fmin(row->roof_ns / row->ns, f->y1)));
    }
    put(f, "\"/>\n");
}

static bool has_curve(const struct ruler *ruler, uint32_t curve)
{
    for (uint32_t i = 0; i < ruler->num_rows; i++)
        if (ruler->rows[i].curve == curve)
            return true;
    return false;
}

/* False where there are no two points to join. */
static bool draw_curves(struct frame *f, const struct ruler *ruler,
                        const struct chart_curves *curves)
{
    uint32_t count = 0, drawn = 0;
    while (curves->names[count] != NULL)
        count++;
    if (!size_curves(f, ruler, curves, count))
        return false;
    put_axes(f, curves->title, curves->x_text, "roof/time");
    for (uint32_t i = 0; i < count; i++) {
        if (!has_curve(ruler, curves->first + i))
            continue;
        const char *colour = colours[i % QUIRE_ARRAY_LEN(colours)];
        const double y = f->top + TOP + 14 + 18 * drawn++;
        draw_curve(f, ruler, curves->first + i, colour);
        put(f, "<rect x=\"%d\" y=\"%.1f\" width=\"10\" height=\"10\" fill=\"%s\"/>\n",
            WIDTH - RIGHT + 12, y - 9, colour);
        put_text(f, WIDTH - RIGHT + 28, y, "start", curves->names[i]);
    }
    return true;
}

int chart_write(const char *path, const struct ruler *ruler, const struct chart_curves *sets,
                uint32_t num_sets)
{
    struct quire__bytes body = {0}, whole = {0};
    struct frame frame = {.out = &body}, page = {.out = &whole};
    if (ruler->num_rows > 0) {
        draw_roofline(&frame, ruler);
        frame.top += HEIGHT;
    }
    for (uint32_t i = 0; i < num_sets; i++)
        if (draw_curves(&frame, ruler, &sets[i]))
            frame.top += HEIGHT;
    put(&page,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %.0f\" "
        "font-family=\"sans-serif\" font-size=\"12\">\n"
        "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
        WIDTH, fmax(frame.top, 1));
    struct quire_error error = {0};
    bool made = !frame.failed && !page.failed &&
                quire__bytes_append(&whole, body.data, body.count, &error) == QUIRE_OK &&
                quire__bytes_append(&whole, "</svg>\n", 7, &error) == QUIRE_OK;
    int result = CLI_BAD_DATA;
    if (made)
        result = files_write(path, whole.data, whole.count);
    else
        cli_error("no memory for the drawing");
    quire__bytes_deinit(&body);
    quire__bytes_deinit(&whole);
    return result;
}
