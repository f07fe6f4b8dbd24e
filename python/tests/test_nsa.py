"""nsa against its definition written in PyTorch, the selection taken from the call itself."""

import math

import pytest

torch = pytest.importorskip("torch")

from saccade.torch import nsa  # noqa: E402

H, HKV, D, BLOCK = 4, 2, 32, 16


def inputs(device, n, seed=0, batch=2):
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape, factor=1.0):
        return (torch.randn(shape, generator=generator) * factor).to(device).requires_grad_()

    return dict(q=rand(batch, n, H, D), k=rand(batch, n, HKV, D), v=rand(batch, n, HKV, D)), dict(
        w_k=rand(HKV, D, D, factor=0.2), w_v=rand(HKV, D, D, factor=0.2), w_gate=rand(H, 3, D, factor=0.2))


def attend(q, k, v, visible):
    k, v = (t.repeat_interleave(H // HKV, dim=2) for t in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) / math.sqrt(D)
    scores = scores.masked_fill(~visible, -1e30)
    weights = torch.exp(scores - scores.amax(-1, keepdim=True)) * visible
    return torch.einsum("bhij,bjhd->bihd", weights / weights.sum(-1, keepdim=True).clamp_min(1e-30), v)


def definition(tokens, weights, indices, query_tile, window):
    q, k, v = (t.double() for t in tokens.values())
    w_k, w_v, w_gate = (t.double() for t in weights.values())
    batch, n = q.shape[:2]
    count = n // BLOCK
    means = [t[:, : count * BLOCK].unflatten(1, (count, BLOCK)).mean(2) for t in (k, v)]
    k_cmp, v_cmp = (torch.einsum("bnhd,hde->bnhe", m, w) for m, w in zip(means, (w_k, w_v)))
    j, blocks = torch.arange(n, device=q.device), torch.arange(count, device=q.device)
    i = j[:, None]
    chosen = torch.zeros(batch, indices.shape[1], indices.shape[2], n // BLOCK + 2, dtype=torch.bool, device=q.device)
    chosen.scatter_(-1, torch.where(indices < 0, n // BLOCK + 1, indices).long(), True)
    chosen = chosen.repeat_interleave(H // indices.shape[1], 1).repeat_interleave(query_tile, 2)[:, :, :n]
    selected = chosen.repeat_interleave(BLOCK, -1)[..., :n] & (j <= i)
    branches = [attend(q, k_cmp, v_cmp, (blocks + 1) * BLOCK - 1 <= i), attend(q, k, v, selected),
                attend(q, k, v, (j <= i) & (i - j < window))]  # fmt: skip
    gates = torch.sigmoid(torch.einsum("bihd,hcd->bihc", q, w_gate))
    return sum(gates[..., c : c + 1] * branches[c] for c in range(3))


@pytest.mark.parametrize("keep_outputs", [False, True])
@pytest.mark.parametrize("query_tile", [1, 32])
def test_nsa_and_its_gradients_are_the_definition(device, query_tile, keep_outputs):
    tokens, weights = inputs(device, 150)
    options = dict(block=BLOCK, top_k=4, window=24, query_tile=query_tile)
    out, indices = nsa(*tokens.values(), **weights, **options, keep_outputs=keep_outputs, return_indices=True)
    expected = definition(tokens, weights, indices, query_tile, 24)
    torch.testing.assert_close(out.double(), expected, atol=3e-6, rtol=1e-4)
    everything = (*tokens.values(), *weights.values())
    weight = torch.randn_like(out)
    grads = torch.autograd.grad((out * weight).sum(), everything)
    for mine, truth in zip(grads, torch.autograd.grad((expected * weight).sum(), everything)):
        torch.testing.assert_close(mine, truth, atol=2e-5, rtol=1e-3)


def test_packed_sequences_are_sequences_by_themselves(device):
    tokens, weights = inputs(device, 200, batch=1)
    q, k, v = (t[0] for t in tokens.values())
    cu = torch.tensor([0, 70, 70, 200], dtype=torch.int32, device=device)
    options = dict(block=BLOCK, top_k=4, window=24, query_tile=32, **weights)
    out = nsa(q, k, v, cu_seqlens=cu, max_seqlen=130, **options)
    parts = [nsa(*(t[None, a:b] for t in (q, k, v)), **options)[0] for a, b in ((0, 70), (70, 200))]
    torch.testing.assert_close(out, torch.cat(parts))


def test_past_outputs_do_not_see_the_future(device):
    tokens, weights = inputs(device, 160, batch=1)
    q, k, v = (t.detach() for t in tokens.values())
    options = dict(block=BLOCK, top_k=4, window=24, query_tile=1, **weights)
    before = nsa(q, k, v, **options)
    for t in (q, k, v):
        t[:, 101:] = torch.randn_like(t[:, 101:])
    after = nsa(q, k, v, **options)
    assert torch.equal(before[:, :101], after[:, :101]) and not torch.equal(before[:, 101:], after[:, 101:])


def test_autocast_lowers_the_weights_too(device):
    tokens, weights = inputs(device, 100)
    options = dict(block=BLOCK, top_k=4, window=24, query_tile=32)
    with torch.autocast(device, torch.bfloat16):
        out = nsa(*tokens.values(), **weights, **options)
    lowered = [{name: t.bfloat16() for name, t in part.items()} for part in (tokens, weights)]
    assert torch.equal(out, nsa(*lowered[0].values(), **lowered[1], **options))
    assert all(g.dtype == torch.float32 for g in torch.autograd.grad(out.float().sum(), list(weights.values())))


def test_compiles_whole(device):
    tokens, weights = inputs(device, 100)
    call = lambda q, k, v: nsa(q, k, v, block=BLOCK, top_k=4, window=24, query_tile=32, **weights)  # noqa: E731
    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    out = compiled(*tokens.values())
    torch.testing.assert_close(out, call(*tokens.values()))
    out.sum().backward()
    assert tokens["q"].grad is not None


def test_exports_with_a_length_that_stays_open(device):
    class Attention(torch.nn.Module):
        def forward(self, q, k, v):
            return nsa(q, k, v, block=BLOCK, top_k=4, window=24, query_tile=32)

    def example(n):
        return tuple(t.detach() for t in inputs(device, n)[0].values())

    length = torch.export.Dim("length", min=64, max=4096)  # two tiles of queries
    program = torch.export.export(Attention(), example(128), dynamic_shapes=({1: length},) * 3)
    assert torch.equal(program.module()(*example(77)), Attention()(*example(77)))


def test_flops_are_those_of_the_keys_that_the_branches_visit():
    tokens, _ = inputs("cpu", 100)
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
        nsa(*tokens.values(), block=BLOCK, top_k=4, window=24, query_tile=32).sum().backward()
    # Two batch entries, four heads; six compressed keys, four blocks and the window; seven products.
    assert counter.get_total_flops() == 2 * 2 * 4 * 100 * (6 + 4 * BLOCK + 24) * D * (2 + 5)


def test_errors_name_the_argument():
    tokens, _ = inputs("cpu", 40)
    with pytest.raises(ValueError, match="visibility"):
        nsa(*tokens.values(), visibility="all")
    with pytest.raises(ValueError, match="top_k"):
        nsa(*tokens.values(), top_k=2, initial_blocks=2)
