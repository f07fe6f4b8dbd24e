"""Dense backward attention on one GPU beside its fastest peers, under two protocols. Prints one table.

    python bench/gpu/bench_backward.py [--backend cuda-sm90] [--peers cudnn,fa4] [--only 128,64] [--short]

The protocols, steady and burst, are those of protocols.py. FLOP: 2.5 forwards, 5 B H Nq Nk (D + Dv), half of it causal.
The best and the worst of the rounds are printed. Peers run what torch.autograd.grad calls for dq, dk and dv; error is
the largest of |x - exact| / |exact| over out and the gradients, of 1024 tokens.
"""
from torch.nn.attention import SDPBackend

from bench_attention import check, fa4_contender, random_inputs, torch_contender
from protocols import run

PEERS = {"cudnn": lambda *tensors: torch_contender(SDPBackend.CUDNN_ATTENTION, *tensors), "fa4": fa4_contender}


def contenders_of(saccade, args, shape, causal):
    q, k, v = random_inputs(shape)
    forward, backward, _ = saccade.attention(q, k, v, causal=int(causal), backend=args.backend.encode())
    forward()
    contenders = [(args.backend, backward)]
    for name in (peer for peer in args.peers.split(",") if peer):
        try:
            peer = PEERS[name](q, k, v, causal)[1]
            peer()
            contenders.append((name, peer))
        except Exception as error:  # a peer that does not serve a shape has no row
            print(f"# {name}: {str(error).splitlines()[0][:150]}", flush=True)
    return contenders, lambda: check(saccade, args.backend, shape, causal)


if __name__ == "__main__":
    run(__doc__, 2.5, contenders_of)
