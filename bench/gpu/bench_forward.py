"""Dense forward attention on one GPU beside its fastest peers, under two protocols. Prints one table.

    python bench/gpu/bench_forward.py [--backend cuda-sm90] [--peers cudnn,fa4] [--only 128,64] [--short]

Fast kernels run at the GPU's power limit, so that a figure means nothing without its protocol:
  steady   0.5 s of the same contender as warm-up, then 0.4 s measured
  burst    three calls after 0.4 s of idling
Contenders take turns; every round starts with another one, since each runs on the heat that the one before left.
FLOP: 2 B H Nq Nk (D + Dv), half of it causal. The best and the worst of the rounds are printed.
"""
import argparse
import subprocess
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from saccade_ctypes import Saccade

# B, N, H, Hkv, D, Dv
LONG = [(1, 16384, 16, 16, 128, 128), (1, 16384, 32, 32, 64, 64), (1, 16384, 16, 16, 192, 128), (1, 16384, 8, 8, 256, 256)]
SHORT = [(1, 2048, 32, 8, 128, 128), (1, 4096, 32, 8, 128, 128)]


def cudnn(q, k, v, causal):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]

    def forward():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=gqa)

    return forward


def fa4(q, k, v, causal):
    from flash_attn.cute import flash_attn_func
    return lambda: flash_attn_func(q, k, v, causal=causal)


PEERS = {"cudnn": cudnn, "fa4": fa4}


def timed(forward, calls):
    """Seconds a call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        forward()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / calls


def steady(forward):
    one = timed(forward, 2)
    timed(forward, max(1, int(0.5 / one)))
    return timed(forward, max(3, int(0.4 / one)))


def burst(forward):
    torch.cuda.synchronize()
    time.sleep(0.4)
    return timed(forward, 3)


def machine():
    gpu = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"], capture_output=True,
                         text=True).stdout.strip()
    return f"# {gpu}; torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"


def error_of(forward, q, k, v, causal):
    """|out - exact| / |exact| over the first head of the first batch, exact in fp32 arithmetic."""
    out = forward()[0, :, 0].float()
    group = q.shape[2] // k.shape[2]
    q, k, v = q[0, :, 0].float(), k[0, :, 0 // group].float(), v[0, :, 0 // group].float()
    scores = q @ k.T * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf"))
    exact = scores.softmax(-1) @ v
    return ((out - exact).norm() / exact.norm()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="cuda-sm90")
    parser.add_argument("--peers", default="cudnn")
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    parser.add_argument("--only", default="", help="head dims, for example 128,64")
    parser.add_argument("--short", action="store_true", help="also 2 K and 4 K tokens, grouped heads, causal")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    saccade = Saccade(args.library)
    print(machine() + "; bf16, random data; TFLOP/s")
    print(f"{'B':>2}{'N':>7} {'H/Hkv':>6} {'D':>8} {'mask':6} {'contender':10}{'steady':>12}{'burst':>12}  error")
    only = [int(x) for x in args.only.split(",") if x]
    cases = [(s, causal) for s in LONG for causal in (False, True) if not only or s[4] in only]
    cases += [(s, True) for s in SHORT if args.short]
    for (b, n, h, hkv, d, dv), causal in cases:
        q, k, v = (torch.randn(b, n, heads, dim, dtype=torch.bfloat16, device="cuda")
                   for heads, dim in ((h, d), (hkv, d), (hkv, dv)))
        ours = saccade.attention(q, k, v, training=False, causal=int(causal), backend=args.backend.encode())[0]
        contenders = [(args.backend, ours)]
        contenders += [(name, PEERS[name](q, k, v, causal)) for name in args.peers.split(",") if name]
        for _, forward in contenders:  # compiles and plans, so that no warm-up is cut short by it
            forward()
        error = error_of(ours, q, k, v, causal)
        flop = 2 * b * h * n * n * (d + dv) * (0.5 if causal else 1)
        figures = {name: ([], []) for name, _ in contenders}
        for protocol, measure in enumerate((steady, burst)):
            for r in range(args.rounds):
                for name, forward in contenders[r:] + contenders[:r]:
                    figures[name][protocol].append(flop / measure(forward) / 1e12)
        for name, samples in figures.items():
            spread = [f"{max(x):.0f} / {min(x):.0f}" for x in samples]
            print(f"{b:2}{n:7} {f'{h}/{hkv}':>6} {f'{d}/{dv}':>8} {'causal' if causal else 'full':6} {name:10}"
                  f"{spread[0]:>12}{spread[1]:>12}  {f'{error:.1e}' if name == args.backend else ''}", flush=True)
        del contenders, figures, ours
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
