"""Native sparse attention whose blocks each query chooses for itself, beside one choice for 256 queries, on one GPU.

    python bench/gpu/bench_nsa_queries.py [--lengths 16384,65536] [--kv-heads 8,2] [--backward] [--window 1]
                                            [--inputs alike,random] [--activations FILE]

B 1, H 32, D 128, causal, bf16, w_gate, the other defaults of saccade/nsa.h. Inputs "random" choose blocks at random;
"alike" are a slow walk (correlation 0.98 from a query to the next), so that neighbours choose much the same, as
queries of trained models do. "x keys" is what neighbouring queries visit together over what each visits. "kept": a
backward that is given the branches' outputs. Then the microseconds of a call by stage. Sampled rows of a shorter call
are held against fp64 (nsa_rows.py) first.
"""
import argparse
import json

import torch

from bench_nsa import breakdown, check, milliseconds
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


def activations(path, batch):
    """q, k and v of a safetensors file in bf16, so many times."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    views = []
    for name in "qkv":
        begin, end = header[name]["data_offsets"]
        rows = torch.frombuffer(data, dtype=torch.bfloat16, offset=begin, count=(end - begin) // 2)
        views.append(rows.view(header[name]["shape"]).cuda().repeat(batch, 1, 1, 1))
    return views


def run(saccade, kind, q, k, v, args):
    """One choice for 256 queries, then one for each; the second's time over the first's."""
    _, n, heads, dim = q.shape
    w_gate = torch.randn(heads, 3, dim, dtype=torch.bfloat16, device="cuda") / dim**0.5
    before = None
    for tile in (256, 1):
        calls = [saccade.nsa(q, k, v, w_gate, training=args.backward, query_tile=tile, window=args.window,
                             keep_outputs=kept)[:3] for kept in (False, True)[:1 + args.backward]]
        for forward, _, r in calls:
            forward()
        passes = {"forward": calls[0][0]}
        if args.backward:
            passes |= {"backward": calls[0][1], "kept": calls[1][1]}
        ms = [min(milliseconds(f) for _ in range(5)) for f in passes.values()]
        keys = shared_keys(r["indices"], ROWS * k.shape[2] // heads) if tile == 1 else 1
        over = "" if before is None else "  " + ", ".join(f"{x / y:.2f}" for x, y in zip(ms, before)) + " times"
        print(f"{n:<8} {k.shape[2]:3} {kind:7} {tile:10}  {keys:6.2f}" + "".join(f"  {x:10.2f}" for x in ms) + over,
              flush=True)
        for op, f in passes.items():
            total, _ = breakdown(f)
            parts = ", ".join(f"{stage} {us:.0f}" for stage, us in sorted(total.items(), key=lambda x: -x[1]))
            print(f"#   {op}: {parts}", flush=True)
        before = ms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="16384,65536")
    parser.add_argument("--kv-heads", default="8,2")
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--inputs", default="alike,random")
    parser.add_argument("--window", type=int, default=0, help="1: next to none, as peers without that branch")
    parser.add_argument("--activations", help="a safetensors file with q, k, v: these instead, in a batch of --batch")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    args = parser.parse_args()
    torch.manual_seed(0)
    saccade = Saccade(args.library)
    print(f"{machine()}; bf16")
    print("tokens   Hkv inputs  query_tile  x keys  forward ms  backward ms     kept ms", flush=True)
    if args.activations:
        run(saccade, "real", *activations(args.activations, args.batch), args)
        return
    for n in map(int, args.lengths.split(",")):
        for kv_heads in map(int, args.kv_heads.split(",")):
            new = dict(dtype=torch.bfloat16, device="cuda")
            check(saccade, kv_heads=kv_heads, query_tile=1, keep_outputs=args.backward)
            k, v = (torch.randn(1, n, kv_heads, DIM, **new) for _ in range(2))
            for kind in args.inputs.split(","):
                q = walk(n) if kind == "alike" else torch.randn(1, n, HEADS, DIM, **new)
                run(saccade, kind, q, k, v, args)


if __name__ == "__main__":
    main()
