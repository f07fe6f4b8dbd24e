"""Prints figures that bench_forward.py or bench_backward.py wrote with --csv as a table in Markdown: the better round
of each contender, and how many times the fastest peer ours is.

    python bench/gpu/markdown.py FILE
"""
import csv
import sys

PROTOCOLS = ("steady", "burst")


def tokens(n):
    return f"{n >> 20} M" if n >= 1 << 20 else f"{n >> 10} K"


def read(path):
    """TFLOP/s by case, protocol and contender, ours first."""
    figures = {}
    with open(path, newline="") as file:
        for r in csv.DictReader(file):
            b, n, h, hkv, d, dv = (int(r[x]) for x in ("B", "N", "H", "Hkv", "D", "Dv"))
            case = (f"{b} x {tokens(n)}, {h if h == hkv else f'{h}/{hkv}'}, {d if d == dv else f'{d}/{dv}'}", r["mask"])
            figures.setdefault(case, {x: {} for x in PROTOCOLS})[r["protocol"]][r["contender"]] = float(r["best"])
    return figures


def cells(figures, contenders):
    ours, *peers = (figures.get(name) for name in contenders)
    fastest = max(x for x in peers if x)
    return [f"{x:.0f}" if x else "" for x in (ours, *peers)] + [f"{ours / fastest:.2f}x"]


if __name__ == "__main__":
    figures = read(sys.argv[1])
    contenders = list(dict.fromkeys(name for case in figures.values() for name in case["steady"]))
    titles = [f"{protocol}: saccade" if i == 0 else name for protocol in PROTOCOLS
              for i, name in enumerate((*contenders, "ratio"))]
    print("| B x tokens, heads, D | mask | " + " | ".join(titles) + " |")
    print("|" + "---|" * (2 + len(titles)))
    for case, by_protocol in figures.items():
        print("| " + " | ".join([*case, *(x for p in PROTOCOLS for x in cells(by_protocol[p], contenders))]) + " |")
