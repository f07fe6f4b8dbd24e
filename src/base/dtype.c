/* dtype.c - dtypes and devices in words. */
#include "base/dtype.h"

#include <stddef.h>

enum { BOOL = 6 }; /* kDLBool, which older headers of DLPack lack */

const char *sac_dtype_text(DLDataType dtype) {
    static const struct {
        uint8_t code, bits;
        const char *text;
    } names[] = {{kDLFloat, 64, "fp64"},  {kDLFloat, 32, "fp32"}, {kDLFloat, 16, "fp16"},
                 {kDLBfloat, 16, "bf16"}, {kDLInt, 64, "int64"},  {kDLInt, 32, "int32"},
                 {kDLInt, 16, "int16"},   {kDLInt, 8, "int8"},    {kDLUInt, 8, "uint8"},
                 {BOOL, 8, "bool"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (dtype.lanes == 1 && dtype.code == names[i].code && dtype.bits == names[i].bits)
            return names[i].text;
    return "an unknown dtype";
}

const char *sac_device_text(DLDevice device) {
    switch ((int)device.device_type) {
    case kDLCPU:
        return "cpu";
    case kDLCUDA:
        return "cuda";
    case kDLCUDAHost:
        return "cuda-host";
    case kDLCUDAManaged:
        return "cuda-managed";
    case kDLROCM:
        return "rocm";
    case kDLMetal:
        return "metal";
    default:
        return "unknown";
    }
}
