"""A few queries against a long cache of keys: saccade's backends beside PyTorch's, interleaved. Prints one table.

    python bench/gpu/bench_decode.py [--backends cuda-portable,cuda-sm90] [--peers flash,cudnn] [--shapes 0,1]

Full attention of Nq queries to Nk keys, bf16, random data, forward only; every contender is checked against fp32. What
counts is how fast K and V are read: GB/s is their bytes, once, over the median time of rounds in which all take turns.
"""
import argparse

import torch
from torch.nn.attention import SDPBackend

from bench_attention import exact, time_interleaved, torch_contender
from protocols import machine
from saccade_ctypes import Saccade

# B, Nq, Nk, H, Hkv, D
SHAPES = [(16, 1, 16384, 32, 8, 128), (1, 1, 131072, 32, 8, 128), (16, 4, 16384, 32, 8, 128),
          (16, 1, 16384, 64, 8, 64), (16, 1, 16384, 16, 16, 128)]


def contenders(saccade, backends, peers, q, k, v):
    made = {name: lambda name=name: saccade.attention(q, k, v, training=False, backend=name.encode())[0]
            for name in backends}
    for name, backend in (("flash", SDPBackend.FLASH_ATTENTION), ("cudnn", SDPBackend.CUDNN_ATTENTION)):
        if name in peers:
            made[f"torch {name}"] = lambda backend=backend: torch_contender(backend, q, k, v, False)[0]
    result = {}
    for name, make in made.items():
        try:
            result[name] = make()
            result[name]()
            torch.cuda.synchronize()
        except Exception as error:  # one that does not serve a shape is left out of the row, by name
            result.pop(name, None)
            print(f"# {name}: {str(error).splitlines()[0][:150]}")
    return result


def error_of(out, q, k, v):
    """Against fp32, of the first batch entry."""
    want = exact(q[:1], k[:1], v[:1], torch.zeros_like(q[:1]), False)[0]
    got = out[:1] if out.shape == q.shape else out[:1].transpose(1, 2)
    return ((got.float() - want).norm() / want.norm()).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="cuda-portable,cuda-sm90")
    parser.add_argument("--peers", default="flash,cudnn", help="of flash, cudnn")
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))), help="which rows of SHAPES")
    args = parser.parse_args()
    torch.manual_seed(0)
    saccade = Saccade(args.library)
    print(f"{machine()}; bf16, random data")
    print(f"{'B':>3}{'Nq':>4}{'Nk':>8} {'H/Hkv':>6}{'D':>5} {'contender':14}{'us p50':>9}{'p90':>9}{'GB/s':>7}"
          f"{'ratio':>7}  error")
    for b, nq, nk, h, hkv, d in (SHAPES[int(i)] for i in args.shapes.split(",")):
        q, k, v = (torch.randn(b, n, heads, d, dtype=torch.bfloat16, device="cuda")
                   for n, heads in ((nq, h), (nk, hkv), (nk, hkv)))
        functions = contenders(saccade, args.backends.split(","), args.peers, q, k, v)
        errors = {name: error_of(f(), q, k, v) for name, f in functions.items()}
        times = time_interleaved(functions)
        ours = next(iter(times.values()))[0]
        for name, (p50, p90) in times.items():
            print(f"{b:3}{nq:4}{nk:8} {f'{h}/{hkv}':>6}{d:5} {name:14}{p50:9.1f}{p90:9.1f}"
                  f"{2 * k.numel() * 2 / p50 / 1e3:7.0f}{p50 / ours:7.2f}  {errors[name]:.1e}", flush=True)


if __name__ == "__main__":
    main()
