/* dispatch.h - the table of backends and the choice among them. */
#ifndef SAC_DISPATCH_DISPATCH_H
#define SAC_DISPATCH_DISPATCH_H

#include "base/backend.h"

/* NULL-terminated. */
extern const sac_backend *const sac_backends[];

/* The backend for this request, or NULL with *status and saccade_last_error() saying why. */
const sac_backend *sac_choose_backend(saccade_context *ctx, const saccade_request *request,
                                      saccade_status *status);

#endif
