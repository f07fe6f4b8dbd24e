/* stages.c - whose stages work on which device's memory. */
#include "cuda/nsa.h"
#include "nsa/host.h"
#include "nsa/nsa.h"

const sac_nsa_stages *sac_nsa_stages_on(DLDevice device) {
    return device.device_type == kDLCUDA ? &sac_nsa_cuda_stages : &sac_nsa_host_stages;
}
