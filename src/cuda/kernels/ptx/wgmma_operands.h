/* ptx/wgmma_operands.h - operand lists of an asm statement with N/2 accumulators, for every N that wgmma knows:
 * the registers' names in its text, the C variables bound to them, and the numbers of the inputs that follow. */
#ifndef SAC_PTX_WGMMA_OPERANDS_H
#define SAC_PTX_WGMMA_OPERANDS_H

#define PTX_WGMMA_REGS_8 "%0, %1, %2, %3"
#define PTX_WGMMA_REGS_16 PTX_WGMMA_REGS_8 ", %4, %5, %6, %7"
#define PTX_WGMMA_REGS_24 PTX_WGMMA_REGS_16 ", %8, %9, %10, %11"
#define PTX_WGMMA_REGS_32 PTX_WGMMA_REGS_24 ", %12, %13, %14, %15"
#define PTX_WGMMA_REGS_40 PTX_WGMMA_REGS_32 ", %16, %17, %18, %19"
#define PTX_WGMMA_REGS_48 PTX_WGMMA_REGS_40 ", %20, %21, %22, %23"
#define PTX_WGMMA_REGS_56 PTX_WGMMA_REGS_48 ", %24, %25, %26, %27"
#define PTX_WGMMA_REGS_64 PTX_WGMMA_REGS_56 ", %28, %29, %30, %31"
#define PTX_WGMMA_REGS_72 PTX_WGMMA_REGS_64 ", %32, %33, %34, %35"
#define PTX_WGMMA_REGS_80 PTX_WGMMA_REGS_72 ", %36, %37, %38, %39"
#define PTX_WGMMA_REGS_88 PTX_WGMMA_REGS_80 ", %40, %41, %42, %43"
#define PTX_WGMMA_REGS_96 PTX_WGMMA_REGS_88 ", %44, %45, %46, %47"
#define PTX_WGMMA_REGS_104 PTX_WGMMA_REGS_96 ", %48, %49, %50, %51"
#define PTX_WGMMA_REGS_112 PTX_WGMMA_REGS_104 ", %52, %53, %54, %55"
#define PTX_WGMMA_REGS_120 PTX_WGMMA_REGS_112 ", %56, %57, %58, %59"
#define PTX_WGMMA_REGS_128 PTX_WGMMA_REGS_120 ", %60, %61, %62, %63"
#define PTX_WGMMA_REGS_136 PTX_WGMMA_REGS_128 ", %64, %65, %66, %67"
#define PTX_WGMMA_REGS_144 PTX_WGMMA_REGS_136 ", %68, %69, %70, %71"
#define PTX_WGMMA_REGS_152 PTX_WGMMA_REGS_144 ", %72, %73, %74, %75"
#define PTX_WGMMA_REGS_160 PTX_WGMMA_REGS_152 ", %76, %77, %78, %79"
#define PTX_WGMMA_REGS_168 PTX_WGMMA_REGS_160 ", %80, %81, %82, %83"
#define PTX_WGMMA_REGS_176 PTX_WGMMA_REGS_168 ", %84, %85, %86, %87"
#define PTX_WGMMA_REGS_184 PTX_WGMMA_REGS_176 ", %88, %89, %90, %91"
#define PTX_WGMMA_REGS_192 PTX_WGMMA_REGS_184 ", %92, %93, %94, %95"
#define PTX_WGMMA_REGS_200 PTX_WGMMA_REGS_192 ", %96, %97, %98, %99"
#define PTX_WGMMA_REGS_208 PTX_WGMMA_REGS_200 ", %100, %101, %102, %103"
#define PTX_WGMMA_REGS_216 PTX_WGMMA_REGS_208 ", %104, %105, %106, %107"
#define PTX_WGMMA_REGS_224 PTX_WGMMA_REGS_216 ", %108, %109, %110, %111"
#define PTX_WGMMA_REGS_232 PTX_WGMMA_REGS_224 ", %112, %113, %114, %115"
#define PTX_WGMMA_REGS_240 PTX_WGMMA_REGS_232 ", %116, %117, %118, %119"
#define PTX_WGMMA_REGS_248 PTX_WGMMA_REGS_240 ", %120, %121, %122, %123"
#define PTX_WGMMA_REGS_256 PTX_WGMMA_REGS_248 ", %124, %125, %126, %127"
#define PTX_WGMMA_ACC_8(c, d) c(d[0]), c(d[1]), c(d[2]), c(d[3])
#define PTX_WGMMA_ACC_16(c, d) PTX_WGMMA_ACC_8(c, d), c(d[4]), c(d[5]), c(d[6]), c(d[7])
#define PTX_WGMMA_ACC_24(c, d) PTX_WGMMA_ACC_16(c, d), c(d[8]), c(d[9]), c(d[10]), c(d[11])
#define PTX_WGMMA_ACC_32(c, d) PTX_WGMMA_ACC_24(c, d), c(d[12]), c(d[13]), c(d[14]), c(d[15])
#define PTX_WGMMA_ACC_40(c, d) PTX_WGMMA_ACC_32(c, d), c(d[16]), c(d[17]), c(d[18]), c(d[19])
#define PTX_WGMMA_ACC_48(c, d) PTX_WGMMA_ACC_40(c, d), c(d[20]), c(d[21]), c(d[22]), c(d[23])
#define PTX_WGMMA_ACC_56(c, d) PTX_WGMMA_ACC_48(c, d), c(d[24]), c(d[25]), c(d[26]), c(d[27])
#define PTX_WGMMA_ACC_64(c, d) PTX_WGMMA_ACC_56(c, d), c(d[28]), c(d[29]), c(d[30]), c(d[31])
#define PTX_WGMMA_ACC_72(c, d) PTX_WGMMA_ACC_64(c, d), c(d[32]), c(d[33]), c(d[34]), c(d[35])
#define PTX_WGMMA_ACC_80(c, d) PTX_WGMMA_ACC_72(c, d), c(d[36]), c(d[37]), c(d[38]), c(d[39])
#define PTX_WGMMA_ACC_88(c, d) PTX_WGMMA_ACC_80(c, d), c(d[40]), c(d[41]), c(d[42]), c(d[43])
#define PTX_WGMMA_ACC_96(c, d) PTX_WGMMA_ACC_88(c, d), c(d[44]), c(d[45]), c(d[46]), c(d[47])
#define PTX_WGMMA_ACC_104(c, d) PTX_WGMMA_ACC_96(c, d), c(d[48]), c(d[49]), c(d[50]), c(d[51])
#define PTX_WGMMA_ACC_112(c, d) PTX_WGMMA_ACC_104(c, d), c(d[52]), c(d[53]), c(d[54]), c(d[55])
#define PTX_WGMMA_ACC_120(c, d) PTX_WGMMA_ACC_112(c, d), c(d[56]), c(d[57]), c(d[58]), c(d[59])
#define PTX_WGMMA_ACC_128(c, d) PTX_WGMMA_ACC_120(c, d), c(d[60]), c(d[61]), c(d[62]), c(d[63])
#define PTX_WGMMA_ACC_136(c, d) PTX_WGMMA_ACC_128(c, d), c(d[64]), c(d[65]), c(d[66]), c(d[67])
#define PTX_WGMMA_ACC_144(c, d) PTX_WGMMA_ACC_136(c, d), c(d[68]), c(d[69]), c(d[70]), c(d[71])
#define PTX_WGMMA_ACC_152(c, d) PTX_WGMMA_ACC_144(c, d), c(d[72]), c(d[73]), c(d[74]), c(d[75])
#define PTX_WGMMA_ACC_160(c, d) PTX_WGMMA_ACC_152(c, d), c(d[76]), c(d[77]), c(d[78]), c(d[79])
#define PTX_WGMMA_ACC_168(c, d) PTX_WGMMA_ACC_160(c, d), c(d[80]), c(d[81]), c(d[82]), c(d[83])
#define PTX_WGMMA_ACC_176(c, d) PTX_WGMMA_ACC_168(c, d), c(d[84]), c(d[85]), c(d[86]), c(d[87])
#define PTX_WGMMA_ACC_184(c, d) PTX_WGMMA_ACC_176(c, d), c(d[88]), c(d[89]), c(d[90]), c(d[91])
#define PTX_WGMMA_ACC_192(c, d) PTX_WGMMA_ACC_184(c, d), c(d[92]), c(d[93]), c(d[94]), c(d[95])
#define PTX_WGMMA_ACC_200(c, d) PTX_WGMMA_ACC_192(c, d), c(d[96]), c(d[97]), c(d[98]), c(d[99])
#define PTX_WGMMA_ACC_208(c, d) PTX_WGMMA_ACC_200(c, d), c(d[100]), c(d[101]), c(d[102]), c(d[103])
#define PTX_WGMMA_ACC_216(c, d) PTX_WGMMA_ACC_208(c, d), c(d[104]), c(d[105]), c(d[106]), c(d[107])
#define PTX_WGMMA_ACC_224(c, d) PTX_WGMMA_ACC_216(c, d), c(d[108]), c(d[109]), c(d[110]), c(d[111])
#define PTX_WGMMA_ACC_232(c, d) PTX_WGMMA_ACC_224(c, d), c(d[112]), c(d[113]), c(d[114]), c(d[115])
#define PTX_WGMMA_ACC_240(c, d) PTX_WGMMA_ACC_232(c, d), c(d[116]), c(d[117]), c(d[118]), c(d[119])
#define PTX_WGMMA_ACC_248(c, d) PTX_WGMMA_ACC_240(c, d), c(d[120]), c(d[121]), c(d[122]), c(d[123])
#define PTX_WGMMA_ACC_256(c, d) PTX_WGMMA_ACC_248(c, d), c(d[124]), c(d[125]), c(d[126]), c(d[127])
#define PTX_WGMMA_IN_8(x) x(4, 5, 6, 7, 8)
#define PTX_WGMMA_IN_16(x) x(8, 9, 10, 11, 12)
#define PTX_WGMMA_IN_24(x) x(12, 13, 14, 15, 16)
#define PTX_WGMMA_IN_32(x) x(16, 17, 18, 19, 20)
#define PTX_WGMMA_IN_40(x) x(20, 21, 22, 23, 24)
#define PTX_WGMMA_IN_48(x) x(24, 25, 26, 27, 28)
#define PTX_WGMMA_IN_56(x) x(28, 29, 30, 31, 32)
#define PTX_WGMMA_IN_64(x) x(32, 33, 34, 35, 36)
#define PTX_WGMMA_IN_72(x) x(36, 37, 38, 39, 40)
#define PTX_WGMMA_IN_80(x) x(40, 41, 42, 43, 44)
#define PTX_WGMMA_IN_88(x) x(44, 45, 46, 47, 48)
#define PTX_WGMMA_IN_96(x) x(48, 49, 50, 51, 52)
#define PTX_WGMMA_IN_104(x) x(52, 53, 54, 55, 56)
#define PTX_WGMMA_IN_112(x) x(56, 57, 58, 59, 60)
#define PTX_WGMMA_IN_120(x) x(60, 61, 62, 63, 64)
#define PTX_WGMMA_IN_128(x) x(64, 65, 66, 67, 68)
#define PTX_WGMMA_IN_136(x) x(68, 69, 70, 71, 72)
#define PTX_WGMMA_IN_144(x) x(72, 73, 74, 75, 76)
#define PTX_WGMMA_IN_152(x) x(76, 77, 78, 79, 80)
#define PTX_WGMMA_IN_160(x) x(80, 81, 82, 83, 84)
#define PTX_WGMMA_IN_168(x) x(84, 85, 86, 87, 88)
#define PTX_WGMMA_IN_176(x) x(88, 89, 90, 91, 92)
#define PTX_WGMMA_IN_184(x) x(92, 93, 94, 95, 96)
#define PTX_WGMMA_IN_192(x) x(96, 97, 98, 99, 100)
#define PTX_WGMMA_IN_200(x) x(100, 101, 102, 103, 104)
#define PTX_WGMMA_IN_208(x) x(104, 105, 106, 107, 108)
#define PTX_WGMMA_IN_216(x) x(108, 109, 110, 111, 112)
#define PTX_WGMMA_IN_224(x) x(112, 113, 114, 115, 116)
#define PTX_WGMMA_IN_232(x) x(116, 117, 118, 119, 120)
#define PTX_WGMMA_IN_240(x) x(120, 121, 122, 123, 124)
#define PTX_WGMMA_IN_248(x) x(124, 125, 126, 127, 128)
#define PTX_WGMMA_IN_256(x) x(128, 129, 130, 131, 132)

#endif
