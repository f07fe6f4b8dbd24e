"""What the benchmarks of one pass share: shapes, the two protocols, and the table.

Fast kernels run at the GPU's power limit, so that a figure means nothing without its protocol:
  steady   0.5 s of the same contender as warm-up, then 0.4 s measured; --seconds takes less, warm-up and all
  burst    three calls after 0.4 s of idling
Contenders take turns; every round starts with another one, since each runs on the heat that the one before left. A call
of a second is its own warm-up: it is made once, and that is its figure.
"""
import argparse
import csv
import subprocess
import time

import torch

from saccade_ctypes import Saccade

# B, N, H, Hkv, D, Dv
LONG = [(1, 16384, 16, 16, 128, 128), (1, 16384, 32, 32, 64, 64), (1, 16384, 16, 16, 192, 128),
        (1, 16384, 8, 8, 256, 256)]
SHORT = [(1, 2048, 32, 8, 128, 128), (1, 4096, 32, 8, 128, 128)]

SECONDS_OF_WORK = 3e14  # flop


def machine():
    gpu = subprocess.run(["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"],
                         capture_output=True, text=True).stdout.strip()
    return f"# {gpu}; torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"


def timed(call, calls):
    """Seconds a call."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000 / calls


def steady(call, seconds=0.4):
    one = timed(call, 2)
    timed(call, max(1, int(1.25 * seconds / one)))
    return timed(call, max(3, int(seconds / one)))


def burst(call):
    torch.cuda.synchronize()
    time.sleep(0.4)
    return timed(call, 3)


def measure(contenders, rounds, seconds, flop):
    """TFLOP/s of the (name, call) pairs: by name, the rounds' steady figures and those of bursts."""
    if flop > SECONDS_OF_WORK:  # for kernels that shorter sequences have had compiled
        return {name: ([flop / timed(call, 1) / 1e12],) * 2 for name, call in contenders}
    for _, call in contenders:  # compiles and plans, so that no warm-up is cut short by it
        call()
    figures = {name: ([], []) for name, _ in contenders}
    for protocol, seconds_of in enumerate((lambda call: steady(call, seconds), burst)):
        for r in range(rounds):
            for name, call in contenders[r:] + contenders[:r]:
                figures[name][protocol].append(flop / seconds_of(call) / 1e12)
    return figures


def parse(description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="cuda-sm90")
    parser.add_argument("--peers", default="cudnn", help="of cudnn, fa4")
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    parser.add_argument("--only", default="", help="head dims, for example 128,64; 0: only what the next three add")
    parser.add_argument("--halved", action="store_true", help="also two sequences of 8 K tokens instead of one of 16 K")
    parser.add_argument("--short", action="store_true", help="also 2 K and 4 K tokens, grouped heads, causal")
    parser.add_argument("--longer", default="", help="also so many tokens, grouped heads, causal: 64K,1024K")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.4, help="measured by the steady protocol")
    parser.add_argument("--csv", type=argparse.FileType("w"), help="the same figures for programs")
    return parser.parse_args()


def cases_of(args):
    """Pairs of a shape and whether it is causal."""
    only = [int(x) for x in args.only.split(",") if x]
    long = [s for s in LONG if not only or s[4] in only]
    halves = [(2 * b, n // 2, *rest) for b, n, *rest in long]
    longer = [(1, int(x.removesuffix("K")) * 1024, 32, 8, 128, 128) for x in args.longer.split(",") if x]
    return ([(s, causal) for s in long for causal in (False, True)] + [(s, True) for s in args.short * SHORT] +
            [(s, causal) for s in args.halved * halves for causal in (False, True)] + [(s, True) for s in longer])


class Table:
    """Printed, best and worst of the rounds; and with --csv written."""

    def __init__(self, file):
        self.machine, self.file = machine().removeprefix("# "), file
        print(machine() + "; bf16, random data; TFLOP/s")
        print(f"{'B':>2}{'N':>7} {'H/Hkv':>6} {'D':>8} {'mask':6} {'contender':10}{'steady':>12}{'burst':>12}  error")
        self.write("machine B N H Hkv D Dv mask contender protocol best worst error".split())

    def write(self, row):
        if self.file:
            csv.writer(self.file).writerow(row)
            self.file.flush()

    def add(self, shape, mask, name, samples, error):
        b, n, h, hkv, d, dv = shape
        steady, bursts = (f"{max(x):.0f} / {min(x):.0f}" for x in samples)
        print(f"{b:2}{n:7} {f'{h}/{hkv}':>6} {f'{d}/{dv}':>8} {mask:6} {name:10}{steady:>12}{bursts:>12}  {error}",
              flush=True)
        for protocol, x in zip(("steady", "burst"), samples):
            self.write((self.machine, *shape, mask, name, protocol, f"{max(x):.1f}", f"{min(x):.1f}", error))


def run(description, products, contenders_of):
    """The table. products: flop of a call over 2 B H Nq Nk (D + Dv), of which causal counts half.
    contenders_of(saccade, args, shape, causal) gives a list of (name, call), the first of them ours, and a function
    that says its error, once it was called."""
    args = parse(description)
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    saccade = Saccade(args.library)
    table = Table(args.csv)
    for shape, causal in cases_of(args):
        b, n, h, hkv, d, dv = shape
        contenders, error_of = contenders_of(saccade, args, shape, causal)
        flop = products * 2 * b * h * n * n * (d + dv) * (0.5 if causal else 1)
        figures = measure(contenders, args.rounds, args.seconds, flop)
        for name, samples in figures.items():
            error = f"{error_of():.1e}" if name == args.backend else ""
            table.add(shape, "causal" if causal else "full", name, samples, error)
        del contenders, figures, error_of
        torch.cuda.empty_cache()
