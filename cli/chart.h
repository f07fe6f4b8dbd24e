/* chart.h - a picture of a q x kv plane: raster, axes in tokens, title, legend. PNG or SVG, through cairo. */
#ifndef CHART_H
#define CHART_H

#include <stdbool.h>
#include <stdint.h>

typedef uint32_t colour; /* 0xRRGGBB */

/* A blend of two colours; part 0 is a, 1 is b. */
colour colour_mix(colour a, colour b, double part);

enum { CHART_MAX_SWATCHES = 6, CHART_BAR_STEPS = 128 };

typedef struct chart {
    const char *title, *subtitle;
    int64_t q_len, kv_len;   /* tokens along the axes */
    int64_t q_line, kv_line; /* tokens between the thin lines; 0: none */
    colour *pixels;          /* (height, width): the plane, q downwards, kv to the right */
    int width, height;       /* from chart_raster */
    struct chart_swatch {
        colour colour, detail; /* the square; a smaller one inside it, unless equal */
        const char *label;
    } swatches[CHART_MAX_SWATCHES];
    int num_swatches;
    const colour *bar; /* (CHART_BAR_STEPS) or NULL: a colour scale instead of swatches */
    const char *bar_low, *bar_middle, *bar_high, *bar_label;
} chart;

/* The raster that a plane of these lengths is drawn with: its pixels are those of the PNG. */
void chart_raster(int64_t q_len, int64_t kv_len, int *width, int *height);

/* Where a picture goes: to either, both or neither (NULL). */
typedef struct picture_files {
    const char *png, *svg;
} picture_files;

/* Each file appears whole or not at all. False after a message. */
bool chart_write(const chart *c, const picture_files *files);

#endif
