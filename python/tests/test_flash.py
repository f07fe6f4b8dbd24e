"""flash_attn_func and flash_attn_varlen_func against PyTorch, forward and backward."""

import pytest

torch = pytest.importorskip("torch")
from conftest import assert_close_to_truth  # noqa: E402

from saccade.torch import (  # noqa: E402
    BlockSparseTensors,
    flash_attn_func,
    flash_attn_varlen_func,
    flex_attention,
    get_attention_backend,
)


def qkv(device, nq=70, nk=90, heads=4, kv_heads=2, dim=32, dim_v=32, dtype=torch.float32, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((batch, nq, heads, dim), (batch, nk, kv_heads, dim), (batch, nk, kv_heads, dim_v))
    return [torch.randn(s, generator=generator).to(device, dtype).requires_grad_() for s in shapes]


def plain(q, k, v, visible, softcap=0.0, sink=None):
    """The plain formula in the dtype of its inputs."""
    group = q.shape[2] // k.shape[2]
    k, v = (t.repeat_interleave(group, dim=2) for t in (k, v))
    scores = torch.einsum("bihd,bjhd->bhij", q, k) * q.shape[-1] ** -0.5
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible, -torch.inf)
    if sink is not None:
        scores = torch.cat([scores, sink.to(scores.dtype).view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1)[..., : k.shape[1]].masked_fill(~visible, 0)
    return torch.einsum("bhij,bjhd->bihd", weights, v)


def check_gradients(out, weight, inputs, plain_out, truth_out, truth_inputs):
    grads = torch.autograd.grad((out * weight).sum(), inputs)
    plain_grads = torch.autograd.grad((plain_out * weight).sum(), inputs)
    truths = torch.autograd.grad((truth_out * weight.double()).sum(), truth_inputs)
    for mine, other, truth in zip(grads, plain_grads, truths):
        assert_close_to_truth(mine, other, truth)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [
    dict(), dict(causal=True), dict(causal=True, window_size=(16, 0)), dict(window_size=(8, 8)), dict(softcap=3.0),
], ids=lambda o: "+".join(o) or "full")  # fmt: skip
def test_dense_is_the_plain_formula(device, dtype, options):
    q, k, v = inputs = qkv(device, dtype=dtype)
    i, j = torch.arange(70, device=device)[:, None] + 20, torch.arange(90, device=device)
    left, right = options.get("window_size", (200, 200))
    visible = (j >= i - left) & (j <= i + right)
    if options.get("causal"):
        visible = visible & (j <= i)
    softcap = options.get("softcap", 0.0)
    out = flash_attn_func(*inputs, **options)
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    other, truth = plain(*inputs, visible, softcap), plain(*doubles, visible, softcap)
    assert_close_to_truth(out, other, truth)
    check_gradients(out, torch.randn_like(out), inputs, other, truth, doubles)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sink_takes_its_share_and_has_a_gradient(device, dtype):
    inputs = [*qkv(device), torch.randn(4, device=device, dtype=dtype, requires_grad=True)]
    visible = torch.ones(70, 90, dtype=torch.bool, device=device)
    out = flash_attn_func(*inputs[:3], learnable_sink=inputs[3])
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    other, truth = (plain(*x[:3], visible, sink=x[3]) for x in (inputs, doubles))
    assert_close_to_truth(out, other, truth)
    check_gradients(out, torch.randn_like(out), inputs, other, truth, doubles)


def test_lse_and_its_gradient(device):
    q, k, v = qkv(device)
    _, lse = flash_attn_func(q, k, v, return_lse=True)
    scores = torch.einsum("bihd,bjhd->bhij", q, k.repeat_interleave(2, dim=2)) * q.shape[-1] ** -0.5
    torch.testing.assert_close(lse, scores.logsumexp(-1))
    grads = torch.autograd.grad(lse.sum(), (q, k))
    for mine, theirs in zip(grads, torch.autograd.grad(scores.logsumexp(-1).sum(), (q, k))):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def test_packed_sequences_are_sequences_by_themselves(device):
    lengths = [3, 0, 40, 17]
    cu = torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()], dtype=torch.int32, device=device)
    q, k, v = (t[0].detach().requires_grad_() for t in qkv(device, 60, 60, batch=1))
    out = flash_attn_varlen_func(q, k, v, cu, cu, max_seqlen_q=40, max_seqlen_k=40, causal=True)
    parts = [flash_attn_func(*(t[None, a:b] for t in (q, k, v)), causal=True)[0] for a, b in zip(cu[:-1], cu[1:])]
    torch.testing.assert_close(out, torch.cat(parts))
    grads = torch.autograd.grad(out.square().sum(), (q, k, v))
    for mine, theirs in zip(grads, torch.autograd.grad(torch.cat(parts).square().sum(), (q, k, v))):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("packed", ["", "q", "k"])
def test_padded_sequences_are_packed_ones(device, packed):
    """FlashAttention's tests mix both; seqused says how much of a padded one is used."""
    q, k, v = qkv(device, 20, 30)
    lengths_q, lengths_k = (torch.tensor(n, dtype=torch.int32, device=device) for n in ([20, 13], [30, 17]))

    def cu(lengths):
        return torch.nn.functional.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))

    def of(tensor, lengths):
        return torch.cat([tensor[b, :n] for b, n in enumerate(lengths.tolist())])

    tensors = of(q, lengths_q), of(k, lengths_k), of(v, lengths_k)
    expected, expected_lse = flash_attn_varlen_func(
        *tensors, cu(lengths_q), cu(lengths_k), 20, 30, causal=True, return_lse=True)  # fmt: skip
    options = dict(causal=True, return_lse=True)
    if packed != "q":
        tensors, options["seqused_q"] = (q, *tensors[1:]), lengths_q
    else:
        options.update(cu_seqlens_q=cu(lengths_q), max_seqlen_q=20)
    if packed != "k":
        tensors, options["seqused_k"] = (tensors[0], k, v), lengths_k
    else:
        options.update(cu_seqlens_k=cu(lengths_k), max_seqlen_k=30)
    out, lse = flash_attn_varlen_func(*tensors, **options)
    if packed != "q":
        assert out.shape == (2, 20, 4, 32) and lse.shape == (2, 4, 20) and not out[1, 13:].any()
        out, lse = of(out, lengths_q), of(lse.transpose(1, 2), lengths_q).transpose(0, 1)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(lse, expected_lse)
    for mine, other in zip(*(torch.autograd.grad(o.square().sum(), (q, k, v)) for o in (out, expected))):
        torch.testing.assert_close(mine, other)


def test_agrees_with_scaled_dot_product_attention(device):
    q, k, v = (t.detach() for t in qkv(device, 64, 64))
    out = flash_attn_func(q, k, v, causal=True)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in (q, k, v)), is_causal=True, enable_gqa=True)  # fmt: skip
    torch.testing.assert_close(out, theirs.transpose(1, 2))


def test_gradcheck_in_fp64_through_the_reference():
    inputs = qkv("cpu", 3, 4, heads=2, kv_heads=1, dim=8, dim_v=16, batch=1)
    q, k, v = (t.detach().double().requires_grad_() for t in inputs)

    def f(q, k, v):
        return flash_attn_func(q, k, v, causal=True, backend="reference")

    # The saved lse is fp32, so the analytic gradient has fp32's accuracy.
    assert torch.autograd.gradcheck(f, (q, k, v), atol=1e-5, rtol=1e-4)


def test_compiles_without_break_and_without_recompiling_over_20_lengths(device):
    count = 0

    def backend(graph, _):
        nonlocal count
        count += 1
        return graph.forward

    def doubled(q, k, v):
        return flash_attn_func(q, k, v, causal=True) * 2

    torch._dynamo.reset()
    compiled = torch.compile(doubled, fullgraph=True, dynamic=True, backend=backend)
    for n in range(40, 60):
        q, k, v = (t.detach() for t in qkv(device, n, n))
        torch.testing.assert_close(compiled(q, k, v), doubled(q, k, v))
    assert count == 1


def test_compiles_with_numbers_that_torch_holds_as_symbols(device):
    scale, softcap = 0.3, 5.0

    def capped(q, k, v):
        return flash_attn_func(q, k, v, softmax_scale=scale, softcap=softcap)

    torch._dynamo.reset()
    q, k, v = (t.detach() for t in qkv(device, 20, 20))
    compiled = torch.compile(capped, fullgraph=True, dynamic=True, backend="eager")
    torch.testing.assert_close(compiled(q, k, v), capped(q, k, v))


def test_operators_pass_torchs_own_checks():
    from saccade.torch._ops import attention_forward
    from saccade.torch._spec import Options, Spec, spec_text

    q, k, v = qkv("cpu", 5, 5)
    spec = spec_text(Spec(Options(causal="top_left")))
    torch.library.opcheck(attention_forward, (q, k, v, None, [], [], spec, [0, 0], 0))


def test_python_functions_are_modifiers(device):
    q, k, v = (t.detach() for t in qkv(device, 64, 64))
    mods = dict(score_mod=lambda s, b, h, i, j: s - 0.1 * (i - j), mask_mod=lambda b, h, i, j: i >= j)
    out = flash_attn_func(q, k, v, **mods)
    text = flash_attn_func(q, k, v, mask_mod="q_idx >= kv_idx")
    torch.testing.assert_close(text, flash_attn_func(q, k, v, causal=True))
    slopes = torch.full((4,), 0.1, device=device)
    torch.testing.assert_close(out, flash_attn_func(q, k, v, causal=True, alibi_slopes=slopes))


def test_flash_attentions_own_block_tensors(device):
    q, k, v = (t.detach() for t in qkv(device, 64, 64))
    counts = torch.tensor([[[1, 0]]], dtype=torch.int32, device=device).expand(1, 1, 2)
    partial, full = (torch.tensor([[[[a, 0], [b, 0]]]], dtype=torch.int32, device=device) for a, b in ((0, 1), (0, 0)))
    lists = BlockSparseTensors(torch.ones_like(counts), partial, 1 - counts, full, (32, 32))
    out = flash_attn_func(q, k, v, mask_mod=lambda b, h, i, j: i >= j, block_sparse_tensors=lists)
    torch.testing.assert_close(out, flash_attn_func(q, k, v, causal=True))
    with pytest.raises(ValueError, match="need their block_size"):
        flash_attn_func(q, k, v, block_sparse_tensors=lists._replace(block_size=None))


def test_functions_get_the_aux_tensors_that_are_given(device):
    q, k, v = (t.detach() for t in qkv(device, 64, 64))
    bias, limit = torch.randn(4, device=device, requires_grad=True), torch.arange(64, device=device)
    out = flash_attn_func(
        q, k, v, aux_tensors=[bias, limit], score_mod=lambda s, b, h, i, j, aux: s + aux[0][h] * j,
        mask_mod=lambda b, h, i, j, aux: j <= aux[1][i])  # fmt: skip
    captured = flash_attn_func(q, k, v, score_mod=lambda s, b, h, i, j: s + bias[h] * j, causal=True)
    torch.testing.assert_close(out, captured)
    # On a GPU the pairs' shares are added in any order, in fp32.
    grads = (torch.autograd.grad(o.square().sum(), bias)[0] for o in (out, captured))
    torch.testing.assert_close(*grads, atol=1e-4, rtol=1e-4)


def test_what_cannot_be_served_says_why():
    q, k, v = qkv("cpu", 4, 4, dim=260, dim_v=260)
    with pytest.raises(NotImplementedError, match="num_splits: 4"):
        flash_attn_func(q, k, v, num_splits=4)
    with pytest.raises(NotImplementedError, match="260"):
        flash_attn_func(q, k, v)
    reports = get_attention_backend(q, k, v)
    assert any("260" in reason for report in reports for reason in report.reasons)


def test_dispatch_modes_see_the_operators():
    """Selective checkpointing and flop counters work through these modes."""

    class Log(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            names.append(str(function))
            return function(*args, **(kwargs or {}))

    names, inputs = [], qkv("cpu", 5, 5)
    with Log():
        torch.autograd.grad(flash_attn_func(*inputs).sum(), inputs)
    ours = [name for name in names if name.startswith("saccade")]
    assert ours == ["saccade.attention_forward.default", "saccade.attention_backward.default"]


def test_flops_are_counted_as_those_of_torchs_attention():
    def flops(function, inputs):
        with torch.utils.flop_counter.FlopCounterMode(display=False) as counter:
            function(*inputs).sum().backward()
        return counter.get_total_flops()

    inputs = qkv("cpu", 64, 96, kv_heads=4)
    expected = 2 * 2 * 4 * 64 * 96 * 32 * (2 + 5)  # pairs of two batch entries, four heads; seven products
    heads_first = [t.detach().transpose(1, 2).requires_grad_() for t in inputs]
    assert flops(flash_attn_func, inputs) == flops(flex_attention, heads_first) == expected
    cu_q, cu_k = (torch.tensor([0, n, 2 * n], dtype=torch.int32) for n in (64, 96))
    packed = [t.detach().flatten(0, 1).requires_grad_() for t in inputs]
    assert flops(lambda q, k, v: flash_attn_varlen_func(q, k, v, cu_q, cu_k, 64, 96), packed) == expected


def test_exports_with_a_length_that_stays_open(device):
    class Attention(torch.nn.Module):
        def forward(self, q, k, v):
            return flash_attn_func(q, k, v, causal=True)

    length = torch.export.Dim("length", min=2, max=4096)
    example = [t.detach() for t in qkv(device, nq=40, nk=40)]
    program = torch.export.export(Attention(), tuple(example), dynamic_shapes=({1: length},) * 3)
    other = [t.detach() for t in qkv(device, nq=77, nk=77, seed=1)]
    assert torch.equal(program.module()(*other), Attention()(*other))
