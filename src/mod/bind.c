/* bind.c - the values of a modifier's slots, held against its declarations. */
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/tensor_check.h"
#include "mod/modifier.h"
#include "mod/text.h"

/* What messages call slot i: "mask_mod.aux[1] 'prefix'". Combinations have no names for slots. */
typedef struct place {
    char words[160];
} place;

static place place_of(const char *where, const char *list, int32_t i, const char *name) {
    place p;
    if (name)
        snprintf(p.words, sizeof p.words, "%s.%s[%d] '%s'", where, list, i, name);
    else
        snprintf(p.words, sizeof p.words, "%s.%s[%d]", where, list, i);
    return p;
}

/* The number of elements, or -1 unless the tensor is row-major without gaps (and no longer than memory). */
static int64_t contiguous_size(const DLTensor *t) {
    int64_t size = 1;
    bool contiguous = true;
    for (int d = t->ndim - 1; d >= 0; d--) {
        if (t->shape[d] != 1 && t->strides && t->strides[d] != size) contiguous = false;
        if (__builtin_mul_overflow(size, t->shape[d], &size)) return -1;
    }
    return contiguous || size == 0 ? size : -1;
}

static saccade_status bind_tensor(saccade_aux_slot *slot, const DLTensor *t, DLDataType dtype,
                                  DLDevice device, const char *name) {
    if (!t) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: is NULL", name);
    if (t->device.device_type != device.device_type || t->device.device_id != device.device_id)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: on device %s:%d, but the call is on %s:%d", name,
                        sac_device_text(t->device), t->device.device_id, sac_device_text(device),
                        device.device_id);
    if (!sac_same_dtype(t->dtype, dtype))
        return sac_fail(SACCADE_INVALID_ARGUMENT,
                        "%s: dtype %s (code %d, %d bits, %d lanes), but it is declared %s", name,
                        sac_dtype_text(t->dtype), t->dtype.code, t->dtype.bits, t->dtype.lanes,
                        sac_dtype_text(dtype));
    if (t->ndim < 0 || t->ndim > SACCADE_MAX_AUX_DIMS)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: %d dimensions; 0 to %d are allowed", name, t->ndim,
                        SACCADE_MAX_AUX_DIMS);
    for (int d = 0; d < t->ndim; d++)
        if (t->shape[d] < 0)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: shape[%d] is %lld", name, d,
                            (long long)t->shape[d]);
    int64_t size = contiguous_size(t);
    if (size < 0)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: its strides leave gaps; it must be contiguous", name);
    if (size > 0 && !t->data) return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: data is NULL", name);
    const char *data = t->data ? (const char *)t->data + t->byte_offset : NULL;
    if ((uintptr_t)data % (dtype.bits / 8u))
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: data is not aligned to its elements of %d bits", name,
                        dtype.bits);
    *slot = (saccade_aux_slot){.data = data, .count = size};
    for (int d = 0; d < t->ndim; d++) slot->extent[d] = t->shape[d];
    return SACCADE_OK;
}

saccade_status sac_modifier_bind_grads(saccade_aux *aux, const saccade_modifier *m, DLTensor *const *daux,
                                       DLDevice device) {
    for (int32_t i = 0; daux && i < m->num_aux; i++) {
        if (!daux[i]) continue;
        saccade_aux_slot grad = {0};
        char name[24];
        snprintf(name, sizeof name, "daux[%d]", i);
        SAC_TRY(bind_tensor(&grad, daux[i], SACCADE_F32, device, name));
        if (grad.count != aux->tensor[i].count)
            return sac_fail(SACCADE_INVALID_ARGUMENT, "%s: has %lld elements, but the aux tensor has %lld",
                            name, (long long)grad.count, (long long)aux->tensor[i].count);
        aux->tensor[i].grad = (float *)(uintptr_t)grad.data;
    }
    return SACCADE_OK;
}

saccade_status sac_modifier_bind(saccade_aux *aux, const saccade_bound_modifier *bound, DLDevice device,
                                 const char *where) {
    memset(aux, 0, sizeof *aux);
    const saccade_modifier *m = bound->modifier;
    if (!m) return SACCADE_OK;
    if (m->num_aux > 0 && !bound->aux)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s.aux: is NULL, but '%s' declares %d", where, m->name,
                        m->num_aux);
    if (m->num_scalars > 0 && !bound->scalars)
        return sac_fail(SACCADE_INVALID_ARGUMENT, "%s.scalars: is NULL, but '%s' declares %d", where, m->name,
                        m->num_scalars);
    for (int32_t i = 0; i < m->num_aux; i++) {
        place p = place_of(where, "aux", i, m->aux[i].name);
        SAC_TRY(bind_tensor(&aux->tensor[i], bound->aux[i], m->aux[i].dtype, device, p.words));
    }
    for (int32_t i = 0; i < m->num_scalars; i++) aux->scalar[i] = bound->scalars[i];
    return SACCADE_OK;
}
