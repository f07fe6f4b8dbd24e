"""Masks and modifiers on one GPU: ours, and beside them FlashAttention-4 and FlexAttention. Prints one table, in ms.

    python bench/gpu/bench_masks.py [--backward [--deterministic]] [--cases causal,softcap] [--peers fa4,flash,flex]
                                    [--tokens 32768] [--rounds 5]

One batch entry, 16 heads, D 128, bf16, random data. Contenders take turns, ten calls at a time after ten of warm-up;
the median of the rounds is printed, and for ours what it costs over the plain causal kernel and the error of out, or of
dq, against fp32 over the first rows and the last of one head. fa4 is FlashAttention-4's own function, flash and flex
are FlexAttention with its backends FLASH and Triton; one that is not installed, or that refuses a case, is said to.
"""
import argparse
import ctypes as c
import statistics

import torch

from protocols import machine, timed
from saccade_ctypes import BoundModifier, MaskShape, Saccade, Window, tensor

HEADS, DIM, DOCUMENT, WINDOW = 16, 128, 2048, 1024
SLOPES = [2.0 ** (-8 * (h + 1) / HEADS) for h in range(HEADS)]


# What a pair may see, and what is done to its score: for the check, and traced by FlexAttention.
def causal(b, h, i, j):
    return i >= j


def windowed(b, h, i, j):
    return (i >= j) & (i - j < WINDOW)


def documents(b, h, i, j):
    return (i >= j) & (i // DOCUMENT == j // DOCUMENT)


def eagle3_of(n):
    def eagle3(b, h, i, j):
        return ((j < n) & (i >= j)) | ((j >= n) & ((j - i) % n == 0))
    return eagle3


def softcapped(score, b, h, i, j):
    return 30 * torch.tanh(score / 30)


def alibi(score, b, h, i, j):
    return score - torch.exp2(-8 * (h + 1) / HEADS) * (i - j).abs()


class Case:
    """How each contender is told of the mask: ours by options, FA4 by arguments, FlexAttention by functions."""

    def __init__(self, mask, options, score=None, fa4=None, rounds=1, packed=False):
        self.mask, self.options, self.score = mask, options, score
        self.fa4, self.rounds, self.packed = fa4, rounds, packed


def cases_of(saccade, n):
    plain = {"causal": 1}
    ends = torch.arange(0, n + 1, DOCUMENT, dtype=torch.int32, device="cuda")
    slopes = torch.tensor(SLOPES, device="cuda")
    packed = dict(cu_seqlens_q=tensor(ends), cu_seqlens_k=tensor(ends), max_seqlen_q=DOCUMENT, max_seqlen_k=DOCUMENT)
    shape = MaskShape(1, 1, n, n, 128, 128)
    narrow = MaskShape(1, 1, n, n, 128, 64)
    wide = MaskShape(1, 1, n, 5 * n, 128, 128)
    sizes = (c.c_int32 * (n // DOCUMENT))(*[DOCUMENT] * (n // DOCUMENT))

    def blocks(name, shape, *args):
        return {"block_mask": saccade.block_mask(name, shape, *args)}

    hole = saccade.modifier(2, "q_idx - kv_idx != 1000")
    result = {
        "causal": Case(causal, plain, fa4={}),
        "causal as blocks": Case(causal, blocks("causal", shape, False)),
        "blocks of 64 keys": Case(causal, blocks("causal", narrow, False)),
        "softcap": Case(causal, plain | {"softcap": 30.0}, softcapped, fa4={"softcap": 30.0}),
        "alibi": Case(causal, plain | {"alibi_slopes": tensor(slopes)}, alibi),
        "mask_mod": Case(lambda b, h, i, j: (i >= j) & (i - j != 1000), plain | {"mask_mod": BoundModifier(hole)}),
        "window": Case(windowed, plain | {"window": Window(True, WINDOW - 1, -1, 0)},
                       fa4={"window_size": (WINDOW - 1, 0)}),
        "documents packed": Case(documents, plain | packed, packed=True,
                                 fa4=dict(cu_seqlens_q=ends, cu_seqlens_k=ends,
                                          max_seqlen_q=DOCUMENT, max_seqlen_k=DOCUMENT)),
        "documents as blocks": Case(documents, plain | blocks("documents", shape, sizes, len(sizes))),
        "eagle3": Case(eagle3_of(n), blocks("eagle3", wide, None), rounds=5),
    }
    for case in result.values():
        case.keep = (ends, slopes, sizes)  # options hold addresses alone
    return result


def fa4(case, q, k, v):
    from flash_attn.cute import flash_attn_func, flash_attn_varlen_func
    if case.fa4 is None:
        raise NotImplementedError("no argument for it")
    function, given = (flash_attn_varlen_func, (q[0], k[0], v[0])) if case.packed else (flash_attn_func, (q, k, v))

    def forward():
        out = function(*given, causal=True, **case.fa4)
        return out[0] if isinstance(out, tuple) else out
    return forward


def flex_on(options):
    def make(case, q, k, v):
        from torch.nn.attention.flex_attention import create_block_mask, flex_attention
        block = create_block_mask(case.mask, None, None, q.shape[1], k.shape[1], device="cuda")
        compiled = torch.compile(flex_attention, dynamic=False)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return lambda: compiled(q, k, v, score_mod=case.score, block_mask=block, kernel_options=options)
    return make


PEERS = {"fa4": fa4, "flash": flex_on({"BACKEND": "FLASH"}), "flex": flex_on({})}


def exact_rows(case, q, k, v, dout, rows, h):
    """Rows of out of head h, or, where dout is given, of dq, in fp32."""
    columns = torch.arange(k.shape[1], device="cuda")[None, :]
    head = torch.tensor(h, device="cuda")
    q_rows = q[0, rows, h].float().requires_grad_()
    scores = q_rows @ k[0, :, h].float().T * DIM**-0.5
    if case.score:
        scores = case.score(scores, 0, head, rows[:, None], columns)
    scores = scores.masked_fill(~case.mask(0, head, rows[:, None], columns), float("-inf"))
    out = scores.softmax(-1) @ v[0, :, h].float()
    return out if dout is None else torch.autograd.grad(out, q_rows, dout.reshape(-1, HEADS, DIM)[rows, h].float())[0]


def error_of(result, case, q, k, v, dout=None):
    """|result - exact| / |exact| over rows at both ends of head 1."""
    n, h = q.shape[1], 1
    rows = torch.cat([torch.arange(64), torch.arange(n - 64, n)]).cuda()
    exact = exact_rows(case, q, k, v, dout, rows, h)
    return ((result.reshape(n, HEADS, DIM)[rows, h].float() - exact).norm() / exact.norm()).item()


def backward_of(forward, tensors):
    out = forward()
    dout = torch.randn_like(out)
    return lambda: torch.autograd.grad(out, tensors, dout, retain_graph=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backward", action="store_true")
    parser.add_argument("--deterministic", action="store_true", help="ours, not the peers'")
    parser.add_argument("--cases", default="", help="comma-separated; default: all")
    parser.add_argument("--peers", default="")
    parser.add_argument("--library", help="libsaccade.so; default build/libsaccade.so")
    parser.add_argument("--tokens", type=int, default=32768, help="queries; eagle3 takes half as many")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.manual_seed(0)
    saccade = Saccade(args.library)
    print(machine() + "; bf16, random data; milliseconds")
    plain = None
    names = [x for x in args.cases.split(",") if x] or list(cases_of(saccade, DOCUMENT))
    for name in names:
        n = args.tokens // (2 if name == "eagle3" else 1)
        case = cases_of(saccade, n)[name]
        q, k, v = (torch.randn(1, n * r, HEADS, DIM, dtype=torch.bfloat16, device="cuda").requires_grad_(args.backward)
                   for r in (1, case.rounds, case.rounds))
        given = [x[0] for x in (q, k, v)] if case.packed else (q, k, v)
        forward, backward, results = saccade.attention(*given, training=args.backward, backend=b"cuda-sm90",
                                                       deterministic=args.deterministic, **case.options)
        ours = backward if args.backward else forward
        forward()
        contenders, refused = {"saccade": ours}, {}
        for peer in args.peers.split(","):
            if not peer:
                continue
            try:
                call = PEERS[peer](case, q, k, v)
                contenders[peer] = backward_of(call, (q, k, v)) if args.backward else call
                contenders[peer]()
            except Exception as reason:  # whatever it is, the others are measured
                contenders.pop(peer, None)
                refused[peer] = str(reason).split("\n")[0][:60]
        ours()
        result, dout = (results["dq"], results["dout"]) if args.backward else (results["out"], None)
        error = error_of(result, case, q, k, v, dout)
        samples = {peer: [] for peer in contenders}
        for r in range(args.rounds):
            order = list(contenders)[r % len(contenders):] + list(contenders)[:r % len(contenders)]
            for peer in order:
                timed(contenders[peer], 10)
                samples[peer].append(timed(contenders[peer], 10) * 1e3)
        best = {peer: statistics.median(x) for peer, x in samples.items()}
        plain = plain or (best["saccade"] if name == "causal" else None)
        over = f"{best['saccade'] / plain - 1:+6.1%}" if plain else ""
        peers = "  ".join([f"{p} {x:.3f}" for p, x in best.items() if p != "saccade"] +
                          [f"{p}: {x}" for p, x in refused.items()])
        print(f"{name:20} {n:6} {best['saccade']:8.3f} {over:>7}  {error:.1e}  {peers}", flush=True)
        del q, k, v, given, forward, backward, results, result, dout, ours, contenders


if __name__ == "__main__":
    main()
