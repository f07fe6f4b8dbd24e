"""What a call from Python costs on top of the C call, on a small attention. Prints one table.

    SACCADE_LIBRARY_DIR=build PYTHONPATH=python python bench/python/call_overhead.py [--device cuda]

Each contender is called many times without waiting for the device, so on a GPU the time is the CPU's; contenders take
turns, and the best of the rounds is printed. "C" is the library's function through cffi with every argument prepared
and outputs there; the last column is the time over that of the C calls that do the same. The floor of a call that may
be differentiated is a torch.autograd.Function that allocates and saves what attention does, and computes nothing.
Import is of the package without PyTorch, in a fresh process.
"""

import argparse
import subprocess
import sys
import time

import torch
from torch.nn.functional import scaled_dot_product_attention

from saccade._call import AttentionOptions
from saccade._library import check, ffi, lib
from saccade._tensor import Tensor
from saccade.torch import create_block_mask, flash_attn_func, flex_attention
from saccade.torch._modifiers import as_modifier

CALLS, ROUNDS = 100, 15


class CCalls:
    """Forward and backward with every argument made beforehand, in a context of its own."""

    def __init__(self, q, k, v, dout, **options):
        stream = torch.cuda.current_stream().cuda_stream if q.is_cuda else 0
        created = ffi.new("saccade_context **")
        on_stream = ffi.new("saccade_context_params *", {"stream": ffi.cast("void *", stream)})
        check(lib.saccade_context_create(created, on_stream))
        self.out, self.grads = torch.empty_like(q), [torch.empty_like(t) for t in (q, k, v)]
        self.kept = [q, k, v, dout, torch.empty(q.shape[0], q.shape[2], q.shape[1], device=q.device)]
        tensors = [Tensor(t) for t in (q, k, v, self.out, self.kept[-1])]
        fields = {name: Tensor(t) for name, t in zip(("dout", "dq", "dk", "dv"), (dout, *self.grads))}
        grads = ffi.new("saccade_attention_grads *", {name: t.pointer for name, t in fields.items()})
        params = AttentionOptions(**options).to_c(self.kept)
        self.kept += [tensors, fields, ffi.gc(created[0], lib.saccade_context_destroy)]
        self._forward = (created[0], *(t.pointer for t in tensors), params)
        self._backward = (*self._forward[:-1], grads, params)

    def forward_only(self):
        check(lib.saccade_attention_forward(*self._forward))

    def both(self):
        check(lib.saccade_attention_forward(*self._forward))
        check(lib.saccade_attention_backward(*self._backward))


class Nothing(torch.autograd.Function):
    """What autograd itself takes for an attention in Python."""

    @staticmethod
    def forward(ctx, q, k, v):
        out, lse = torch.empty_like(q), q.new_empty((q.shape[0], q.shape[2], q.shape[1]), dtype=torch.float32)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    def backward(ctx, dout):
        return tuple(torch.empty_like(t) for t in ctx.saved_tensors[:3])


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


def score_mod(score, b, h, q_idx, kv_idx):
    return score + (kv_idx - q_idx) * 0.1


def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def contenders(q, k, v):
    """Name, call, and the name of the C call that does the same."""
    wanted, dout = [t.clone().requires_grad_() for t in (q, k, v)], torch.randn_like(q)
    transposed = [t.transpose(1, 2) for t in (q, k, v)]
    wanted_transposed = [t.clone().requires_grad_() for t in transposed]
    mask = create_block_mask(causal, None, None, q.shape[1], q.shape[1], device=q.device)
    c_calls = CCalls(q, k, v, dout, causal="bottom_right")
    c_mods = CCalls(q, k, v, dout, score_mod=as_modifier("score", score_mod, q.device), block_mask=mask)

    def both(function, inputs, dout):
        return lambda: torch.autograd.grad(function(*inputs), inputs, dout)

    def flash(q, k, v):
        return flash_attn_func(q, k, v, causal=True)

    def flex(q, k, v):
        return flex_attention(q, k, v, score_mod=score_mod, block_mask=mask)

    def torchs(q, k, v):
        return scaled_dot_product_attention(q, k, v, is_causal=True)

    yield "C forward", c_calls.forward_only, None
    yield "C forward, backward", c_calls.both, None
    yield "C forward, score_mod, block_mask", c_mods.forward_only, None
    yield "C forward, backward, score_mod, block_mask", c_mods.both, None
    yield "flash_attn_func", lambda: flash(q, k, v), "C forward"
    yield "flash_attn_func, inputs that ask for gradients", lambda: flash(*wanted), "C forward"
    yield "flash_attn_func, backward", both(flash, wanted, dout), "C forward, backward"
    yield "flex_attention, score_mod, block_mask", lambda: flex(*transposed), "C forward, score_mod, block_mask"
    yield "the same, inputs that ask for gradients", lambda: flex(*wanted_transposed), (
        "C forward, score_mod, block_mask")  # fmt: skip
    yield "the same, backward", both(flex, wanted_transposed, dout.transpose(1, 2)), (
        "C forward, backward, score_mod, block_mask")  # fmt: skip
    yield "create_block_mask", lambda: create_block_mask(
        causal, None, None, q.shape[1], q.shape[1], device=q.device), None  # fmt: skip
    yield "a Function that computes nothing", lambda: Nothing.apply(*wanted), None
    yield "the same, backward", both(Nothing.apply, wanted, dout), None
    yield "PyTorch's scaled_dot_product_attention", lambda: torchs(*transposed), None
    yield "the same, inputs that ask for gradients", lambda: torchs(*wanted_transposed), None
    yield "the same, backward", both(torchs, wanted_transposed, dout.transpose(1, 2)), None

    c_calls.both()
    out = flash(*wanted)
    for mine, in_c in zip((out, *torch.autograd.grad(out, wanted, dout)), (c_calls.out, *c_calls.grads)):
        torch.testing.assert_close(mine, in_c, atol=1e-5, rtol=0.01)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(parser.parse_args().device)
    shape, dtype = ((2, 128, 8, 64), torch.bfloat16) if device.type == "cuda" else ((1, 8, 2, 16), torch.float32)
    torch.manual_seed(0)
    calls = list(contenders(*(torch.randn(shape, device=device, dtype=dtype) for _ in range(3))))
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for i, (_, call, _) in enumerate(calls):
            best[i] = min(best[i], microseconds(call, torch.cuda.synchronize if device.type == "cuda" else int))

    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, {tuple(shape)} {dtype}, causal, torch {torch.__version__}, Python {sys.version.split()[0]}")
    print(f"{'call':48} {'us':>8} {'over C':>8}")
    by_name = {name: best[i] for i, (name, *_) in enumerate(calls)}
    for (name, _, in_c), microseconds_each in zip(calls, best):
        print(f"{name:48} {microseconds_each:8.1f}", f"{microseconds_each - by_name[in_c]:8.1f}" if in_c else "")
    nothing, package = (min(import_milliseconds(module) for _ in range(7)) for module in ("sys", "saccade"))
    print(f"import saccade: {package - nothing:.0f} ms over an empty Python ({nothing:.0f} ms)")


main()
