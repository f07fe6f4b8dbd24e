/* mask_picture.h - a block mask as a picture. */
#ifndef MASK_PICTURE_H
#define MASK_PICTURE_H

#include <saccade/block_mask.h>

#include "chart.h"

/* Draws the plane of batch entry b and head h; title is what the mask is called. Returns the exit code, after a message
 * unless EXIT_OK. */
int draw_mask(saccade_context *ctx, const saccade_block_mask *mask, int32_t b, int32_t h, const char *title,
              const picture_files *files);

#endif
