"""What a call from Python costs on top of the C call, on a small attention. Prints one table.

    SACCADE_LIBRARY_DIR=build PYTHONPATH=python python bench/python/call_overhead.py [--device cuda]

Each contender is called many times without waiting for the device, so on a GPU the time is the CPU's; contenders take
turns, and the best of the rounds is printed. "C call" is the library's function through cffi with every argument
prepared; from PyTorch, outputs are allocated too. Import is of the package without PyTorch, in a fresh process.
"""

import argparse
import subprocess
import sys
import time

import torch

from saccade._call import AttentionOptions
from saccade._library import check, lib
from saccade._tensor import Tensor
from saccade.torch import flash_attn_func
from saccade.torch._device import context_of

CALLS, ROUNDS = 200, 15


def prepared_c_call(q, k, v):
    out, lse = torch.empty_like(q), torch.empty(q.shape[0], q.shape[2], q.shape[1], device=q.device)
    kept = []
    params = AttentionOptions(causal="bottom_right").to_c(kept)
    tensors = [Tensor(t) for t in (q, k, v, out, lse)]
    arguments = (context_of(q.device), *(t.pointer for t in tensors), params)

    def call():
        check(lib.saccade_attention_forward(*arguments))

    call.kept = tensors, kept, out, lse
    return call, out


def with_gradient(q, k, v):
    wanted = [t.detach().requires_grad_() for t in (q, k, v)]
    return lambda: flash_attn_func(*wanted, causal=True)


def forward_and_backward(q, k, v):
    wanted = [t.detach().requires_grad_() for t in (q, k, v)]
    weight = torch.randn_like(q)
    return lambda: torch.autograd.grad(flash_attn_func(*wanted, causal=True), wanted, weight)


def microseconds(call, synchronize):
    call()
    synchronize()
    start = time.perf_counter()
    for _ in range(CALLS):
        call()
    elapsed = time.perf_counter() - start
    synchronize()
    return 1e6 * elapsed / CALLS


def import_milliseconds(module):
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return 1e3 * (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args().device)
    shape, dtype = ((2, 128, 8, 64), torch.bfloat16) if device.type == "cuda" else ((1, 8, 2, 16), torch.float32)
    torch.manual_seed(0)
    qkv = [torch.randn(shape, device=device, dtype=dtype) for _ in range(3)]
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    c_call, c_out = prepared_c_call(*qkv)
    sdpa_inputs = [t.transpose(1, 2) for t in qkv]
    contenders = {
        "C call": c_call,
        "flash_attn_func": lambda: flash_attn_func(*qkv, causal=True),
        "flash_attn_func, gradients asked for": with_gradient(*qkv),
        "flash_attn_func and its backward": forward_and_backward(*qkv),
        "PyTorch's scaled_dot_product_attention": lambda: torch.nn.functional.scaled_dot_product_attention(
            *sdpa_inputs, is_causal=True)}  # fmt: skip
    c_call()
    assert torch.equal(c_out, flash_attn_func(*qkv, causal=True)), "the C call and the Python call differ"
    best = {name: float("inf") for name in contenders}
    for _ in range(ROUNDS):
        for name, call in contenders.items():
            best[name] = min(best[name], microseconds(call, synchronize))

    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, {tuple(shape)} {dtype}, causal, torch {torch.__version__}, Python {sys.version.split()[0]}")
    print(f"{'call':40} {'us':>8} {'over the C call':>16}")
    for contender, us in best.items():
        print(f"{contender:40} {us:8.1f} {us - best['C call']:16.1f}")
    nothing, package = (min(import_milliseconds(module) for _ in range(7)) for module in ("sys", "saccade"))
    print(f"import saccade: {package - nothing:.0f} ms over an empty Python ({nothing:.0f} ms)")


main()
