"""Native sparse attention whose blocks each query chooses for itself, beside one choice for 256 queries, on one GPU.

    python bench/gpu/bench_nsa_queries.py [--lengths 16384,65536] [--kv-heads 8,2] [--backward] [--window 1]

B 1, H 32, D 128, causal, bf16, w_gate, the other defaults of saccade/nsa.h. Inputs "random" choose blocks at random;
"alike" are a slow walk (correlation 0.98 from a query to the next), so that neighbours choose much the same, as
queries of trained models do. "x keys" is what neighbouring queries visit together over what each visits. Then the
microseconds of a call by stage.
"""
import argparse

import torch

from bench_nsa import breakdown, milliseconds
from protocols import machine
from saccade_ctypes import Saccade

HEADS, DIM, ROWS = 32, 128, 64


def walk(n, correlation=0.98):
    """(1, n, HEADS, DIM): each row the one before, a little changed."""
    noise = torch.randn(n, HEADS * DIM, device="cuda") * (1 - correlation**2) ** 0.5
    noise[0] /= (1 - correlation**2) ** 0.5
    step = 256  # a product per stretch: row i of it is the sum of correlation^(i - j) noise[j]
    i = torch.arange(step, device="cuda")
    powers = torch.tril(correlation ** (i[:, None] - i[None]).clamp(min=0).double()).float()
    last = torch.zeros(HEADS * DIM, device="cuda")
    for at in range(0, n, step):
        rows = noise[at:at + step]
        size = rows.shape[0]
        rows.copy_(powers[:size, :size] @ rows + correlation ** (i[:size, None] + 1) * last)
        last = rows[-1].clone()
    return noise.bfloat16().view(1, n, HEADS, DIM)


def shared_keys(indices, tiles):
    """Blocks that `tiles` neighbouring tiles chose together, over those that one chose: sampled."""
    _, lists, n, _ = indices.shape
    total = each = 0
    for start in torch.linspace(n // 2, n - tiles, 64).long().tolist():
        rows = indices[0, 0, start // tiles * tiles:start // tiles * tiles + tiles]
        chosen = rows[rows >= 0]
        total += chosen.unique().numel()
        each += chosen.numel() / tiles
    return total / each


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="16384,65536")
    parser.add_argument("--kv-heads", default="8,2")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--window", type=int, default=0, help="1: next to none, as peers without that branch")
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    args = parser.parse_args()
    torch.manual_seed(0)
    saccade = Saccade(args.library)
    print(f"{machine()}; H {HEADS}, D {DIM}, bf16")
    print("tokens   Hkv inputs  query_tile  x keys  forward ms  backward ms", flush=True)
    for n in map(int, args.lengths.split(",")):
        for kv_heads in map(int, args.kv_heads.split(",")):
            new = dict(dtype=torch.bfloat16, device="cuda")
            k, v = (torch.randn(1, n, kv_heads, DIM, **new) for _ in range(2))
            w_gate = torch.randn(HEADS, 3, DIM, **new) / DIM**0.5
            for kind, q in (("alike", walk(n)), ("random", torch.randn(1, n, HEADS, DIM, **new))):
                for tile in (256, 1):
                    forward, backward, r, _ = saccade.nsa(q, k, v, w_gate, training=args.backward, query_tile=tile,
                                                          window=args.window)
                    forward()
                    ms = [min(milliseconds(f) for _ in range(5)) for f in (forward, backward)[:1 + args.backward]]
                    group = HEADS // kv_heads
                    keys = shared_keys(r["indices"], ROWS // group) if tile == 1 else 1
                    print(f"{n:<8} {kv_heads:3} {kind:7} {tile:10}  {keys:6.2f}" + "".join(f"  {x:10.2f}" for x in ms),
                          flush=True)
                    for op, f in (("forward", forward), ("backward", backward))[:1 + args.backward]:
                        total, _ = breakdown(f)
                        parts = ", ".join(f"{stage} {us:.0f}" for stage, us in sorted(total.items(), key=lambda x: -x[1]))
                        print(f"#   {op}: {parts}", flush=True)


if __name__ == "__main__":
    main()
