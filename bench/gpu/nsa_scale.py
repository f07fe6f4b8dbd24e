"""Native sparse attention at the lengths that one GPU's memory allows: that it is right there, its memory, its time.

    python bench/gpu/nsa_scale.py [--tokens 2097152] [--forward-only]

H 32, Hkv 8, D 128, bf16, w_gate, the defaults of saccade/nsa.h. Rows spread over the whole length are held against fp64
(nsa_rows.py). For the backward dout is zero in all other rows, so that dk and dv of every token are known too.
"""
import argparse
import time

import torch

from nsa_rows import Rows, choice_is_right, error
from saccade_ctypes import Saccade

HEADS, KV_HEADS, DIM, ROWS = 32, 8, 128, 24


def sampled_positions(n):
    """The first rows, the last, and some between."""
    spread = torch.linspace(0, n - 1, ROWS - 6, dtype=torch.float64).long()
    return torch.cat([torch.tensor([1, 62, 63, 127, n - 2, n - 65]), spread]).unique().cuda()


def timed(f):
    torch.cuda.synchronize()
    begin = time.perf_counter()
    f()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def gib(bytes_):
    return bytes_ / 2**30


def compile_kernels(saccade, training, compressed_top_k):
    """By a short call, so that none is compiled while a long one is timed."""
    q, k, v = (torch.randn(1, 16384, h, DIM, dtype=torch.bfloat16, device="cuda") for h in (HEADS, KV_HEADS, KV_HEADS))
    w_gate = torch.zeros(HEADS, 3, DIM, dtype=torch.bfloat16, device="cuda")
    forward, backward, *_ = saccade.nsa(q, k, v, w_gate, training=training, compressed_top_k=compressed_top_k)
    forward()
    if training:
        backward()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=2097152)
    parser.add_argument("--forward-only", action="store_true")
    parser.add_argument("--heads", type=int, default=4, help="query heads whose rows are checked, the last ones")
    parser.add_argument("--compressed-top-k", type=int, default=0)
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    args = parser.parse_args()
    torch.manual_seed(0)
    n, training, saccade = args.tokens, not args.forward_only, Saccade(args.library)
    compile_kernels(saccade, training, args.compressed_top_k)
    q, k, v = (torch.randn(1, n, h, DIM, dtype=torch.bfloat16, device="cuda") for h in (HEADS, KV_HEADS, KV_HEADS))
    w_gate = torch.randn(HEADS, 3, DIM, dtype=torch.bfloat16, device="cuda") / DIM**0.5
    at = sampled_positions(n)
    dout = torch.zeros_like(q) if training else None
    if training:
        dout[0, at] = torch.randn(len(at), HEADS, DIM, dtype=torch.bfloat16, device="cuda")
    forward, backward, r, workspace = saccade.nsa(q, k, v, w_gate, dout, training=training,
                                                  compressed_top_k=args.compressed_top_k)
    tensors = sum(x.numel() * x.element_size() for x in [q, k, v, w_gate, *r.values()])
    given = sum(x.numel() * x.element_size() for x in [q, k, v, *(r[name] for name in r if name in
                                                                  ("out", "dout", "dq", "dk", "dv"))])
    print(f"# {torch.cuda.get_device_name()}; {n} tokens; tensors {gib(tensors):.1f} GiB, workspace "
          f"{gib(workspace):.1f} GiB: {(tensors + workspace) / given:.2f} times inputs, outputs and gradients",
          flush=True)
    print(f"forward  {timed(forward):7.3f} s", flush=True)
    if training:
        print(f"backward {timed(backward):7.3f} s", flush=True)
    print(f"# peak of PyTorch's allocator, which holds all of it: {gib(torch.cuda.max_memory_allocated()):.1f} GiB",
          flush=True)
    if not args.compressed_top_k:
        check(Rows(q, k, v, w_gate, r, at), r, dout, args.heads)
    tiles = [0, 1, n // 256 // 2, (n - 1) // 256]
    right = [choice_is_right(q, r["k_cmp"], r["indices"], h, t) for h in (0, HEADS - 1) for t in tiles]
    print(f"chosen blocks of {len(right)} tiles: {sum(right)} right")


def check(rows, r, dout, heads):
    at = rows.at
    for h in range(HEADS - heads, HEADS):
        out, dq, dw, dk, dv = rows.head(h, dout[0, at, h].double() if dout is not None else None)
        line = f"head {h}: out {error(r['out'][0, at, h], out):.1e}"
        if dout is not None:
            line += f", dq {error(r['dq'][0, at, h], dq):.1e}, dw_gate {error(r['dw_gate'][h], dw):.1e}"
        print(line, flush=True)
    if dout is None or heads < rows.group:
        return
    # The last key head's gradients are the sum over its group of query heads.
    kv, sums = KV_HEADS - 1, [0, 0]
    for h in range(HEADS - rows.group, HEADS):
        grads = rows.head(h, dout[0, at, h].double())[3:]
        sums = [total + grad for total, grad in zip(sums, grads)]
    print(f"key head {kv}, all {rows.k.shape[1]} tokens: dk {error(r['dk'][0, :, kv], sums[0]):.1e}, "
          f"dv {error(r['dv'][0, :, kv], sums[1]):.1e}", flush=True)


if __name__ == "__main__":
    main()
