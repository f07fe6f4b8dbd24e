/* chart.c - one layout for every picture that the command draws.
 *
 * Lengths are in points; a PNG has SCALE pixels a point. The plane is a raster of exactly the PNG's pixels, so that
 * what the caller computed is what is seen; everything around it is drawn as vectors.
 */
#include "chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "command.h"
#include "output.h"

enum { LONG_SIDE = 640, SHORT_SIDE = 160, SCALE = 2 };

colour colour_mix(colour a, colour b, double part) {
    colour mixed = 0;
    for (int shift = 0; shift < 24; shift += 8) {
        double from = a >> shift & 255, to = b >> shift & 255;
        mixed |= (colour)lround(from + (to - from) * part) << shift;
    }
    return mixed;
}

/* The plane keeps its proportions until its short side would be too small to see. */
static void plane_points(int64_t q_len, int64_t kv_len, int *width, int *height) {
    double longest = (double)(q_len > kv_len ? q_len : kv_len);
    *width = (int)fmax(SHORT_SIDE, round(LONG_SIDE * (double)kv_len / longest));
    *height = (int)fmax(SHORT_SIDE, round(LONG_SIDE * (double)q_len / longest));
}

void chart_raster(int64_t q_len, int64_t kv_len, int *width, int *height) {
    plane_points(q_len, kv_len, width, height);
    *width *= SCALE;
    *height *= SCALE;
}

#ifdef SACCADE_HAVE_CAIRO
#include <cairo-svg.h>
#include <cairo.h>

enum { LEFT = 84, TOP = 84, RIGHT = 32, BOTTOM = 108, MIN_WIDTH = 620, SWATCH = 14 };

static const colour ink = 0x1d2430, quiet = 0x667085, frame = 0x98a2b3, paper = 0xffffff;

/* Where things are. */
typedef struct layout {
    int width, height;             /* of the picture */
    int plane_width, plane_height; /* at (LEFT, TOP) */
} layout;

static layout lay_out(const chart *c) {
    layout l;
    plane_points(c->q_len, c->kv_len, &l.plane_width, &l.plane_height);
    l.width = LEFT + l.plane_width + RIGHT;
    if (l.width < MIN_WIDTH) l.width = MIN_WIDTH;
    l.height = TOP + l.plane_height + BOTTOM;
    return l;
}

static void set_colour(cairo_t *cr, colour c) {
    cairo_set_source_rgb(cr, (c >> 16 & 255) / 255.0, (c >> 8 & 255) / 255.0, (c & 255) / 255.0);
}

static void set_font(cairo_t *cr, double size, bool bold) {
    cairo_select_font_face(cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, size);
}

static double text_width(cairo_t *cr, const char *text) {
    cairo_text_extents_t extents;
    cairo_text_extents(cr, text, &extents);
    return extents.x_advance;
}

/* anchor 0: text begins at x; 0.5: centred on it; 1: ends there. */
static void show_text(cairo_t *cr, double x, double y, double anchor, const char *text) {
    cairo_move_to(cr, x - anchor * text_width(cr, text), y);
    cairo_show_text(cr, text);
}

/* The text in the largest size up to `size` that fits the room, cut with dots where even 0.7 of it does not. */
static void show_fitted(cairo_t *cr, double x, double y, double room, double size, bool bold,
                        const char *text) {
    char *fitted = copy_string(text);
    size_t length = strlen(fitted);
    set_font(cr, size, bold);
    double width = text_width(cr, fitted);
    if (width > room) set_font(cr, size * fmax(0.7, room / width), bold);
    while (length > 3 && text_width(cr, fitted) > room) strcpy(fitted + --length - 3, "...");
    show_text(cr, x, y, 0, fitted);
    free(fitted);
}

/* ---- axes ---- */

/* A power of two that puts at most `count` ticks on the axis. */
static int64_t tick_step(int64_t length, int count) {
    int64_t step = 1;
    while (length / step > count) step *= 2;
    return step;
}

static void tick_text(char *text, size_t size, int64_t token, int64_t step) {
    if (step >= 1024 && token > 0)
        snprintf(text, size, "%gK", (double)token / 1024);
    else
        snprintf(text, size, "%lld", (long long)token);
}

static void draw_ticks(cairo_t *cr, const layout *l, int64_t length, bool horizontal) {
    int points = horizontal ? l->plane_width : l->plane_height;
    int64_t step = tick_step(length, points / 64);
    set_font(cr, 11, false);
    for (int64_t token = 0; token <= length; token += step) {
        char text[32];
        double at = points * ((double)token / (double)length);
        tick_text(text, sizeof text, token, step);
        set_colour(cr, frame);
        cairo_set_line_width(cr, 1);
        if (horizontal) {
            cairo_move_to(cr, LEFT + at, TOP + l->plane_height);
            cairo_rel_line_to(cr, 0, 5);
        } else {
            cairo_move_to(cr, LEFT, TOP + at);
            cairo_rel_line_to(cr, -5, 0);
        }
        cairo_stroke(cr);
        set_colour(cr, quiet);
        if (horizontal)
            show_text(cr, LEFT + at, TOP + l->plane_height + 18, 0.5, text);
        else
            show_text(cr, LEFT - 9, TOP + at + 4, 1, text);
    }
}

static void draw_axes(cairo_t *cr, const layout *l, const chart *c) {
    draw_ticks(cr, l, c->kv_len, true);
    draw_ticks(cr, l, c->q_len, false);
    set_colour(cr, ink);
    set_font(cr, 12, false);
    show_text(cr, LEFT + l->plane_width / 2.0, TOP + l->plane_height + 40, 0.5, "kv (tokens)");
    cairo_save(cr);
    cairo_translate(cr, 22, TOP + l->plane_height / 2.0);
    cairo_rotate(cr, -M_PI / 2);
    show_text(cr, 0, 0, 0.5, "q (tokens)");
    cairo_restore(cr);
}

/* ---- the plane ---- */

static void draw_raster(cairo_t *cr, const layout *l, const chart *c) {
    int stride = cairo_format_stride_for_width(CAIRO_FORMAT_RGB24, c->width);
    unsigned char *bytes = allocate((size_t)stride * (size_t)c->height);
    for (int y = 0; y < c->height; y++)
        memcpy(bytes + (size_t)y * (size_t)stride, c->pixels + (size_t)y * (size_t)c->width,
               sizeof(colour) * (size_t)c->width);
    cairo_surface_t *image =
        cairo_image_surface_create_for_data(bytes, CAIRO_FORMAT_RGB24, c->width, c->height, stride);
    cairo_save(cr);
    cairo_translate(cr, LEFT, TOP);
    cairo_scale(cr, (double)l->plane_width / c->width, (double)l->plane_height / c->height);
    cairo_set_source_surface(cr, image, 0, 0);
    cairo_pattern_set_filter(cairo_get_source(cr), CAIRO_FILTER_NEAREST);
    cairo_paint(cr);
    cairo_restore(cr);
    cairo_surface_finish(image);
    cairo_surface_destroy(image);
    free(bytes);
}

/* Lines every `step` tokens, where they are far enough apart to help. */
static void draw_lines(cairo_t *cr, const layout *l, int64_t length, int64_t step, double width,
                       bool vertical) {
    int points = vertical ? l->plane_width : l->plane_height;
    if (step <= 0 || (double)step * points / (double)length < 6) return;
    cairo_set_source_rgb(cr, 1, 1, 1);
    cairo_set_line_width(cr, width);
    for (int64_t token = step; token < length; token += step) {
        double at = points * ((double)token / (double)length);
        cairo_move_to(cr, LEFT + (vertical ? at : 0), TOP + (vertical ? 0 : at));
        cairo_line_to(cr, LEFT + (vertical ? at : l->plane_width), TOP + (vertical ? l->plane_height : at));
    }
    cairo_stroke(cr);
}

static void draw_plane(cairo_t *cr, const layout *l, const chart *c) {
    draw_raster(cr, l, c);
    for (int fine = 1; fine >= 0 && c->kv_line; fine--) { /* between tokens, then between blocks */
        double width = fine ? 0.5 : 1;
        draw_lines(cr, l, c->kv_len, fine ? 1 : c->kv_line, width, true);
        draw_lines(cr, l, c->q_len, fine ? 1 : c->q_line, width, false);
    }
    set_colour(cr, frame);
    cairo_set_line_width(cr, 1);
    cairo_rectangle(cr, LEFT - 0.5, TOP - 0.5, l->plane_width + 1, l->plane_height + 1);
    cairo_stroke(cr);
}

/* ---- legend ---- */

static void fill_square(cairo_t *cr, double x, double y, double side, colour c) {
    set_colour(cr, c);
    cairo_rectangle(cr, x, y, side, side);
    cairo_fill(cr);
}

static void draw_swatches(cairo_t *cr, const layout *l, const chart *c) {
    double x = LEFT, y = TOP + l->plane_height + 64;
    for (int i = 0; i < c->num_swatches; i++) {
        const struct chart_swatch *s = &c->swatches[i];
        set_font(cr, 12, false);
        double needed = SWATCH + 7 + text_width(cr, s->label);
        if (x > LEFT && x + needed > l->width - 12) {
            x = LEFT;
            y += 24;
        }
        fill_square(cr, x, y, SWATCH, s->colour);
        if (s->detail != s->colour) fill_square(cr, x + 4, y + 4, SWATCH - 8, s->detail);
        set_colour(cr, frame);
        cairo_set_line_width(cr, 0.75);
        cairo_rectangle(cr, x, y, SWATCH, SWATCH);
        cairo_stroke(cr);
        set_colour(cr, ink);
        show_text(cr, x + SWATCH + 7, y + 11.5, 0, s->label);
        x += needed + 22;
    }
}

static void draw_bar(cairo_t *cr, const layout *l, const chart *c) {
    double width = fmin(300, l->plane_width), y = TOP + l->plane_height + 62, step = width / CHART_BAR_STEPS;
    for (int i = 0; i < CHART_BAR_STEPS; i++) {
        set_colour(cr, c->bar[i]);
        cairo_rectangle(cr, LEFT + i * step, y, step + 0.5, SWATCH);
        cairo_fill(cr);
    }
    set_colour(cr, frame);
    cairo_set_line_width(cr, 0.75);
    cairo_rectangle(cr, LEFT, y, width, SWATCH);
    cairo_stroke(cr);
    set_font(cr, 11, false);
    set_colour(cr, quiet);
    show_text(cr, LEFT, y + SWATCH + 15, 0, c->bar_low);
    show_text(cr, LEFT + width / 2, y + SWATCH + 15, 0.5, c->bar_middle);
    show_text(cr, LEFT + width, y + SWATCH + 15, 1, c->bar_high);
    set_colour(cr, ink);
    set_font(cr, 12, false);
    show_text(cr, LEFT + width + 16, y + 11.5, 0, c->bar_label);
}

static void draw(cairo_t *cr, const layout *l, const chart *c) {
    set_colour(cr, paper);
    cairo_paint(cr);
    set_colour(cr, ink);
    show_fitted(cr, LEFT, 40, l->width - LEFT - 16, 20, true, c->title);
    set_colour(cr, quiet);
    show_fitted(cr, LEFT, 63, l->width - LEFT - 16, 12.5, false, c->subtitle);
    draw_plane(cr, l, c);
    draw_axes(cr, l, c);
    if (c->bar)
        draw_bar(cr, l, c);
    else
        draw_swatches(cr, l, c);
}

/* ---- files ---- */

static cairo_status_t write_bytes(void *stream, const unsigned char *bytes, unsigned int count) {
    return fwrite(bytes, 1, count, stream) == count ? CAIRO_STATUS_SUCCESS : CAIRO_STATUS_WRITE_ERROR;
}

static bool write_png(const chart *c, const char *path) {
    output_file file;
    if (!output_begin(&file, path)) return false;
    layout l = lay_out(c);
    cairo_surface_t *surface =
        cairo_image_surface_create(CAIRO_FORMAT_RGB24, l.width * SCALE, l.height * SCALE);
    cairo_t *cr = cairo_create(surface);
    cairo_scale(cr, SCALE, SCALE);
    draw(cr, &l, c);
    bool good = cairo_status(cr) == CAIRO_STATUS_SUCCESS &&
                cairo_surface_write_to_png_stream(surface, write_bytes, file.stream) == CAIRO_STATUS_SUCCESS;
    cairo_destroy(cr);
    cairo_surface_destroy(surface);
    return output_end(&file, good);
}

static bool write_svg(const chart *c, const char *path) {
    output_file file;
    if (!output_begin(&file, path)) return false;
    layout l = lay_out(c);
    cairo_surface_t *surface =
        cairo_svg_surface_create_for_stream(write_bytes, file.stream, l.width, l.height);
    cairo_t *cr = cairo_create(surface);
    draw(cr, &l, c);
    cairo_surface_finish(surface);
    bool good =
        cairo_status(cr) == CAIRO_STATUS_SUCCESS && cairo_surface_status(surface) == CAIRO_STATUS_SUCCESS;
    cairo_destroy(cr);
    cairo_surface_destroy(surface);
    return output_end(&file, good);
}

#else

static bool refuse(const char *path) {
    complain("%s: this build draws no pictures, since it was made without cairo", path);
    return false;
}

static bool write_png(const chart *c, const char *path) {
    (void)c;
    return refuse(path);
}

static bool write_svg(const chart *c, const char *path) {
    (void)c;
    return refuse(path);
}

#endif

bool chart_write(const chart *c, const picture_files *files) {
    return (!files->png || write_png(c, files->png)) && (!files->svg || write_svg(c, files->svg));
}
