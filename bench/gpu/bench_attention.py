"""Dense attention on one GPU: saccade's backends beside PyTorch's, interleaved in one process. Prints one table.

    python bench/gpu/bench_attention.py [--backends cuda-portable,cuda-sm90] [--shapes 0,1] [--masks causal] [--compile]

A backend's name followed by ! asks it for deterministic gradients. Random data. A figure is the median over rounds in
which all contenders take turns, each with as many calls as fill about 10 ms. "error" is the largest of |x - y| / |y|
over out, dq, dk and dv: of our backends against fp32 arithmetic on a shorter sequence, of peers against our first
backend on the tensors that are timed. --compile lets each contender run once, so that caches on the disk hold what
peers compile.
FLOP: forward 2 B H Nq Nk (D + Dv), half of it causal; backward 2.5 times that.
"""
import argparse
import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from protocols import machine
from saccade_ctypes import Saccade

# B, N, H, Hkv, D, Dv
SHAPES = [(2, 8192, 16, 16, 64, 64), (2, 8192, 16, 16, 128, 128), (1, 16384, 16, 16, 128, 128),
          (2, 8192, 16, 16, 256, 256), (1, 16384, 32, 8, 128, 128), (8, 2048, 16, 16, 128, 128)]
CHECKED = 1024  # tokens of the correctness check: the reference is quadratic in memory
ROUNDS = 7


def torch_contender(backend, q, k, v, causal):
    """SDPA takes (B, H, N, D); views of the same memory."""
    q, k, v = (x.transpose(1, 2).detach().requires_grad_() for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]

    def forward():
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=gqa)

    out = forward()
    dout = torch.randn_like(out)
    return forward, lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), (q, k, v, dout)


def flex_contender(options, q, k, v, causal):
    """FlexAttention on Triton, or with {"BACKEND": "FLASH"} on FlashAttention-4."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    q, k, v = (x.transpose(1, 2).detach().requires_grad_() for x in (q, k, v))
    compiled = torch.compile(flex_attention, dynamic=False)
    n = q.shape[2]
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, n, n) if causal else None

    def forward():
        return compiled(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1], kernel_options=options)

    out = forward()
    dout = torch.randn_like(out)
    return forward, lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), (q, k, v, dout)


def fa4_contender(q, k, v, causal):
    from flash_attn.cute import flash_attn_func
    q, k, v = (x.detach().requires_grad_() for x in (q, k, v))

    def forward():
        out = flash_attn_func(q, k, v, causal=causal)
        return out[0] if isinstance(out, tuple) else out

    out = forward()
    dout = torch.randn_like(out)
    return forward, lambda: torch.autograd.grad(out, (q, k, v), dout, retain_graph=True), (q, k, v, dout)


def asked_of(name):
    return {"backend": name.rstrip("!").encode(), "deterministic": name.endswith("!")}


PEERS = {"flash": ("torch flash", lambda *a: torch_contender(SDPBackend.FLASH_ATTENTION, *a)),
         "cudnn": ("cuDNN", lambda *a: torch_contender(SDPBackend.CUDNN_ATTENTION, *a)),
         "flex": ("flex (Triton)", lambda *a: flex_contender({}, *a)),
         "flex4": ("flex (FLASH)", lambda *a: flex_contender({"BACKEND": "FLASH"}, *a)),
         "fa4": ("FA4", fa4_contender)}


def peer_error(forward, backward, given, ours):
    """Of a peer's out and gradients, for dout = its own, against what ours makes of the same."""
    shape = ours[2]["out"].shape
    out, grads = forward(), backward()
    back = (lambda x: x) if out.shape == shape else (lambda x: x.transpose(1, 2))
    ours[2]["dout"].copy_(back(given[-1]))
    ours[0]()
    ours[1]()
    want = [ours[2][name] for name in ("out", "dq", "dk", "dv")]
    return relative_error([back(x) for x in (out, *grads)], want)


def relative_error(got, want):
    return max(((x.float() - y.float()).norm() / y.float().norm()).item() for x, y in zip(got, want))


def contenders(saccade, backends, peers, tensors, causal):
    """(forward, backward) by name, and the errors of peers by name."""
    made = {name: saccade.attention(*tensors, causal=int(causal), **asked_of(name)) for name in backends}
    ours, errors = made[backends[0]], {}
    for name, make in (PEERS[peer] for peer in peers.split(",") if peer):
        begun = time.time()
        try:
            forward, backward, given = make(*tensors, causal)
            errors[name] = peer_error(forward, backward, given, ours)
            made[name] = forward, backward
        except Exception as error:  # a peer that does not serve a shape is left out of the row, by name
            print(f"# {name}: {str(error).splitlines()[0][:150]}")
        print(f"# {name}: ready after {time.time() - begun:.1f} s", flush=True)
    return {name: pair[:2] for name, pair in made.items()}, errors


def exact(q, k, v, dout, causal):
    """fp32 out, dq, dk, dv by the plain formula."""
    q, k, v = (x.float().transpose(1, 2).requires_grad_() for x in (q, k, v))
    group = q.shape[1] // k.shape[1]
    kk, vv = (x.repeat_interleave(group, 1) for x in (k, v))
    s = q @ kk.transpose(2, 3) * q.shape[-1] ** -0.5
    if causal:
        s = s.masked_fill(torch.ones_like(s[0, 0], dtype=torch.bool).triu(1), float("-inf"))
    out = s.softmax(-1) @ vv
    grads = torch.autograd.grad(out, (q, k, v), dout.float().transpose(1, 2))
    return [x.transpose(1, 2) for x in (out, *grads)]


def check(saccade, backend, shape, causal):
    """The error of one of our backends."""
    b, n, h, hkv, d, dv = shape
    q, k, v = random_inputs((1, min(n, CHECKED), h, hkv, d, dv))
    forward, backward, r = saccade.attention(q, k, v, causal=int(causal), **asked_of(backend))
    for x in (r["out"], r["dq"], r["dk"], r["dv"]):
        x.fill_(float("nan"))
    forward()
    backward()
    want = exact(q, k, v, r["dout"], causal)
    return relative_error((r["out"], r["dq"], r["dk"], r["dv"]), want)


def random_inputs(shape, dtype=torch.bfloat16):
    b, n, h, hkv, d, dv = shape
    return (torch.randn(b, n, h, d, dtype=dtype, device="cuda"), torch.randn(b, n, hkv, d, dtype=dtype, device="cuda"),
            torch.randn(b, n, hkv, dv, dtype=dtype, device="cuda"))


def time_interleaved(functions):
    """Microseconds a call, p50 and p90, of each."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

    def run(f, calls):
        start.record()
        for _ in range(calls):
            f()
        end.record()
        end.synchronize()
        return 1000 * start.elapsed_time(end) / calls

    calls = {name: max(1, int(10000 / run(f, 2))) for name, f in functions.items()}
    samples = {name: [] for name in functions}
    for _ in range(ROUNDS):
        for name, f in functions.items():
            samples[name].append(run(f, calls[name]))
    return {name: (statistics.median(x), sorted(x)[int(0.9 * (len(x) - 1) + 0.5)]) for name, x in samples.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", default="cuda-portable")
    parser.add_argument("--peers", default="flash,cudnn", help="of " + ", ".join(PEERS))
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))), help="which rows of SHAPES")
    parser.add_argument("--masks", default="causal,full")
    parser.add_argument("--compile", action="store_true", help="no table: only let caches be filled")
    args = parser.parse_args()
    torch.manual_seed(0)
    saccade, backends = Saccade(args.library), args.backends.split(",")
    print(f"{machine()}; bf16, random data")
    print(f"{'op':9}{'B':>3}{'N':>7} {'H/Hkv':>6} {'D':>7} {'mask':6} {'contender':14}{'us p50':>9}{'p90':>9}"
          f"{'TFLOP/s':>9}{'ratio':>7}  error")
    for shape in (SHAPES[int(i)] for i in args.shapes.split(",")):
        b, n, h, hkv, d, dv = shape
        for causal in (mask == "causal" for mask in args.masks.split(",")):
            pairs, errors = contenders(saccade, backends, args.peers, random_inputs(shape), causal)
            if args.compile:
                continue
            errors |= {name: check(saccade, name, shape, causal) for name in backends}
            for op in (0, 1):
                times = time_interleaved({name: pair[op] for name, pair in pairs.items()})
                ours = times[backends[0]][0]
                flop = 2 * b * h * n * n * (d + dv) * (0.5 if causal else 1) * (2.5 if op else 1)
                for name, (p50, p90) in times.items():
                    error = f"{errors[name]:.1e}" if name in errors else ""
                    print(f"{'backward' if op else 'forward':9}{b:3}{n:7} {f'{h}/{hkv}':>6} {f'{d}/{dv}':>7} "
                          f"{'causal' if causal else 'full':6} {name:14}{p50:9.0f}{p90:9.0f}{flop / p50 / 1e6:9.0f}"
                          f"{p50 / ours:7.2f}  {error}", flush=True)
            del pairs
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
