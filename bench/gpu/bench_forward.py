"""Dense forward attention on one GPU beside its fastest peers, under two protocols. Prints one table.

    python bench/gpu/bench_forward.py [--backend cuda-sm90] [--peers cudnn,fa4] [--only 128,64]
                                        [--halved] [--short] [--longer 64K,1024K] [--csv FILE]

The protocols, steady and burst, are those of protocols.py. FLOP: 2 B H Nq Nk (D + Dv), half of it causal. The best and
the worst of the rounds are printed.
"""
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from protocols import run


def cudnn(q, k, v, causal):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    gqa = q.shape[1] != k.shape[1]

    def forward():
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=gqa)

    return forward


def fa4(q, k, v, causal):
    from flash_attn.cute import flash_attn_func
    return lambda: flash_attn_func(q, k, v, causal=causal)


PEERS = {"cudnn": cudnn, "fa4": fa4}


def error_of(out, q, k, v, causal):
    """|out - exact| / |exact| over rows at both ends of the first head of the first batch, exact in fp32 arithmetic."""
    n = q.shape[1]
    rows = torch.cat([torch.arange(512), torch.arange(n - 512, n)]).cuda()
    out = out[0, rows, 0].float()
    scores = q[0, rows, 0].float() @ k[0, :, 0].float().T * q.shape[-1] ** -0.5
    if causal:
        scores = scores.masked_fill(torch.arange(n, device="cuda") > rows[:, None], float("-inf"))
    exact = scores.softmax(-1) @ v[0, :, 0].float()
    return ((out - exact).norm() / exact.norm()).item()


def contenders_of(saccade, args, shape, causal):
    b, n, h, hkv, d, dv = shape
    q, k, v = (torch.randn(b, n, heads, dim, dtype=torch.bfloat16, device="cuda")
               for heads, dim in ((h, d), (hkv, d), (hkv, dv)))
    ours, _, results = saccade.attention(q, k, v, training=False, causal=int(causal), backend=args.backend.encode())
    peers = [(name, PEERS[name](q, k, v, causal)) for name in args.peers.split(",") if name]
    return [(args.backend, ours), *peers], lambda: error_of(results["out"], q, k, v, causal)


if __name__ == "__main__":
    run(__doc__, 1, contenders_of)
