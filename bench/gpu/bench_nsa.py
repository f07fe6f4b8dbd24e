"""Native sparse attention on one GPU beside dense attention, interleaved in one process. Prints tables, draws a chart.

    python bench/gpu/bench_nsa.py [--ops forward,backward,stages] [--lengths 1024,...] [--svg FILE]

B 1, H 32, Hkv 8, D 128, causal, bf16, random data, w_gate, and the defaults of saccade/nsa.h: 16 blocks of 64, a window
of 512, tiles of 256 queries. "nsa" visits all compressed keys, "nsa sparse" the best 8 of their 128-wide blocks, "nsa
kept" keeps the branches' outputs for the backward, "graph" is nsa replayed from a CUDA graph. Dense is the fastest of
FlashAttention-4 (where it is installed), cuDNN and saccade.
Sampled rows are held against fp64 (nsa_rows.py) first. A figure is the median over rounds in which all
contenders take turns; a call above 0.3 s is made once. "stages" is a breakdown by kernel, from the profiler.
"""
import argparse
import json
import os
import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from bench_attention import fa4_contender, torch_contender
from nsa_rows import Rows, error
from protocols import machine
from saccade_ctypes import Saccade

HEADS, KV_HEADS, DIM = 32, 8, 128
DENSE = ("FA4", "cuDNN", "saccade dense")
OURS = {"nsa": {}, "nsa sparse": dict(compressed_top_k=8), "nsa kept": dict(keep_outputs=True)}
ROUNDS, LONG_MS = 5, 300
GRAPH_TOKENS, LONG_TOKENS, BACKWARD_STAGES = 65536, 262144, 524288


def inputs(n, kv_heads=KV_HEADS):
    new = dict(dtype=torch.bfloat16, device="cuda")
    q, k, v = (torch.randn(1, n, h, DIM, **new) for h in (HEADS, kv_heads, kv_heads))
    return q, k, v, torch.randn(HEADS, 3, DIM, **new) / DIM**0.5


def graph_of(saccade, call):
    """The call, replayed. A graph knows only addresses: what it returns keeps the call and so its tensors alive."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    saccade.set_stream(stream)
    with torch.cuda.graph(graph, stream=stream):
        call()
    saccade.set_stream(torch.cuda.current_stream())
    return lambda: call and graph.replay()


def dense_peer(name, q, k, v, backward):
    """A function without arguments: the forward, or the backward of one that was made before."""
    if name == "FA4" and not backward:
        from flash_attn.cute import flash_attn_func
        return lambda: flash_attn_func(q, k, v, causal=True)
    if name == "FA4":
        return fa4_contender(q, k, v, True)[1]
    if backward:
        return torch_contender(SDPBackend.CUDNN_ATTENTION, q, k, v, True)[1]
    heads_first = [x.transpose(1, 2) for x in (q, k, v)]

    def forward():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return scaled_dot_product_attention(*heads_first, is_causal=True, enable_gqa=True)

    return forward


def ours(saccade, name, tensors, backward):
    q, k, v, w_gate = tensors
    if name == "saccade dense":
        pair = saccade.attention(q, k, v, causal=1, training=backward)
    elif name == "graph":
        pair = [graph_of(saccade, f) for f in saccade.nsa(q, k, v, w_gate, training=backward)[:1 + backward]]
    else:
        pair = saccade.nsa(q, k, v, w_gate, training=backward, **OURS[name])
    if backward:
        pair[0]()
    return pair[backward]


def contenders(saccade, n, names, tensors, backward):
    """Functions without arguments by name; who cannot serve is left out, by name. Short calls are made once, so that
    nothing is compiled later; long ones follow short ones."""
    result = {}
    for name in names:
        if name == "graph" and n > GRAPH_TOKENS:
            continue
        try:
            peer = name in ("FA4", "cuDNN")
            result[name] = (dense_peer(name, *tensors[:3], backward) if peer
                            else ours(saccade, name, tensors, backward))
            if n < LONG_TOKENS:
                result[name]()
            torch.cuda.synchronize()
        except Exception as failure:
            print(f"# {name}, {n} tokens: {(str(failure).splitlines() or [type(failure).__name__])[0][:200]}")
            result.pop(name, None)
    return result


def milliseconds(f, calls=1):
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        f()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def time_interleaved(functions):
    first = {name: milliseconds(f) for name, f in functions.items()}
    calls = {name: max(1, int(10 / t)) for name, t in first.items()}
    samples = {name: [t] if t > LONG_MS else [] for name, t in first.items()}
    for _ in range(ROUNDS):
        for name, f in functions.items():
            if first[name] <= LONG_MS:
                samples[name].append(milliseconds(f, calls[name]))
    return {name: statistics.median(x) for name, x in samples.items()}


def check(saccade, n=4096, kv_heads=KV_HEADS, query_tile=256, keep_outputs=False):
    """Of sampled rows and heads, the largest error against fp64."""
    q, k, v, w_gate = inputs(n, kv_heads)
    at = torch.tensor([0, 63, 64, n // 2, n - 1], device="cuda")
    dout = torch.zeros_like(q)
    dout[0, at] = torch.randn_like(dout[0, at])
    forward, backward, r, _ = saccade.nsa(q, k, v, w_gate, dout, keep_outputs=keep_outputs, query_tile=query_tile)
    forward()
    backward()
    rows, worst = Rows(q, k, v, w_gate, r, at, query_tile=query_tile), {}
    for h in (0, HEADS - 1):
        out, dq, dw, *_ = rows.head(h, dout[0, at, h].double())
        for name, got, want in (("out", r["out"][0, at, h], out), ("dq", r["dq"][0, at, h], dq),
                                ("dw_gate", r["dw_gate"][h], dw)):
            worst[name] = max(worst.get(name, 0), error(got, want))
    print(f"# Hkv {kv_heads}, a choice for {query_tile}, against fp64: "
          + ", ".join(f"{name} {e:.1e}" for name, e in worst.items()), flush=True)


# ---- breakdown ----

def stage_of(kernel, attentions, gates):
    """A kernel's stage by its name, where branches follow each other; going back, each begins at its gate."""
    branch = ("cmp", "slc", "win")[max((gates if kernel.startswith("attn_bwd") else attentions) - 1, 0) % 3]
    known = (("nsa_compress", "compress"), ("nsa_weights", "compress"), ("nsa_offsets", "compress"),
             ("nsa_means", "query means"), ("nsa_select", "select"), ("mask_", "lists"), ("nsa_gate", "gate"),
             ("nsa_", "sum gradients"), ("attn_fwd", f"{branch} forward"), ("attn_bwd", f"{branch} backward"),
             ("attn_", f"{branch} forward"))
    return next((stage for start, stage in known if kernel.startswith(start)), "copies and clears")


def breakdown(f):
    """Microseconds on the GPU by stage, of one call; how many kernels."""
    from torch.profiler import ProfilerActivity, profile
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        f()
        torch.cuda.synchronize()
    events = sorted((e for e in profiler.events() if e.device_type == torch.autograd.DeviceType.CUDA),
                    key=lambda e: e.time_range.start)
    total, attentions, gates = {}, 0, 0
    for e in events:
        attentions += e.name.startswith("attn_fwd")
        gates += e.name.startswith("nsa_gate_bwd")
        stage = stage_of(e.name, attentions, gates)
        total[stage] = total.get(stage, 0) + e.time_range.elapsed_us()
    return total, len(events)


def print_stages(saccade, n, backward):
    q, k, v, w_gate = inputs(n)
    for name, options in OURS.items():
        pair = saccade.nsa(q, k, v, w_gate, training=backward, **options)
        for op, f in (("forward", pair[0]), ("backward", pair[1]))[:1 + backward]:
            f()
            total, count = breakdown(f)
            parts = ", ".join(f"{stage} {us:.0f}" for stage, us in sorted(total.items(), key=lambda x: -x[1]))
            print(f"{n:8} {name:11} {op:8} {sum(total.values()):9.0f} us in {count} kernels: {parts}", flush=True)


# ---- chart ----

COLOURS = {"FA4": "#7f7f7f", "cuDNN": "#b0b0b0", "saccade dense": "#1f77b4", "nsa": "#2ca02c", "nsa sparse": "#d62728"}


def chart(rows, title):
    """Milliseconds over tokens, both by powers of two, as SVG text."""
    import math
    width, height, left, bottom = 720, 420, 70, 60
    xs = sorted({row["tokens"] for row in rows})
    times = [row["ms"] for row in rows]
    x0, x1 = math.log2(xs[0]), math.log2(xs[-1])
    y0, y1 = math.floor(math.log10(min(times))), math.ceil(math.log10(max(times)))

    def x(n):
        return left + (math.log2(n) - x0) / max(x1 - x0, 1) * (width - left - 150)

    def y(ms):
        return height - bottom - (math.log10(ms) - y0) / max(y1 - y0, 1) * (height - bottom - 50)

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
             f'font-size="12"><rect width="{width}" height="{height}" fill="white"/>'
             f'<text x="{left}" y="24" font-size="14">{title}</text>']
    for decade in range(y0, y1 + 1):
        parts.append(f'<path d="M{left} {y(10**decade):.1f}H{width - 150}" stroke="#e0e0e0"/>'
                     f'<text x="{left - 8}" y="{y(10**decade) + 4:.1f}" text-anchor="end">{10.0**decade:g} ms</text>')
    for n in xs:
        label = f"{n // 1024}K" if n < 1 << 20 else f"{n >> 20}M"
        parts.append(f'<text x="{x(n):.1f}" y="{height - bottom + 20}" text-anchor="middle">{label}</text>')
    parts.append(f'<text x="{(left + width - 150) / 2}" y="{height - 15}" text-anchor="middle">tokens</text>')
    labels = []
    for name, colour in COLOURS.items():
        points = sorted((row["tokens"], row["ms"]) for row in rows if row["contender"] == name)
        if not points:
            continue
        line = " ".join(f"{x(n):.1f},{y(ms):.1f}" for n, ms in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        labels.append((y(points[-1][1]), points[-1][0], name, colour))
    below = 0
    for at, n, name, colour in sorted(labels):  # names beside the ends of their lines, none on another
        below = max(at, below + 14)
        parts.append(f'<text x="{x(n) + 6:.1f}" y="{below + 4:.1f}" fill="{colour}">{name}</text>')
    return "".join(parts) + "</svg>\n"


# ---- the table ----

def limits(text):
    return {name: int(n) for name, n in (part.split("=") for part in text.split(",") if part)}


def measure(saccade, op, n, args):
    """Prints the rows of one length, and gives them."""
    longest = limits(args.longest)
    names = [name for name in args.contenders.split(",") if n <= longest.get(name, n)]
    times = time_interleaved(contenders(saccade, n, names, inputs(n), op == "backward"))
    torch.cuda.empty_cache()
    dense = min((ms for name, ms in times.items() if name in DENSE), default=float("nan"))
    for name, ms in times.items():
        print(f"{op:9}{n:8} {name:14}{ms:12.3f} ms {dense / ms:8.2f} x dense", flush=True)
    rows = [dict(tokens=n, contender=name, op=op, ms=ms) for name, ms in times.items()]
    if args.json:
        with open(args.json, "a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


def known(path):
    """The figures that the file holds already; later ones count."""
    if not path or not os.path.exists(path):
        return []
    with open(path) as file:
        return list(map(json.loads, file))


def print_both(rows):
    """Forward plus backward, where both are known."""
    ms = {(row["op"], row["tokens"], row["contender"]): row["ms"] for row in rows}
    lengths = sorted({n for op, n, _ in ms if op == "backward"})
    for n in lengths:
        sums = {name: ms["forward", n, name] + ms["backward", n, name] for name in (*DENSE, *OURS)
                if ("forward", n, name) in ms and ("backward", n, name) in ms}
        dense = min((x for name, x in sums.items() if name in DENSE), default=float("nan"))
        for name, x in sums.items():
            print(f"{'both':9}{n:8} {name:14}{x:12.3f} ms {dense / x:8.2f} x dense", flush=True)


def draw(path, rows, gpu):
    rows = [row for row in rows if row["op"] == "forward" and row["contender"] in COLOURS]
    if path and rows:
        with open(path, "w") as file:
            file.write(chart(rows, f"Causal attention, forward: H {HEADS}, Hkv {KV_HEADS}, D {DIM}, bf16, {gpu}"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ops", default="forward", help="of forward, backward, stages")
    parser.add_argument("--lengths", default="1024,2048,4096,8192,16384,32768,65536,131072,262144,524288,1048576")
    parser.add_argument("--contenders", default=",".join((*DENSE, *OURS, "graph")))
    parser.add_argument("--longest", default="cuDNN=65536,saccade dense=262144",
                        help="NAME=TOKENS,...: the length at which a contender stops")
    parser.add_argument("--skip-check", action="store_true")
    parser.add_argument("--json", help="append the figures to this file, and draw from all that it holds")
    parser.add_argument("--svg", help="draw the forward's figures of this run, or of --json, here")
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    args = parser.parse_args()
    torch.manual_seed(0)
    saccade, rows, gpu = Saccade(args.library), known(args.json), torch.cuda.get_device_name()
    print(f"{machine()}; H {HEADS}, Hkv {KV_HEADS}, D {DIM}, bf16", flush=True)
    if not args.skip_check:
        check(saccade)
    for n in map(int, args.lengths.split(",")):
        for op in args.ops.split(","):
            if op == "stages":
                print_stages(saccade, n, n <= BACKWARD_STAGES)
            else:
                rows += measure(saccade, op, n, args)
                draw(args.svg, rows, gpu)
    print_both(rows)


if __name__ == "__main__":
    main()
