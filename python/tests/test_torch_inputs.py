"""What people hand to a PyTorch function: odd strides, some gradients, nothing at all, and what must be refused."""

import pytest

torch = pytest.importorskip("torch")
from test_flash import qkv  # noqa: E402
from torch.autograd import forward_ad  # noqa: E402
from torch.nn.attention import flex_attention as theirs  # noqa: E402

from saccade.torch import (  # noqa: E402
    create_block_mask,
    eagle3_block_mask,
    flash_attn_func,
    flash_attn_varlen_func,
    flex_attention,
    get_attention_backend,
    nsa,
    to_torch_block_mask,
)


def heads_first(*tensors):
    return [t.transpose(1, 2) for t in tensors]


def causal(b, h, q, kv):
    return q >= kv


# -- served --


def test_slices_of_one_projection_are_read_where_they_lie(device):
    projected = torch.randn(2, 33, 3, 4, 16, device=device, requires_grad=True)
    results = []
    for parts in (projected.unbind(2), [t.contiguous() for t in projected.unbind(2)]):
        out = flash_attn_func(*parts, causal=True)
        results.append((out, *torch.autograd.grad(out.square().sum(), projected)))
    for strided, packed in zip(*results):
        torch.testing.assert_close(strided, packed, atol=0, rtol=0)


def test_shared_keys_may_be_expanded(device):
    q, k, v = (t.detach() for t in qkv(device))
    k, v = (t[:1].expand(2, -1, -1, -1) for t in (k, v))
    torch.testing.assert_close(flash_attn_func(q, k, v), flash_attn_func(q, k.contiguous(), v.contiguous()))


@pytest.mark.parametrize("asking", range(4), ids=["q", "k", "v", "sink"])
def test_one_input_that_asks_for_a_gradient_gets_it(device, asking):
    inputs = [*qkv(device), torch.randn(4, device=device, requires_grad=True)]
    everything = flash_attn_func(*inputs[:3], learnable_sink=inputs[3])
    expected = torch.autograd.grad(everything.square().sum(), inputs)[asking]
    inputs = [t.detach().requires_grad_(i == asking) for i, t in enumerate(inputs)]
    out = flash_attn_func(*inputs[:3], learnable_sink=inputs[3])
    (gradient,) = torch.autograd.grad(out.square().sum(), inputs[asking])
    torch.testing.assert_close(gradient, expected)


def test_only_a_captured_tensor_asks_for_a_gradient(device):
    q, k, v = heads_first(*(t.detach() for t in qkv(device, kv_heads=4)))
    bias = torch.randn(4, 90, device=device, requires_grad=True)
    out = flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score + bias[h, j])
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias[:, None]
    expected = scores.softmax(-1) @ v
    for result, other in zip(*(torch.autograd.grad(o.square().sum(), bias) for o in (out, expected))):
        torch.testing.assert_close(result, other, atol=1e-4, rtol=1e-3)


def test_nothing_gives_nothing(device):
    for shape in (dict(batch=0), dict(nq=0), dict(nk=0), dict(nq=0, nk=0)):
        inputs = qkv(device, **shape)
        out, lse = flash_attn_func(*inputs, return_lse=True)
        assert torch.equal(out, torch.zeros_like(out)) and (lse == -torch.inf).all(), shape
        for gradient, tensor in zip(torch.autograd.grad(out.sum(), inputs), inputs):
            assert torch.equal(gradient, torch.zeros_like(tensor)), shape


def test_autocast_lowers_and_gradients_come_back_in_full(device):
    inputs = qkv(device)
    with torch.autocast(device, torch.bfloat16):
        out = flash_attn_func(*inputs, causal=True)
        flexed = flex_attention(*heads_first(*inputs), enable_gqa=True)
    assert out.dtype == flexed.dtype == torch.bfloat16
    assert torch.equal(out, flash_attn_func(*(t.bfloat16() for t in inputs), causal=True))
    assert all(gradient.dtype == torch.float32 for gradient in torch.autograd.grad(out.float().sum(), inputs))


def test_a_view_of_the_negative_is_negative():
    q, k, v = (t.detach() for t in qkv("cpu"))
    assert torch.equal(flash_attn_func(torch._neg_view(q), k, v), flash_attn_func(-q, k, v))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_jit_trace_holds_the_operator():
    inputs = [t.detach() for t in qkv("cpu")]
    traced = torch.jit.trace(lambda q, k, v: flash_attn_func(q, k, v, causal=True), inputs)
    others = [t.detach() for t in qkv("cpu", seed=1)]
    assert torch.equal(traced(*others), flash_attn_func(*others, causal=True))


def test_options_that_are_off_are_no_obstacle(device):
    q, k, v = (t.detach() for t in qkv(device))
    off = dict(qv=None, gather_kv_indices=None, dropout_p=0.0, return_attn_probs=False, score_mod_bwd=None,
               num_splits=0)
    assert torch.equal(flash_attn_func(q, k, v, **off), flash_attn_func(q, k, v))


def test_meta_tensors_give_shapes():
    q, k, v = (t.detach().to("meta") for t in qkv("cpu", dim_v=16))
    out, lse = flash_attn_func(q, k, v, return_lse=True)
    assert out.is_meta and out.shape == (2, 70, 4, 16) and lse.shape == (2, 4, 70)
    out = nsa(q, k[:, :70], v[:, :70], block=16)
    assert out.is_meta and out.shape == (2, 70, 4, 16)


def test_inputs_and_outputs_of_flex_attention_lie_alike(device):
    q, k, v = (t.detach().requires_grad_() for t in heads_first(*qkv(device, kv_heads=4)))
    for tensors in ((q, k, v), [t.detach().contiguous().requires_grad_() for t in (q, k, v)]):
        out = flex_attention(*tensors)
        assert out.stride() == tensors[0].stride()
        assert all(g.shape == t.shape for g, t in zip(torch.autograd.grad(out.sum(), tensors), tensors))


def test_auxiliary_outputs_as_pytorch_asks_for_them(device):
    if not hasattr(theirs, "AuxRequest"):
        pytest.skip("this PyTorch has no AuxRequest")
    q, k, v = (t.detach() for t in heads_first(*qkv(device, kv_heads=4)))
    out, aux = flex_attention(q, k, v, return_aux=theirs.AuxRequest(lse=True))
    expected, lse = flex_attention(q, k, v, return_lse=True)
    assert torch.equal(out, expected) and torch.equal(aux.lse, lse) and aux.max_scores is None
    with pytest.raises(NotImplementedError, match="max_scores"):
        flex_attention(q, k, v, return_aux=theirs.AuxRequest(max_scores=True))


def test_pytorchs_block_mask_serves_flash_attention_too(device):
    q, k, v = (t.detach() for t in qkv(device, 64, 64))
    mask = theirs.create_block_mask(causal, None, None, 64, 64, device, BLOCK_SIZE=32)
    torch.testing.assert_close(flash_attn_func(q, k, v, block_mask=mask), flash_attn_func(q, k, v, causal=True))


@pytest.mark.parametrize("lengths", [None, [64, 40]])
def test_masks_given_to_pytorch_bring_their_mask_mod(device, lengths):
    q, k, v = (t.detach() for t in heads_first(*qkv(device, 64, 192, kv_heads=4)))
    masks = [create_block_mask(causal, None, None, 64, 192, device, BLOCK_SIZE=32)]
    bounds = None if lengths is None else torch.tensor(lengths, device=device)
    masks.append(eagle3_block_mask(64, 192, bounds, BLOCK_SIZE=(32, 32), device=device))
    for mask in masks:
        expected = theirs.flex_attention(q, k, v, block_mask=to_torch_block_mask(mask))
        torch.testing.assert_close(flex_attention(q, k, v, block_mask=mask), expected, atol=2e-6, rtol=1e-4)
    with pytest.raises(ValueError, match="mask_mod: is needed to decide"):
        to_torch_block_mask(masks[0] & masks[0]) if device == "cpu" else pytest.skip("combined on the host only")


# -- refused --


def test_second_derivatives_are_refused(device):
    inputs = qkv(device, 8, 8)
    tokens = [torch.randn(1, 32, heads, 16, device=device, requires_grad=True) for heads in (2, 1, 1)]
    for out, tensors in ((flash_attn_func(*inputs), inputs), (nsa(*tokens, block=16, query_tile=16), tokens)):
        (gradient,) = torch.autograd.grad(out.square().sum(), tensors[0], create_graph=True)
        with pytest.raises(NotImplementedError, match="no second derivatives"):
            torch.autograd.grad(gradient.sum(), tensors[0])


@pytest.mark.parametrize("function", [flash_attn_func, lambda q, k, v: nsa(q, k, v, block=16, query_tile=16)])
def test_transforms_are_refused_by_name(function):
    q, k, v = (torch.randn(1, 32, heads, 16) for heads in (2, 1, 1))
    for transform in (torch.func.grad, torch.func.jacrev):
        with pytest.raises(NotImplementedError, match="torch.func: attention has no rule for its"):
            transform(lambda q: function(q, k, v).sum())(q)
    with pytest.raises(NotImplementedError, match="vmap"):
        torch.vmap(lambda q: function(q, k, v))(q[None])
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        function(forward_ad.make_dual(q, q), k, v)
    out = function(q.requires_grad_(), k, v)
    with pytest.raises(NotImplementedError, match="is_grads_batched.*one gradient at a time"):
        torch.autograd.grad(out, q, torch.stack((out, out)), is_grads_batched=True)


def test_gradients_that_would_be_lost_are_refused(device):
    q, k, v = qkv(device)
    slopes = torch.ones(4, device=device, requires_grad=True)
    with pytest.raises(NotImplementedError, match="alibi_slopes: have no gradient"):
        flash_attn_func(q, k, v, alibi_slopes=slopes)
    with torch.no_grad():
        flash_attn_func(q, k, v, alibi_slopes=slopes)
    for name in ("softmax_scale", "softcap"):
        with pytest.raises(TypeError, match=f"{name}: a number is needed, not a tensor"):
            flash_attn_func(q, k, v, **{name: torch.tensor(0.1, requires_grad=True)})


def test_backends_are_asked_with_what_the_functions_take():
    q, k, v = qkv("cpu")
    listed = theirs.create_block_mask(causal, None, None, 70, 90, device="cpu", BLOCK_SIZE=16)
    for options in (dict(score_mod=lambda score, b, h, i, j: score + i), dict(mask_mod=causal),
                    dict(block_mask=listed), dict(block_mask=listed, score_mod="score * 2")):  # fmt: skip
        reports = {report.name: report for report in get_attention_backend(q, k, v, training=True, **options)}
        assert reports["cpu"].usable == (options.get("score_mod") != "score * 2"), reports["cpu"]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, score):
        return score * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_a_gradient_that_is_not_that_of_what_is_computed_is_refused(device):
    q, k, v = heads_first(*qkv(device, kv_heads=4))

    def without_gradient(score, b, h, i, j):
        with torch.no_grad():
            return score * 2

    for score_mod in (lambda score, *_: Doubled.apply(score), without_gradient):
        with pytest.raises(NotImplementedError, match="cannot say what gradient a part of it has"):
            flex_attention(q, k, v, score_mod=score_mod)
    with torch.no_grad():  # around the whole call it says nothing of a part
        flex_attention(q, k, v, score_mod=lambda score, *_: score * 2)
    masked = flash_attn_func(*qkv(device), mask_mod=torch.no_grad()(causal))
    torch.testing.assert_close(masked, flash_attn_func(*qkv(device), mask_mod=causal))


@pytest.mark.parametrize("error, text, call", [
    (TypeError, "k: a torch.Tensor is needed, not ndarray", lambda q, k, v: flash_attn_func(q, k.numpy(), v)),
    (ValueError, r"shapes are \(70, 4, 32\).*expected \(B, N, H, D\)", lambda q, k, v: flash_attn_func(q[0], k, v)),
    (ValueError, r"expected \(B, H, N, D\)", lambda q, k, v: flex_attention(q[0], k, v)),
    (ValueError, r"k: shape is \(1, .*\(tensors are \(B, N, H, D\) here\)", lambda q, k, v: flex_attention(
        *heads_first(q, k[:1], v), enable_gqa=True)),
    (ValueError, "the last dimension has stride 2", lambda q, k, v: flash_attn_func(q[..., ::2], k[..., :16], v)),
    (ValueError, "causal: 'top_left' is neither", lambda q, k, v: flash_attn_func(q, k, v, causal="top_left")),
    (ValueError, "window_size: 4 is no pair", lambda q, k, v: flash_attn_func(q, k, v, window_size=4)),
    (ValueError, r"cu_seqlens_q: is missing, but q has shape \(70, 4, 32\)", lambda q, k, v: flash_attn_varlen_func(
        q[0], k[0], v[0], cu_seqlens_k=torch.tensor([0, 90], dtype=torch.int32))),
    (TypeError, "seqused_k: a torch.Tensor is needed, not list", lambda q, k, v: flash_attn_varlen_func(
        q, k, v, seqused_k=[9, 9])),
    (TypeError, "max_seqlen_q: a number is needed, not a tensor", lambda q, k, v: flash_attn_varlen_func(
        q, k, v, max_seqlen_q=torch.tensor(70))),
    (TypeError, "alibi_slopes: a torch.Tensor is needed, not list", lambda q, k, v: flash_attn_func(
        q, k, v, alibi_slopes=[0.5] * 4)),
    (ValueError, "aux_tensors: are given, but neither", lambda q, k, v: flash_attn_func(q, k, v, aux_tensors=[q])),
    (TypeError, "window_size: a number is needed, not a tensor", lambda q, k, v: flash_attn_func(
        q, k, v, window_size=(torch.tensor(4), 0))),
    (ValueError, r"window: \(1099511627776, 0\), each side is at most 2147483647", lambda q, k, v: flash_attn_func(
        q, k, v, window_size=(1 << 40, 0))),
    (ValueError, "max_seqlen: None, must be a whole number", lambda q, k, v: nsa(q, k, v, max_seqlen=None)),
    (ValueError, "device: block masks lie on cpu or cuda, not on meta", lambda q, k, v: create_block_mask(
        causal, None, None, 8, 8, "meta")),
    (AttributeError, "has no kv_indices; saccade.torch.to_torch_block_mask", lambda q, k, v: create_block_mask(
        causal, None, None, 8, 8, "cpu").kv_indices),
    (TypeError, "learnable_sink: a torch.Tensor is needed", lambda q, k, v: flash_attn_func(
        q, k, v, learnable_sink=[0.0] * 4)),
    (ValueError, "block_sparse_tensors: need their block_size", lambda q, k, v: flash_attn_func(
        q, k, v, block_sparse_tensors=(q, q, None, None))),
    (NotImplementedError, "page_table", lambda q, k, v: flash_attn_varlen_func(q, k, v, page_table=q)),
    (NotImplementedError, "qv: scores of a second pair", lambda q, k, v: flash_attn_func(q, k, v, qv=q)),
    (NotImplementedError, "dropout_p: there is no dropout", lambda q, k, v: flash_attn_func(q, k, v, dropout_p=0.1)),
    (NotImplementedError, "score_mod_bwd: the gradient is derived", lambda q, k, v: flash_attn_func(
        q, k, v, score_mod_bwd=print)),
    (ValueError, "softmax_scale: is 0", lambda q, k, v: flash_attn_func(q, k, v, 0.0, causal=True)),
    (TypeError, "sofcap: is no option", lambda q, k, v: flash_attn_func(q, k, v, sofcap=3.0)),
    (NotImplementedError, "kernel_options", lambda q, k, v: flex_attention(q, k, v, kernel_options={"BLOCK_M": 64})),
    (TypeError, "block_mask: a BlockMask of saccade or of PyTorch", lambda q, k, v: flash_attn_func(
        q, k, v, block_mask="causal")),
    (ValueError, "backend: \"triton\" is none of", lambda q, k, v: flash_attn_func(q, k, v, backend="triton")),
    (ValueError, "top_k: 0, must be a whole number", lambda q, k, v: nsa(q, k, v, top_k=0)),
    (ValueError, "window: 0, must be a whole number", lambda q, k, v: nsa(q, k, v, window=0)),
    (ValueError, "local_blocks: 1.5, must be a whole number", lambda q, k, v: nsa(q, k, v, local_blocks=1.5)),
    (ValueError, r"window: \(1.5, 0\) is no pair", lambda q, k, v: flash_attn_func(q, k, v, window_size=(1.5, 0))),
    (TypeError, "scale: 'x': must be real number", lambda q, k, v: flash_attn_func(q, k, v, "x")),
    (TypeError, "scale: 'x': must be real number", lambda q, k, v: nsa(q, k[:, :70], v[:, :70], scale="x")),
    (TypeError, "kv_len: 'x': an integer is required", lambda q, k, v: create_block_mask(
        causal, None, None, 8, "x", "cpu")),
    (TypeError, r"score_mod: is called with \(score, b, h, q_idx, kv_idx\), but takes \(b, h, q, kv\)",
     lambda q, k, v: flash_attn_func(q, k, v, score_mod=causal)),
    (TypeError, r"mask_mod: is called with \(b, h, q_idx, kv_idx\), but takes \(b, h\)",
     lambda q, k, v: flash_attn_func(q, k, v, mask_mod=lambda b, h: b == h)),
    (TypeError, "score_mod: returns None", lambda q, k, v: flash_attn_func(q, k, v, score_mod=lambda *_: None)),
    (TypeError, "score_mod: a function is needed, or C text, not a BlockMask", lambda q, k, v: flex_attention(
        *heads_first(q, k, v), create_block_mask(causal, None, None, 8, 8, "cpu"), enable_gqa=True)),
    (ValueError, "or packed ones with cu_seqlens", lambda q, k, v: nsa(q[0], k[0], v[0])),
    (TypeError, "q: dtype float8_e4m3fn is none of float64, float32", lambda q, k, v: get_attention_backend(
        q.to(torch.float8_e4m3fn), k, v)),
    (ValueError, "dtype is bf16, expected fp32", lambda q, k, v: flash_attn_func(q, k.bfloat16(), v)),
    (TypeError, "k: layout is torch.sparse_coo, a dense tensor", lambda q, k, v: flash_attn_func(q, k.to_sparse(), v)),
    (TypeError, "q: layout is torch.jagged, .* packed, with cu_seqlens", lambda q, k, v: nsa(
        *[torch.nested.nested_tensor([q[0], q[1, :9]], layout=torch.jagged)] * 3)),
    (TypeError, "return_aux: PyTorch's AuxRequest is needed, not dict", lambda q, k, v: flex_attention(
        q, q, q, return_aux={"lse": True})),
    (TypeError, "k: a torch.Tensor is needed, not NoneType", lambda q, k, v: flex_attention(q, None, v)),
    (TypeError, "mask: a BlockMask of saccade is needed, not a BlockMask of torch", lambda q, k, v: to_torch_block_mask(
        theirs.create_block_mask(causal, None, None, 8, 8, device="cpu"))),
    (TypeError, "v: dtype complex64 is none of float64", lambda q, k, v: flash_attn_func(q, k, v.to(torch.complex64))),
    (TypeError, "seqused_k: dtype complex64 is none of", lambda q, k, v: flash_attn_varlen_func(
        q, k, v, seqused_k=torch.zeros(2, dtype=torch.complex64))),
    (TypeError, "w_k: dtype complex64 is none of", lambda q, k, v: nsa(q, q, q, w_k=q.to(torch.complex64))),
    (TypeError, "k: tensors lie on cpu or cuda, not on meta", lambda q, k, v: flash_attn_func(q, k.to("meta"), v)),
], ids=lambda value: value.split(":")[0] if isinstance(value, str) else "")  # fmt: skip
def test_a_wrong_argument_is_named(error, text, call):
    with pytest.raises(error, match=text):
        call(*(t.detach() for t in qkv("cpu")))
