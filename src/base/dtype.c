/* dtype.c - dtypes and devices in words. */
#include "base/dtype.h"

#include <stddef.h>

const char *sac_dtype_text(DLDataType dtype) {
    static const struct {
        uint8_t code, bits;
        const char *text;
    } names[] = {{kDLFloat, 64, "f64"}, {kDLFloat, 32, "f32"}, {kDLFloat, 16, "f16"}, {kDLBfloat, 16, "bf16"},
                 {kDLInt, 64, "i64"},   {kDLInt, 32, "i32"},   {kDLInt, 8, "i8"},     {kDLUInt, 8, "u8"}};
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
