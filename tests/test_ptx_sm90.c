/* test_ptx_sm90.c - the building blocks of the Hopper kernels, one by one, against plain loops over integers: boxes and
 * swizzle of the copy engine, descriptors and register layouts of wgmma. Compiled wherever there is NVRTC, run where
 * there is a Hopper GPU. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "cuda/cuda.h"
#include "cuda/nvrtc.h"
#include "cuda/tensor_map.h"
#include "shared/embedded.h"
#include "support/cmocka_all.h"

/* a (M x D) and p (M x BOX) times b (ROWS x D), which is loaded in a box of BOX rows: the last ones lie outside; and
 * the first M columns of p, stored transposed, times the first M rows of b; and its first panel, stored as it
 * is. D is two panels, BOX no power of two.
 *
 * The second kernel: the first panel of a, turned, times the first M rows of b; the first 16 columns of p times rows of
 * half as many, which are each read twice; and b once more, as HEADS heads of PANEL columns that share a box. */
enum { M = 64, D = 128, ROWS = 70, BOX = 80, PANEL = 64, THREADS = 128, HEADS = 2, HALF = 8 };

static const char source[] =
    "#include \"cuda/kernels/ptx/fence.h\"\n"
    "#include \"cuda/kernels/ptx/mbarrier.h\"\n"
    "#include \"cuda/kernels/ptx/tma.h\"\n"
    "#include \"cuda/kernels/ptx/wgmma.h\"\n"
    "#include \"cuda/kernels/tensor_map.h\"\n"
    "PTX_WGMMA_SS(scores_set, 80, \"bf16\", PTX_WGMMA_SET)\n"
    "PTX_WGMMA_SS(scores_add, 80, \"bf16\", PTX_WGMMA_ADD)\n"
    "PTX_WGMMA_SS_MN(turned_set, 128, \"bf16\", PTX_WGMMA_SET)\n"
    "PTX_WGMMA_SS_MN(turned_add, 128, \"bf16\", PTX_WGMMA_ADD)\n"
    "PTX_WGMMA_RS_MN(values_set, 128, \"bf16\", PTX_WGMMA_SET)\n"
    "PTX_WGMMA_RS_MN(values_add, 128, \"bf16\", PTX_WGMMA_ADD)\n"
    "extern \"C\" __global__ void __launch_bounds__(128)\n"
    "probe(const __grid_constant__ sac_tensor_map map_a, const __grid_constant__ sac_tensor_map map_b,\n"
    "      const uint32_t *p, float *scores, float *values, float *turned, uint8_t *raw, uint8_t *stored) {\n"
    "    extern __shared__ __align__(1024) uint8_t a[];\n"
    "    uint8_t *b = a + 64 * 256;\n"
    "    uint64_t *full = (uint64_t *)(b + 80 * 256);\n"
    "    if (threadIdx.x == 0) {\n"
    "        ptx_mbarrier_init(full, 1);\n"
    "        ptx_mbarrier_fence_init();\n"
    "    }\n"
    "    __syncthreads();\n"
    "    if (threadIdx.x == 0) {\n"
    "        ptx_mbarrier_arrive_expect(full, (64 + 80) * 256);\n"
    "        for (int i = 0; i < 2; i++) {\n"
    "            ptx_tma_load(a + i * 64 * 128, &map_a, full, 64 * i, 0, 0, 0);\n"
    "            ptx_tma_load(b + i * 80 * 128, &map_b, full, 64 * i, 0, 0, 0);\n"
    "        }\n"
    "    }\n"
    "    ptx_mbarrier_wait(full, 0);\n"
    "    for (int i = threadIdx.x; i < 80 * 256; i += 128) raw[i] = b[i];\n"
    "    uint64_t da = ptx_wgmma_desc_k_major(ptx_smem_of(a)), db = ptx_wgmma_desc_k_major(ptx_smem_of(b));\n"
    "    uint64_t dv = ptx_wgmma_desc_mn_major(ptx_smem_of(b), 80 * 128);\n"
    "    float s[40], o[64];\n"
    "    ptx_wgmma_fence();\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 8; i++) {\n"
    "        uint64_t x = da + PTX_WGMMA_ADVANCE(i / 4 * 64 * 128 + i % 4 * 32);\n"
    "        uint64_t y = db + PTX_WGMMA_ADVANCE(i / 4 * 80 * 128 + i % 4 * 32);\n"
    "        if (i == 0) scores_set(s, x, y); else scores_add(s, x, y);\n"
    "    }\n"
    "    ptx_wgmma_commit();\n"
    "    ptx_wgmma_wait(0);\n"
    "    ptx_wgmma_pin(s, 40);\n"
    "    for (int i = 0; i < 40; i++) scores[40 * threadIdx.x + i] = s[i];\n"
    "    uint32_t mine[20];\n"
    "    for (int i = 0; i < 20; i++) mine[i] = p[20 * threadIdx.x + i];\n"
    "    ptx_wgmma_fence();\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 5; i++) {\n"
    "        uint64_t y = dv + PTX_WGMMA_ADVANCE(i * 16 * 128);\n"
    "        if (i == 0) values_set(o, mine, y); else values_add(o, mine + 4 * i, y);\n"
    "    }\n"
    "    ptx_wgmma_commit();\n"
    "    ptx_wgmma_wait(0);\n"
    "    ptx_wgmma_pin(o, 64);\n"
    "    for (int i = 0; i < 64; i++) values[64 * threadIdx.x + i] = o[i];\n"
    "    uint8_t *t = b + 81 * 256 + 768;\n" /* 80 rows of one panel */
    "    int lane = threadIdx.x % 32, chunk = threadIdx.x / 32 * 2 + lane / 8 % 2;\n"
    "    ptx_smem to = ptx_smem_of(t) + (lane % 8 + lane / 16 * 8) * 128 + (chunk ^ lane % 8) * 16;\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 5; i++) ptx_stmatrix_trans(to + 16 * i * 128, mine + 4 * i);\n"
    "    ptx_fence_proxy_async_shared();\n"
    "    __syncthreads();\n"
    "    uint64_t dt = ptx_wgmma_desc_k_major(ptx_smem_of(t));\n"
    "    ptx_wgmma_fence();\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 4; i++) {\n"
    "        uint64_t x = dt + PTX_WGMMA_ADVANCE(i * 32), y = dv + PTX_WGMMA_ADVANCE(i * 16 * 128);\n"
    "        if (i == 0) turned_set(o, x, y); else turned_add(o, x, y);\n"
    "    }\n"
    "    ptx_wgmma_commit();\n"
    "    ptx_wgmma_wait(0);\n"
    "    ptx_wgmma_pin(o, 64);\n"
    "    for (int i = 0; i < 64; i++) turned[64 * threadIdx.x + i] = o[i];\n"
    "    __syncthreads();\n"
    "    int row = threadIdx.x / 32 * 16 + lane % 16;\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 4; i++)\n"
    "        ptx_stmatrix(ptx_smem_of(t) + row * 128 + (2 * i + lane / 16 ^ row % 8) * 16, mine + 4 * i);\n"
    "    __syncthreads();\n"
    "    for (int i = threadIdx.x; i < 64 * 128; i += 128) stored[i] = t[i];\n"
    "}\n";

static const char second_source[] =
    "PTX_WGMMA_SS_MN_MN(crossed_set, 128, \"bf16\", PTX_WGMMA_SET)\n"
    "PTX_WGMMA_SS_MN_MN(crossed_add, 128, \"bf16\", PTX_WGMMA_ADD)\n"
    "PTX_WGMMA_RS(halves_set, 80, \"bf16\", PTX_WGMMA_SET)\n"
    "extern \"C\" __global__ void __launch_bounds__(128)\n"
    "second_probe(const __grid_constant__ sac_tensor_map map_a, const __grid_constant__ sac_tensor_map "
    "map_b,\n"
    "             const __grid_constant__ sac_tensor_map map_heads, const uint32_t *p, const uint4 *rows,\n"
    "             float *crossed, float *halves, uint8_t *boxed) {\n"
    "    extern __shared__ __align__(1024) uint8_t a[];\n"
    "    uint8_t *b = a + 64 * 256, *heads = b + 80 * 256;\n"
    "    uint4 *half_rows = (uint4 *)(heads + 80 * 128);\n"
    "    uint64_t *full = (uint64_t *)(half_rows + 80);\n"
    "    if (threadIdx.x == 0) {\n"
    "        ptx_mbarrier_init(full, 1);\n"
    "        ptx_mbarrier_fence_init();\n"
    "    }\n"
    "    if (threadIdx.x < 80) half_rows[threadIdx.x] = rows[threadIdx.x];\n"
    "    ptx_fence_proxy_async_shared();\n"
    "    __syncthreads();\n"
    "    if (threadIdx.x == 0) {\n"
    "        ptx_mbarrier_arrive_expect(full, (64 + 80) * 256 + 80 * 128);\n"
    "        for (int i = 0; i < 2; i++) {\n"
    "            ptx_tma_load(a + i * 64 * 128, &map_a, full, 64 * i, 0, 0, 0);\n"
    "            ptx_tma_load(b + i * 80 * 128, &map_b, full, 64 * i, 0, 0, 0);\n"
    "        }\n"
    "        ptx_tma_load(heads, &map_heads, full, 0, 0, 0, 0);\n"
    "    }\n"
    "    ptx_mbarrier_wait(full, 0);\n"
    "    for (int i = threadIdx.x; i < 80 * 128; i += 128) boxed[i] = heads[i];\n"
    "    uint64_t da = ptx_wgmma_desc_mn_major(ptx_smem_of(a), 64 * 128);\n"
    "    uint64_t db = ptx_wgmma_desc_mn_major(ptx_smem_of(b), 80 * 128);\n"
    "    float o[64], s[40];\n"
    "    ptx_wgmma_fence();\n"
    "#pragma unroll\n"
    "    for (int i = 0; i < 4; i++) {\n"
    "        uint64_t x = da + PTX_WGMMA_ADVANCE(i * 16 * 128), y = db + PTX_WGMMA_ADVANCE(i * 16 * 128);\n"
    "        if (i == 0) crossed_set(o, x, y); else crossed_add(o, x, y);\n"
    "    }\n"
    "    ptx_wgmma_commit();\n"
    "    ptx_wgmma_wait(0);\n"
    "    ptx_wgmma_pin(o, 64);\n"
    "    for (int i = 0; i < 64; i++) crossed[64 * threadIdx.x + i] = o[i];\n"
    "    uint32_t mine[4];\n"
    "    for (int i = 0; i < 4; i++) mine[i] = p[20 * threadIdx.x + i];\n"
    "    ptx_wgmma_fence();\n"
    "    halves_set(s, mine, ptx_wgmma_desc_half_rows(ptx_smem_of(half_rows)));\n"
    "    ptx_wgmma_commit();\n"
    "    ptx_wgmma_wait(0);\n"
    "    ptx_wgmma_pin(s, 40);\n"
    "    for (int i = 0; i < 40; i++) halves[40 * threadIdx.x + i] = s[i];\n"
    "}\n";

static int a[M][D], b[BOX][D], p[M][BOX]; /* b: rows from ROWS on are 0 */
static uint16_t a_bf16[M][D], b_bf16[ROWS][D], raw[BOX * D], stored[M * PANEL];
static uint32_t p_regs[THREADS][BOX / 4];
static uint16_t half_rows[BOX][HALF], boxed[BOX * PANEL];
static float scores[THREADS][BOX / 2], values[THREADS][D / 2], turned[THREADS][D / 2];
static float crossed[THREADS][D / 2], halves[THREADS][BOX / 2];
static const char *not_run; /* why the results are not there; NULL: they are */

static uint16_t bf16_of(int small) {
    float x = (float)small;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16); /* exact for small integers */
}

/* What accumulator i of a thread stands for, as ptx/wgmma.h says. */
static int row_of(int thread, int i) { return thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8; }
static int column_of(int thread, int i) { return i / 4 * 8 + thread % 4 * 2 + i % 2; }

static void fill(void) {
    srand(7);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < D; j++) a_bf16[i][j] = bf16_of(a[i][j] = rand() % 7 - 3);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < D; j++) b_bf16[i][j] = bf16_of(b[i][j] = rand() % 7 - 3);
    for (int i = 0; i < BOX; i++) /* the same columns of b, as a tensor of their own */
        for (int j = 0; j < HALF; j++) half_rows[i][j] = bf16_of(b[i][j]);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < BOX; j++) p[i][j] = rand() % 7 - 3;
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < BOX / 2; i += 2)
            p_regs[t][i / 2] = bf16_of(p[row_of(t, i)][column_of(t, i)]) |
                               (uint32_t)bf16_of(p[row_of(t, i)][column_of(t, i + 1)]) << 16;
}

static void compile(void **cubin) {
    enum { MOST_TEXTS = 256 };
    static char both[sizeof source + sizeof second_source];
    const char *reason, *names[MOST_TEXTS], *texts[MOST_TEXTS],
        *options[] = {"--gpu-architecture=sm_90a", "--std=c++17"};
    snprintf(both, sizeof both, "%s%s", source, second_source);
    const sac_nvrtc *nvrtc = sac_nvrtc_get(&reason);
    sac_nvrtc_source program = {.name = "probe.cu",
                                .text = both,
                                .header_names = names,
                                .header_texts = texts,
                                .num_options = 2,
                                .options = options};
    size_t size;
    if (!nvrtc) {
        not_run = reason;
        return;
    }
    assert_true(sac_embedded_count <= MOST_TEXTS);
    for (size_t i = 0; i < sac_embedded_count; i++) {
        names[program.num_headers] = sac_embedded_files[i].path;
        texts[program.num_headers++] = sac_embedded_files[i].text;
    }
    if (sac_nvrtc_compile(nvrtc, &program, cubin, &size, NULL) != SACCADE_OK)
        fail_msg("%s", saccade_last_error());
}

static void must(CUresult result, const char *what) {
    if (sac_driver_check(result, what) != SACCADE_OK) fail_msg("%s", saccade_last_error());
}

static CUdeviceptr upload(const void *data, size_t bytes) {
    const sac_driver *driver = sac_driver_get(NULL);
    CUdeviceptr pointer;
    must(driver->alloc(&pointer, bytes), "alloc");
    must(driver->copy(pointer, (CUdeviceptr)(uintptr_t)data, bytes), "upload");
    return pointer;
}

static void download(void *data, CUdeviceptr from, size_t bytes) {
    const sac_driver *driver = sac_driver_get(NULL);
    must(driver->copy((CUdeviceptr)(uintptr_t)data, from, bytes), "download");
    must(driver->free(from), "free");
}

static void map_extent(sac_tensor_map *map, CUdeviceptr data, const sac_tensor_extent *extent) {
    const sac_view view = {.data = (void *)(uintptr_t)data, .row_stride = D, .head_stride = PANEL};
    if (sac_tensor_map_make(map, &view, extent) != SACCADE_OK) fail_msg("%s", saccade_last_error());
}

static void map_of(sac_tensor_map *map, CUdeviceptr data, int64_t rows, int32_t box_rows) {
    map_extent(map, data, &(sac_tensor_extent){D, rows, 1, 1, box_rows, 0});
}

static void launch(CUmodule module, const char *name, void **params) {
    const sac_driver *driver = sac_driver_get(NULL);
    const int smem_bytes = (M + BOX) * D * 2 + BOX * PANEL * 2 + BOX * HALF * 2 + 1024;
    CUfunction probe;
    must(driver->module_function(&probe, module, name), name);
    must(driver->function_set(probe, SAC_CU_FUNCTION_DYNAMIC_SMEM, smem_bytes), "shared memory");
    must(driver->launch(probe, 1, 1, 1, THREADS, 1, 1, (unsigned)smem_bytes, NULL, params, NULL), "launch");
}

static void run_second(CUmodule module, CUdeviceptr da, CUdeviceptr db, CUdeviceptr dp) {
    sac_tensor_map map_a, map_b, map_heads;
    CUdeviceptr dr = upload(half_rows, sizeof half_rows), dc = upload(crossed, sizeof crossed),
                dh = upload(halves, sizeof halves), dx = upload(boxed, sizeof boxed);
    map_of(&map_a, da, M, M);
    map_of(&map_b, db, ROWS, BOX);
    map_extent(&map_heads, db, &(sac_tensor_extent){PANEL, ROWS / HEADS, HEADS, 1, BOX / HEADS, HEADS});
    launch(module, "second_probe", (void *[]){&map_a, &map_b, &map_heads, &dp, &dr, &dc, &dh, &dx});
    download(crossed, dc, sizeof crossed);
    download(halves, dh, sizeof halves);
    download(boxed, dx, sizeof boxed);
    must(sac_driver_get(NULL)->free(dr), "free");
}

static void run(const void *cubin) {
    const sac_driver *driver = sac_driver_get(NULL);
    CUmodule module;
    sac_tensor_map map_a, map_b;
    must(driver->module_load(&module, cubin), "module");
    CUdeviceptr da = upload(a_bf16, sizeof a_bf16), db = upload(b_bf16, sizeof b_bf16),
                dp = upload(p_regs, sizeof p_regs), ds = upload(scores, sizeof scores),
                dv = upload(values, sizeof values), dt = upload(turned, sizeof turned),
                dr = upload(raw, sizeof raw), dc = upload(stored, sizeof stored);
    map_of(&map_a, da, M, M);
    map_of(&map_b, db, ROWS, BOX);
    launch(module, "probe", (void *[]){&map_a, &map_b, &dp, &ds, &dv, &dt, &dr, &dc});
    run_second(module, da, db, dp);
    download(scores, ds, sizeof scores);
    download(values, dv, sizeof values);
    download(turned, dt, sizeof turned);
    download(raw, dr, sizeof raw);
    download(stored, dc, sizeof stored);
    must(driver->free(da), "free");
    must(driver->free(db), "free");
    must(driver->free(dp), "free");
    must(driver->module_unload(module), "unload");
}

static int set_up(void **state) {
    saccade_context *ctx;
    const sac_cuda_device *device;
    void *cubin = NULL;
    (void)state;
    memset(scores, 0xff, sizeof scores); /* NaN */
    memset(values, 0xff, sizeof values);
    memset(turned, 0xff, sizeof turned);
    memset(raw, 0xff, sizeof raw);
    memset(stored, 0xff, sizeof stored);
    memset(crossed, 0xff, sizeof crossed);
    memset(halves, 0xff, sizeof halves);
    memset(boxed, 0xff, sizeof boxed);
    fill();
    compile(&cubin);
    if (saccade_context_create(&ctx, NULL) != SACCADE_OK) return 1;
    if (!not_run && sac_cuda_enter(ctx, 0, &device) != SACCADE_OK) not_run = "no GPU";
    if (!not_run) {
        if (device->compute_capability == 90)
            run(cubin);
        else
            not_run = "the GPU is no Hopper";
        sac_cuda_leave();
    }
    free(cubin);
    saccade_context_destroy(ctx);
    return 0;
}

static void skip_unless_run(void) {
    if (!not_run) return;
    skip_because("%s", not_run);
}

static void boxes_arrive_swizzled_with_zeros_outside(void **state) {
    (void)state;
    skip_unless_run();
    for (int row = 0; row < BOX; row++)
        for (int column = 0; column < D; column++) {
            int panel = column / PANEL, chunk = column % PANEL / 8;
            int at = panel * BOX * PANEL + row * PANEL + (chunk ^ (row & 7)) * 8 + column % 8;
            if (raw[at] != bf16_of(b[row][column]))
                fail_msg("(%d, %d) is %04x, expected %04x", row, column, raw[at], bf16_of(b[row][column]));
        }
}

/* What the threads hold of a product, each `width` values of it, against sums in plain integers. */
static void expect_product(const float *held, int width, int (*sum_of)(int row, int column)) {
    skip_unless_run();
    for (int t = 0; t < THREADS; t++)
        for (int i = 0; i < width; i++) {
            const int row = row_of(t, i), column = column_of(t, i), sum = sum_of(row, column);
            if (held[t * width + i] != (float)sum)
                fail_msg("(%d, %d) is %g, expected %d", row, column, (double)held[t * width + i], sum);
        }
}

static int a_times_b_transposed(int row, int column) {
    int sum = 0;
    for (int d = 0; d < D; d++) sum += a[row][d] * b[column][d];
    return sum;
}

static void k_major_operands_give_a_times_b_transposed(void **state) {
    (void)state;
    expect_product(scores[0], BOX / 2, a_times_b_transposed);
}

static int p_times_b(int row, int column) {
    int sum = 0;
    for (int k = 0; k < BOX; k++) sum += p[row][k] * b[k][column];
    return sum;
}

static void registers_times_mn_major_give_p_times_b(void **state) {
    (void)state;
    expect_product(values[0], D / 2, p_times_b);
}

static int p_transposed_times_b(int row, int column) {
    int sum = 0;
    for (int k = 0; k < M; k++) sum += p[k][row] * b[k][column];
    return sum;
}

static void transposed_stores_times_mn_major_give_p_transposed_times_b(void **state) {
    (void)state;
    expect_product(turned[0], D / 2, p_transposed_times_b);
}

static void matrices_are_stored_row_by_row(void **state) {
    (void)state;
    skip_unless_run();
    for (int row = 0; row < M; row++)
        for (int column = 0; column < PANEL; column++) {
            const int at = row * PANEL + (column / 8 ^ row % 8) * 8 + column % 8;
            if (stored[at] != bf16_of(p[row][column]))
                fail_msg("(%d, %d) is %04x, expected %04x", row, column, stored[at], bf16_of(p[row][column]));
        }
}

static int a_transposed_times_b(int row, int column) {
    int sum = 0;
    for (int k = 0; k < M; k++) sum += a[k][row] * b[k][column];
    return sum;
}

static void both_operands_may_be_mn_major(void **state) {
    (void)state;
    expect_product(crossed[0], D / 2, a_transposed_times_b);
}

static int p_times_half_rows(int row, int column) {
    int sum = 0;
    for (int k = 0; k < 2 * HALF; k++) sum += p[row][k] * b[column][k % HALF];
    return sum;
}

static void half_rows_are_read_twice(void **state) {
    (void)state;
    expect_product(halves[0], BOX / 2, p_times_half_rows);
}

/* Row i of the box is row i / HEADS of head i % HEADS. */
static void heads_may_share_a_box(void **state) {
    (void)state;
    skip_unless_run();
    for (int i = 0; i < BOX; i++)
        for (int column = 0; column < PANEL; column++) {
            const int at = i * PANEL + (column / 8 ^ (i & 7)) * 8 + column % 8;
            const int row = i / HEADS, of_row = i % HEADS * PANEL + column;
            const uint16_t expected = row < ROWS / HEADS ? bf16_of(b[row][of_row]) : 0;
            if (boxed[at] != expected)
                fail_msg("(%d, %d) is %04x, expected %04x", i, column, boxed[at], expected);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boxes_arrive_swizzled_with_zeros_outside),
        cmocka_unit_test(k_major_operands_give_a_times_b_transposed),
        cmocka_unit_test(registers_times_mn_major_give_p_times_b),
        cmocka_unit_test(transposed_stores_times_mn_major_give_p_transposed_times_b),
        cmocka_unit_test(matrices_are_stored_row_by_row),
        cmocka_unit_test(both_operands_may_be_mn_major),
        cmocka_unit_test(half_rows_are_read_twice),
        cmocka_unit_test(heads_may_share_a_box),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
