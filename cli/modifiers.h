/* modifiers.h - modifier texts of the command line, and where the names in them get their values. */
#ifndef MODIFIERS_H
#define MODIFIERS_H

#include <saccade/modifier.h>
#include <stdbool.h>

#include "safetensors.h"

/* A name in a text is a scalar of --scalar, or else the input file's tensor of that name. */
typedef struct modifier_sources {
    const safetensors_file *file; /* NULL: no tensors */
    struct named_scalar {
        char *name;
        float value;
        bool used;
    } scalars[SACCADE_MAX_AUX];
    int32_t num_scalars;
} modifier_sources;

typedef struct modifier_text {
    saccade_modifier_kind kind;
    const char *name; /* for messages */
    const char *text, *grad_text;
} modifier_text;

/* A modifier with the values it reads, and the gradients of the aux tensors that its grad_text adds to. */
typedef struct bound_text {
    saccade_bound_modifier modifier;
    saccade_modifier *owned;
    const char *aux_names[SACCADE_MAX_AUX];
    const DLTensor *aux[SACCADE_MAX_AUX];
    bool wants_grad[SACCADE_MAX_AUX];
    float scalars[SACCADE_MAX_AUX];
    int32_t num_aux;
} bound_text;

/* Does the name stand in the text as a word of its own? */
bool text_mentions(const char *text, const char *name);

/* "NAME=X". False where it is something else, the name is there already, or there are too many. */
bool add_scalar(modifier_sources *sources, const char *assignment);
/* False after a message: some scalar is read by no text. */
bool all_scalars_used(const modifier_sources *sources);
void free_sources(modifier_sources *sources);

/* Declares exactly the tensors and scalars that the texts read, and compiles. `bound` must stay where it
 * is; the sources must outlive it. The library's last error tells of a failure. */
saccade_status bind_text(saccade_context *ctx, bound_text *bound, const modifier_text *text,
                         modifier_sources *sources);
void unbind_text(bound_text *bound);

#endif
