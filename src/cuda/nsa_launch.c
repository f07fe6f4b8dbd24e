/* nsa_launch.c - what the launchers of a GPU's stages share. */
#include "cuda/attn_portable.h"
#include "cuda/kernels/nsa_work.h"
#include "cuda/nsa.h"

/* Whole rounds of CTAs, whether two, three or four fit an SM at a time. */
enum { CTAS_AN_SM = 12 };
enum { VECTOR_BYTES = 16, SMS_UNKNOWN = 128, SUM_THREADS = 256, SUM_COLUMNS = 32 };

static bool aligned(const sac_nsa_args *args, sac_nsa_views views) {
    bool all = (uintptr_t)args->w_gate % VECTOR_BYTES == 0;
    for (int32_t i = 0; i < views.count; i++)
        all = all && sac_view_is_aligned(views.list[i], args->dtype == SAC_F32 ? 4 : 2);
    return all;
}

sac_kernel_spec sac_nsa_cuda_spec(const sac_nsa_args *args, const char *source, const char *entry,
                                  int32_t threads, sac_nsa_views views) {
    sac_kernel_spec spec = {.source = source, .entry = entry, .threads = threads};
    sac_kernel_define(&spec, "DTYPE", args->dtype);
    sac_kernel_define(&spec, "HEAD_DIM", args->head_dim);
    sac_kernel_define(&spec, "HEAD_DIM_V", args->head_dim_v);
    sac_kernel_define(&spec, "ALIGNED", aligned(args, views));
    sac_kernel_define(&spec, "GATE",
                      args->gates.data ? SAC_NSA_GATE_GIVEN
                      : args->w_gate   ? SAC_NSA_GATE_WEIGHTS
                                       : SAC_NSA_GATE_UNIFORM);
    return spec;
}

const sac_cuda_device *sac_nsa_cuda_device(const sac_nsa_job *job) {
    return job->visitor ? job->visitor->device : sac_cuda_facts_of(job->ctx, job->device)->device;
}

saccade_status sac_nsa_cuda_launch(const sac_nsa_job *job, const sac_kernel_spec *spec, int64_t num_ctas,
                                   void **params) {
    const sac_cuda_device *device;
    if (job->visitor) return job->visitor->launch(NULL, job->visitor->device, spec, num_ctas, params);
    SAC_TRY(sac_cuda_enter(job->ctx, job->device.device_id, &device));
    saccade_status status = sac_kernel_launch(job->ctx, device, spec, num_ctas, params);
    sac_cuda_leave();
    return status;
}

saccade_status sac_nsa_cuda_sum_parts(const sac_nsa_job *job, const float *part, int32_t count, int64_t size,
                                      float *sum) {
    const sac_nsa_parts work = {.part = part, .sum = sum, .size = size, .count = count};
    const sac_kernel_spec spec = {
        .source = "cuda/kernels/nsa_sum_parts.cu", .entry = "nsa_sum_parts", .threads = SUM_THREADS};
    return sac_nsa_cuda_launch(job, &spec, (size + SUM_COLUMNS - 1) / SUM_COLUMNS, (void *[]){(void *)&work});
}

int32_t sac_nsa_cuda_row_lanes(const sac_nsa_args *args) {
    int32_t lanes = 1;
    while (lanes * 8 < sac_max(args->head_dim, args->head_dim_v)) lanes *= 2;
    return lanes;
}

int64_t sac_nsa_cuda_walk_ctas(const sac_nsa_job *job, int32_t heads, int32_t threads) {
    const sac_cuda_device *device = sac_nsa_cuda_device(job);
    const int32_t rows_a_cta = threads / sac_nsa_cuda_row_lanes(&job->args);
    const int64_t rows = job->args.rows * heads, all = (rows + rows_a_cta - 1) / rows_a_cta;
    const int64_t fill = (int64_t)(device ? device->num_sms : SMS_UNKNOWN) * CTAS_AN_SM;
    int32_t unit = 1; /* the fewest CTAs whose rows make up whole rows of all heads */
    while (unit * (int64_t)rows_a_cta % heads) unit++;
    const int64_t ctas = all < fill ? all : fill;
    return (ctas + unit - 1) / unit * unit;
}
