"""flex_attention and create_block_mask against PyTorch's own."""

import gc

import numpy
import pytest

torch = pytest.importorskip("torch")
from torch.nn.attention import flex_attention as theirs  # noqa: E402

import saccade  # noqa: E402
from saccade.torch import _masks  # noqa: E402
from saccade.torch import create_block_mask, eagle3_block_mask, flex_attention, to_torch_block_mask  # noqa: E402

B, H, N, D = 2, 4, 160, 32
documents = torch.arange(N) // 48


def causal(b, h, q, kv):
    return q >= kv


def same_document(b, h, q, kv):
    table = documents if q.device.type == "cpu" else documents.to(q.device)
    return table[q] == table[kv]


def sliding(b, h, q, kv):
    return (q - kv).abs() <= 20


def eagle3(b, h, q, kv):
    q_len = 64
    return (kv < q_len) & (q >= kv) | (kv >= q_len) & ((kv - q) % q_len == 0)


MASKS = {
    "causal": causal,
    "documents": theirs.and_masks(causal, same_document),
    "either": theirs.or_masks(sliding, lambda b, h, q, kv: (kv < 7) & (h != 2)),
    "per batch": lambda b, h, q, kv: (kv < 40 + 50 * b) & (q >= kv),
}
LISTS = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices",
         "q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices")  # fmt: skip


def rows(counts, indices):
    return [indices.flatten(0, 2)[r, :n].tolist() for r, n in enumerate(counts.flatten().tolist())]


def assert_same_lists(mine, other):
    """Torch leaves whatever it likes beyond each count."""
    for name in LISTS[::2]:
        counts, indices = ((getattr(mine, n), getattr(other, n)) for n in (name, name.replace("num_blocks", "indices")))
        assert indices[0].shape == indices[1].shape, name
        assert rows(counts[0], indices[0]) == rows(counts[1], indices[1]), name


@pytest.mark.parametrize("block_size", [32, (64, 32)])
def test_masks_may_be_made_inside_of_what_is_compiled(block_size, device):
    def attend(q, k, v, lengths, window):
        def mask_mod(b, h, i, j):
            return torch.le(i - j, window) & (i >= j) & (j < lengths[b])

        mask = create_block_mask(mask_mod, B, None, N, N, device, BLOCK_SIZE=block_size)
        return flex_attention(q, k, v, block_mask=mask)

    inputs = tensors(device)
    compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")
    for values, window in (([150, 90], 40), ([N, 10], 7)):
        lengths = torch.tensor(values, device=device)
        out, expected = (function(*inputs, lengths, window) for function in (compiled, attend))
        torch.testing.assert_close(out, expected)
        grads = [torch.autograd.grad(o.square().sum(), inputs) for o in (out, expected)]
        for mine, theirs_ in zip(*grads):
            torch.testing.assert_close(mine, theirs_)


@pytest.mark.parametrize("block_size", [32, (64, 32), (32, 64)])
@pytest.mark.parametrize("mask", MASKS)
def test_block_mask_lists_are_torchs(device, mask, block_size):
    args = (MASKS[mask], B, H, N, N, device)
    other = theirs.create_block_mask(*args, BLOCK_SIZE=block_size)
    mine = to_torch_block_mask(create_block_mask(*args, BLOCK_SIZE=block_size))
    assert mine.kv_indices.device.type == device
    assert_same_lists(mine, other)


def test_eagle3_lengths_may_be_a_list(device):
    listed, tensor = (eagle3_block_mask(64, 128, lengths, 32, device=device)
                      for lengths in ([64, 40], torch.tensor([64, 40])))
    assert listed.info == tensor.info and listed.shape[0] == 2


@pytest.mark.parametrize("block_size", [(32, 32), (64, 32), (64, 16)])
def test_eagle3_lists_are_torchs(device, block_size):
    other = theirs.create_block_mask(eagle3, 1, 1, 64, 320, device, BLOCK_SIZE=block_size)
    assert_same_lists(to_torch_block_mask(eagle3_block_mask(64, 320, BLOCK_SIZE=block_size, device=device)), other)


def test_a_torch_mask_that_changes_in_place_is_read_again(device):
    q, k, v = (t.detach() for t in tensors(device))
    whole = theirs.create_block_mask(lambda b, h, i, j: j >= 0, None, None, N, N, device, BLOCK_SIZE=32)
    before = flex_attention(q, k, v, block_mask=whole)
    whole.full_kv_num_blocks.fill_(1)  # of each row the first block
    after = flex_attention(q, k, v, block_mask=whole)
    torch.testing.assert_close(before, dense(q, k, v, lambda score, *_: score, lambda b, h, i, j: j >= 0))
    torch.testing.assert_close(after, dense(q, k, v, lambda score, *_: score, lambda b, h, i, j: j < 32))


def test_an_imported_mask_dies_with_torchs(device):
    q, k, v = (t.detach() for t in tensors(device))
    gc.collect()
    before = len(_masks._imported)
    for _ in range(3):
        flex_attention(q, k, v, block_mask=theirs.create_block_mask(causal, None, None, N, N, device))
    gc.collect()
    assert len(_masks._imported) == before


def test_lists_that_are_wrong_are_refused(device):
    mask = theirs.create_block_mask(lambda b, h, i, j: i >= j, None, None, N, N, device, BLOCK_SIZE=32)
    mask.kv_indices.fill_(9)
    with pytest.raises(ValueError, match="kv_indices.*numbered 0 to 4"):
        flex_attention(*tensors(device), block_mask=mask)


def tensors(device, dtype=torch.float32, kv_heads=H, n=N):
    generator = torch.Generator().manual_seed(0)
    heads = (H, kv_heads, kv_heads)
    return [torch.randn((B, h, n, D), generator=generator).to(device, dtype).requires_grad_() for h in heads]


def dense(q, k, v, score_mod, mask_mod):
    n, device = q.shape[2], q.device
    b, h, i, j = torch.meshgrid(*(torch.arange(m, device=device) for m in (B, H, n, n)), indexing="ij")
    group = H // k.shape[1]
    k, v = (t.repeat_interleave(group, dim=1) for t in (k, v))
    scores = score_mod(q @ k.transpose(-1, -2) * D**-0.5, b, h, i, j)
    return scores.masked_fill(~mask_mod(b, h, i, j), -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("carrier", ["ours", "torch"])
@pytest.mark.parametrize("mask", MASKS)
def test_attention_with_modifiers_and_captured_gradients(device, mask, carrier):
    q, k, v = tensors(device, kv_heads=2)
    bias = torch.randn(H, 2 * N, device=device, requires_grad=True)

    def score_mod(score, b, h, i, j):
        return 5 * torch.tanh((score + bias[h, i - j + N]) / 5)

    make = create_block_mask if carrier == "ours" else theirs.create_block_mask
    block_mask = make(MASKS[mask], B, H, N, N, device=device, BLOCK_SIZE=32)
    out = flex_attention(q, k, v, score_mod=score_mod, block_mask=block_mask, enable_gqa=True)
    expected = dense(q, k, v, score_mod, MASKS[mask])
    torch.testing.assert_close(out, expected, atol=5e-6, rtol=1e-4)
    inputs = (q, k, v, bias)
    weight = torch.randn_like(out)
    grads, others = (torch.autograd.grad((result * weight).sum(), inputs) for result in (out, expected))
    for mine, other in zip(grads, others):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=1e-3)


def test_agrees_with_torchs_flex_attention(device):
    q, k, v = (t.detach() for t in tensors(device))
    block_mask = theirs.create_block_mask(causal, None, None, N, N, device=device, BLOCK_SIZE=32)

    def alibi(score, b, h, i, j):
        return score - (i - j) * 0.1 * (h + 1)

    expected, lse = theirs.flex_attention(q, k, v, score_mod=alibi, block_mask=block_mask, return_lse=True)
    out, my_lse = flex_attention(q, k, v, score_mod=alibi, block_mask=block_mask, return_lse=True)
    torch.testing.assert_close(out, expected, atol=5e-6, rtol=1e-4)
    torch.testing.assert_close(my_lse, lse, atol=5e-6, rtol=1e-4)


def test_texts_with_arrays_and_numbers_are_modifiers(device):
    q, k, v = tensors(device)
    bias = torch.randn(H, device=device, requires_grad=True)
    text = saccade.score_mod("score * scalar(gain) + aux_f32(bias, h) * kv_idx", bias=bias, gain=0.5,
                             grad_text="{ aux_grad(bias, h, grad * kv_idx); return grad * scalar(gain); }")
    table = documents.int().to(device)
    visible = saccade.mask_mod("aux_i32(of, q_idx) == aux_i32(of, kv_idx) && q_idx - kv_idx < scalar(w)", of=table, w=9)
    out = flex_attention(q, k, v, score_mod=text, block_mask=create_block_mask(visible, 1, 1, N, N, device))
    expected = dense(q, k, v, lambda s, b, h, i, j: s * 0.5 + bias[h] * j,
                     lambda b, h, i, j: (table[i] == table[j]) & (i - j < 9))
    torch.testing.assert_close(out, expected, atol=5e-6, rtol=1e-4)
    for mine, other in zip(*(torch.autograd.grad(o.square().sum(), (q, k, v, bias)) for o in (out, expected))):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-3)


def test_what_a_text_would_lose_is_refused():
    q, k, v = tensors("cpu")
    with pytest.raises(TypeError, match="score_mod: table is a ndarray, here a torch.Tensor"):
        flex_attention(q, k, v, score_mod=saccade.score_mod("aux_f32(table, h)", table=numpy.zeros(4, numpy.float32)))
    bias = torch.zeros(4, requires_grad=True)
    for grad_text in ("", "grad", "{ aux_grad(bias_too, h, grad); return grad; }"):
        with pytest.raises(NotImplementedError, match="bias asks for a gradient, but the text has no aux_grad"):
            flex_attention(q, k, v, score_mod=saccade.score_mod(
                "score + aux_f32(bias, h) + aux_f32(bias_too, h)", grad_text=grad_text, bias=bias,
                bias_too=bias.detach()))  # fmt: skip


def test_torchs_default_device_is_no_matter(device):
    q, k, v = (t.detach() for t in tensors(device))
    results = []
    for default in ("meta", "cpu"):
        with torch.device(default):
            slope, reach = 0.1, 40  # of this round's own functions
            mask = create_block_mask(lambda b, h, i, j: i - j < reach, None, None, N, N, device, BLOCK_SIZE=32)
            mods = [lambda s, b, h, i, j: s - slope * (i - j), saccade.score_mod("score - scalar(x) * q_idx", x=0.2)]
            results.append([flex_attention(q, k, v, score_mod=mod, block_mask=mask) for mod in mods])
    for one, other in zip(*results):
        assert torch.equal(one, other)


def test_compiles_whole_and_uses_new_captured_values(device):
    q, k, v = (t.detach() for t in tensors(device))
    bias = torch.zeros(H, device=device)

    def score_mod(score, b, h, i, j):
        return score + bias[h] * (i - j)

    def call(q, k, v):
        return flex_attention(q, k, v, score_mod=score_mod)

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="eager")
    for value in (0.0, 0.25):
        bias.fill_(value)
        torch.testing.assert_close(compiled(q, k, v), call(q, k, v))


def test_captured_numbers_that_change_do_not_recompile(device):
    count = 0

    def backend(graph, _):
        nonlocal count
        count += 1
        return graph.forward

    def call(q, k, v, slope, shift):
        return flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score * 0.5 + slope * (i - j + shift))

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, dynamic=True, backend=backend)
    for n in range(20):
        tensors_now = [t.detach()[:, :, : 40 + n] for t in tensors(device)]
        numbers = 0.01 * n + 0.5, n + 3
        torch.testing.assert_close(compiled(*tensors_now, *numbers), call(*tensors_now, *numbers))
    assert count == 1


def test_a_compiled_call_takes_other_masks(device):
    count = 0

    def backend(graph, _):
        nonlocal count
        count += 1
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, fullgraph=True, dynamic=True, backend=backend)
    q, k, v = (t.detach() for t in tensors(device, n=64))
    for rounds in range(2, 8):
        longer = [t.repeat(1, 1, rounds, 1) for t in (k, v)]
        mask = eagle3_block_mask(64, 64 * rounds, BLOCK_SIZE=(32, 32), device=device)
        torch.testing.assert_close(compiled(q, *longer, block_mask=mask), flex_attention(q, *longer, block_mask=mask))
    assert count == 1


def test_compiles_whole_with_torchs_block_masks(device):
    inputs = tensors(device, n=64)

    def call(q, k, v, mask):
        return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: torch.round(s) * 0.5 + s, block_mask=mask)

    torch._dynamo.reset()
    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    for mask_mod in (causal, sliding):
        mask = theirs.create_block_mask(mask_mod, None, None, 64, 64, device, BLOCK_SIZE=32)
        for _ in range(2):
            out, expected = (f(*inputs, mask) for f in (compiled, call))
            torch.testing.assert_close(out, expected)
            for mine, other in zip(*(torch.autograd.grad(o.square().sum(), inputs) for o in (out, expected))):
                torch.testing.assert_close(mine, other)
            mask.kv_num_blocks[..., 1] = 0  # is seen by the compiled program too


@pytest.mark.parametrize("strict", [False, True])
def test_exports_with_a_parameter_that_a_score_mod_reads(device, strict):
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slopes = torch.nn.Parameter(torch.rand(4, device=device))

        def forward(self, q):
            return flex_attention(q, q, q, score_mod=lambda score, b, h, i, j: score - self.slopes[h] * (i - j))

    module, (q, other) = Attention(), torch.randn(2, 1, 4, 40, 16, device=device)
    program = torch.export.export(module, (q,), strict=strict)
    torch.testing.assert_close(program.module()(other), module(other))


def test_exports_with_a_mask_that_must_live(device):
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.randn(H, device=device))
            self.mask = create_block_mask(causal, None, None, N, N, device, BLOCK_SIZE=32)

        def forward(self, q, k, v):
            return flex_attention(q, k, v, score_mod=lambda s, b, h, i, j: s + self.bias[h] * j, block_mask=self.mask)

    inputs = tuple(t.detach() for t in tensors(device))
    module = Attention()
    program = torch.export.export(module, inputs).module()
    assert torch.equal(program(*inputs), module(*inputs))
    del module.mask
    gc.collect()
    with pytest.raises(RuntimeError, match="block_mask: is gone"):
        program(*inputs)


def test_keys_of_one_batch_entry_serve_every_batch_entry(device):
    q, k, v = tensors(device)
    k, v = (t.detach()[:1].clone().requires_grad_() for t in (k, v))
    mask = theirs.create_block_mask(lambda b, h, i, j: i >= j + 9 * b, B, None, N, N, device=device)
    out = flex_attention(q, k, v, block_mask=mask)
    expected = flex_attention(q, *(t.repeat(B, 1, 1, 1) for t in (k, v)), block_mask=mask)
    torch.testing.assert_close(out, expected)
    for mine, other in zip(*(torch.autograd.grad(o.square().sum(), (q, k, v)) for o in (out, expected))):
        torch.testing.assert_close(mine, other, atol=1e-5, rtol=1e-4)


def test_torchs_paged_attention(device):
    """Its masks and score_mods look pages up in tables, and one batch entry of keys serves all."""
    paged = pytest.importorskip("torch.nn.attention.experimental._paged_attention")
    q, k, v = (t.detach()[:, :, :128] for t in tensors(device))
    mask = theirs.create_block_mask(causal, B, 1, 128, 128, device, BLOCK_SIZE=32)
    pages = paged.PagedAttention(12, 32, B, device=device)
    caches = [torch.zeros(1, H, 12 * 32, D, device=device) for _ in range(2)]
    for b in (1, 0):
        pages.reserve(torch.tensor(b, device=device), torch.tensor(128, device=device))
    pages.assign(torch.arange(B, device=device), torch.arange(128, device=device).expand(B, -1), k, v, *caches)

    def score_mod(score, b, h, i, j):
        return score - (i - j) * 0.1

    lengths = torch.full((B,), 128, device=device)
    options = dict(score_mod=pages.get_score_mod(score_mod, kv_len=lengths),
                   block_mask=pages.convert_logical_block_mask(mask, kv_len=lengths))
    out = flex_attention(q, *caches, **options)
    expected = flex_attention(q, k, v, score_mod=score_mod, block_mask=mask)
    torch.testing.assert_close(out, expected, atol=5e-6, rtol=1e-4)


def test_torchs_way_of_saying_no_mask(device):
    q, k, v = (t.detach() for t in tensors(device))
    nothing = theirs._create_empty_block_mask(q, k)
    assert torch.equal(flex_attention(q, k, v, block_mask=nothing), flex_attention(q, k, v))


def test_a_mask_tells_its_shape_and_sparsity(device):
    args = (causal, B, None, N, N, device)
    mine, other = (f(*args, BLOCK_SIZE=32) for f in (create_block_mask, theirs.create_block_mask))
    assert mine.shape == other.shape and mine.sparsity() == pytest.approx(other.sparsity())
    assert create_block_mask(*args, 32, _compile=True).info == mine.info


@pytest.mark.parametrize("size", [0, -5, (64,), (32, 32, 32), 1.5, "a"])
def test_block_sizes_are_positive_numbers(size):
    with pytest.raises(ValueError, match="block_size: .* is neither a positive whole number nor a pair"):
        create_block_mask(causal, None, None, N, N, "cpu", BLOCK_SIZE=size)


def test_heads_are_shared_only_when_asked():
    q, k, v = tensors("cpu", kv_heads=2)
    with pytest.raises(ValueError, match="enable_gqa"):
        flex_attention(q, k, v)
