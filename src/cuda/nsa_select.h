/* nsa_select.h - the stages score and select of native sparse attention on a GPU: launches of kernels/nsa_select.cu. */
#ifndef SAC_CUDA_NSA_SELECT_H
#define SAC_CUDA_NSA_SELECT_H

#include "base/nsa_stages.h"
#include "cuda/cuda.h"
#include "cuda/kernels/nsa_select.h"

size_t sac_nsa_cuda_select_scratch(const sac_nsa_job *job);

saccade_status sac_nsa_cuda_score(const sac_nsa_job *job, float *scores, void *scratch);
saccade_status sac_nsa_cuda_select(const sac_nsa_job *job, void *scratch,
                                   void *const lists[SAC_NSA_NUM_BRANCHES]);

/* Of the lists that a forward walks: where the kernel that chooses writes them itself, and, for those that it does not,
 * the launches that follow it. lists NULL: none are wanted. In nsa_lists.c. */
void sac_nsa_cuda_place_choices(sac_nsa_select_args *args, void *const lists[SAC_NSA_NUM_BRANCHES]);
saccade_status sac_nsa_cuda_list_choices(const sac_nsa_job *job, void *const lists[SAC_NSA_NUM_BRANCHES]);

/* What is launched for these args on a device: the kernel with its defines, and how the work is cut. For tests that
 * only compile it, too. */
void sac_nsa_select_spec(const sac_nsa_args *args, const sac_cuda_device *device, sac_kernel_spec *spec,
                         sac_nsa_select_plan *plan);
void sac_nsa_means_spec(const sac_nsa_args *args, sac_kernel_spec *spec);

#endif
