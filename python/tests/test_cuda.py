"""What only a GPU has: streams, the caching allocator, graphs, autocast, and torch's compiled flex_attention."""

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("no CUDA device", allow_module_level=True)
from conftest import assert_close_to_truth  # noqa: E402
from test_flash import plain, qkv  # noqa: E402
from test_flex import MASKS, eagle3  # noqa: E402
from test_nsa import inputs as nsa_inputs  # noqa: E402
from torch.nn.attention import flex_attention as theirs  # noqa: E402

from saccade.torch import _device  # noqa: E402
from saccade.torch import create_block_mask, eagle3_block_mask, flash_attn_func, flex_attention, nsa  # noqa: E402

TENTH_OF_A_SECOND = 200_000_000  # cycles


def test_calls_follow_the_current_stream():
    """A call on a side stream waits for what that stream still writes, and for nothing else."""
    q, k, v = (t.detach() for t in qkv("cuda"))
    expected = flash_attn_func(q, k, v)
    late = torch.full_like(q, torch.nan)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(TENTH_OF_A_SECOND)
        late.copy_(q)
        out = flash_attn_func(late, k, v)
    here = flash_attn_func(q, k, v)
    torch.cuda.current_stream().synchronize()
    assert not side.query(), "the side stream has finished before it was looked at"
    assert torch.equal(here, expected)
    side.synchronize()
    assert torch.equal(out, expected)


def test_tensors_on_several_devices_are_refused():
    q, k, v = (t.detach() for t in qkv("cuda"))
    for wrong in ((q.cpu(), k, v), (q, k.cpu(), v), (q, k, v.cpu())):
        with pytest.raises(ValueError, match="k: is on device|v: is on device"):
            flash_attn_func(*wrong)
    with pytest.raises(ValueError, match="sink: is on device"):
        flash_attn_func(q, k, v, learnable_sink=torch.zeros(4))


def test_a_mask_that_lies_on_the_host_serves_the_gpu():
    q, k, v = (t.detach() for t in qkv("cuda", 64, 64))
    mask = create_block_mask(lambda b, h, i, j: i >= j, None, None, 64, 64, "cpu", BLOCK_SIZE=32)
    torch.testing.assert_close(flash_attn_func(q, k, v, block_mask=mask), flash_attn_func(q, k, v, causal=True))


def gradients(out, inputs):
    return torch.autograd.grad(out.square().sum(), inputs)


@pytest.mark.parametrize("options", [dict(causal=True), dict(deterministic=True)], ids=lambda o: "+".join(o))
def test_forward_and_backward_replay_from_a_graph(options):
    inputs = qkv("cuda", dtype=torch.bfloat16)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        gradients(flash_attn_func(*inputs, **options), inputs)  # compiles the kernels
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = flash_attn_func(*inputs, **options)
        grads = gradients(out, inputs)
    for seed in (1, 2):
        with torch.no_grad():
            for tensor, values in zip(inputs, qkv("cuda", dtype=torch.bfloat16, seed=seed)):
                tensor.copy_(values)
        graph.replay()
        expected = flash_attn_func(*inputs, **options)
        torch.testing.assert_close(out, expected, atol=0, rtol=0)
        for replayed, direct in zip(grads, gradients(expected, inputs)):
            torch.testing.assert_close(replayed, direct)


@pytest.mark.parametrize("query_tile", [1, 32])
def test_nsa_replays_from_a_graph(query_tile):
    """Forward and backward: blocks are scored, chosen and listed on the device, and nothing is read back."""
    tokens, weights = nsa_inputs("cuda", 150)
    everything = [*tokens.values(), *weights.values()]
    options = dict(block=16, top_k=4, window=24, query_tile=query_tile, deterministic=True)

    def call():
        out = nsa(*everything[:3], **dict(zip(weights, everything[3:])), **options)
        return out, gradients(out, everything)

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        call()  # compiles the kernels
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out, grads = call()
    for seed in (1, 2):
        values = [t for part in nsa_inputs("cuda", 150, seed=seed) for t in part.values()]
        with torch.no_grad():
            for tensor, value in zip(everything, values):
                tensor.copy_(value)
        graph.replay()
        expected, expected_grads = call()
        for mine, wanted in zip((out, *grads), (expected, *expected_grads)):
            assert torch.equal(mine, wanted)


def test_deterministic_gradients_are_the_same_bits_every_time():
    inputs = qkv("cuda", 1000, 1000, dtype=torch.bfloat16)
    first, *others = (gradients(flash_attn_func(*inputs, causal=True, deterministic=True), inputs) for _ in range(20))
    assert all(torch.equal(a, b) for grads in others for a, b in zip(first, grads))


def test_agrees_with_scaled_dot_product_attention_in_bfloat16():
    q, k, v = inputs = qkv("cuda", 512, 512, heads=8, kv_heads=2, dim=128, dim_v=128, dtype=torch.bfloat16)
    out = flash_attn_func(q, k, v, causal=True)
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    visible = torch.ones(512, 512, dtype=torch.bool, device="cuda").tril()
    other = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(1, 2) for t in (q, k, v)), is_causal=True, enable_gqa=True).transpose(1, 2)  # fmt: skip
    truth = plain(*doubles, visible)
    assert_close_to_truth(out, other, truth)
    weight = torch.randn_like(out)
    truths = gradients_of(truth, weight.double(), doubles)
    for mine, sdpa, right in zip(gradients_of(out, weight, inputs), gradients_of(other, weight, inputs), truths):
        assert_close_to_truth(mine, sdpa, right)


def gradients_of(out, weight, inputs):
    return torch.autograd.grad((out * weight).sum(), inputs)


def test_agrees_with_torchs_compiled_flex_attention():
    inputs = [torch.randn(2, 4, 512, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    documents = (torch.arange(512, device="cuda") // 100).int()

    def score_mod(score, b, h, i, j):
        return score - (i - j) * 0.05 * (h + 1)

    def mask_mod(b, h, i, j):
        return (documents[i] == documents[j]) & (i >= j)

    args = (mask_mod, None, None, 512, 512, "cuda")
    compiled = torch.compile(theirs.flex_attention)
    other = compiled(*inputs, score_mod=score_mod, block_mask=theirs.create_block_mask(*args))
    out = flex_attention(*inputs, score_mod=score_mod, block_mask=create_block_mask(*args))
    torch.testing.assert_close(out, other, atol=2e-2, rtol=2e-2)
    weight = torch.randn_like(out)
    for mine, torchs in zip(gradients_of(out, weight, inputs), gradients_of(other, weight, inputs)):
        torch.testing.assert_close(mine, torchs, atol=4e-2, rtol=4e-2)


def counts(mask):
    info = mask.info
    return info.full, info.partial, info.diagonal


@pytest.mark.parametrize("mask", MASKS)
def test_masks_built_on_the_device_list_what_the_hosts_list(mask):
    args = (MASKS[mask], 2, 4, 160, 160)
    here, there = (create_block_mask(*args, device=d, BLOCK_SIZE=(64, 32)) for d in ("cpu", "cuda"))
    assert counts(there) == counts(here)
    with pytest.raises(ValueError, match="capacity: is below"):
        create_block_mask(*args, device="cuda", BLOCK_SIZE=(64, 32), capacity=3)


@pytest.mark.parametrize("lengths", [None, [64, 40]])
def test_eagle3_masks_built_on_the_device(lengths):
    bounds = None if lengths is None else torch.tensor(lengths)
    here, there = (eagle3_block_mask(64, 192, bounds, BLOCK_SIZE=(32, 32), device=d) for d in ("cpu", "cuda"))
    assert counts(there) == counts(here)
    q, k, v = inputs = qkv("cuda", 64, 192)
    out = flash_attn_func(q, k, v, block_mask=there)
    i, j = torch.arange(64, device="cuda")[:, None], torch.arange(192, device="cuda")
    visible = eagle3(0, 0, i, j)
    if lengths is not None:
        n = torch.tensor(lengths, device="cuda")[:, None, None, None]
        visible = visible & (j % 64 < n) & ((j >= 64) | (i < n))
    other = plain_of_rows_that_see(q, k, v, visible)
    torch.testing.assert_close(out, other, atol=2e-6, rtol=1e-4)
    for mine, right in zip(gradients(out, inputs), gradients(other, inputs)):
        torch.testing.assert_close(mine, right, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match=r"lengths\[1\]: is negative"):
        eagle3_block_mask(64, 192, torch.tensor([3, -1]), BLOCK_SIZE=(32, 32), device="cuda")


def plain_of_rows_that_see(q, k, v, visible):
    seen = visible.expand(q.shape[0], 1, *visible.shape[-2:]).any(-1)[:, 0, :, None, None]
    return torch.where(seen, plain(q, k, v, visible | ~visible.any(-1, keepdim=True)), 0)


def test_a_mask_built_in_a_graph_follows_its_tensors():
    q, k, v = (t.detach() for t in qkv("cuda", 96, 96))
    documents = (torch.arange(96, device="cuda") // 20).int()

    def call():
        mask = create_block_mask(lambda b, h, i, j: documents[i] == documents[j], 1, 1, 96, 96, "cuda", BLOCK_SIZE=32)
        return mask, flash_attn_func(q, k, v, block_mask=mask)

    call()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _, out = call()
    for length in (20, 7, 96):
        documents.copy_(torch.arange(96, device="cuda") // length)
        graph.replay()
        torch.testing.assert_close(out, plain(q, k, v, documents[:, None] == documents), atol=2e-6, rtol=1e-4)


def test_workspaces_come_from_the_caching_allocator():
    inputs = qkv("cuda", 500, 500, dtype=torch.bfloat16)
    out = flash_attn_func(*inputs)
    weight = torch.randn_like(out)
    torch.autograd.grad(out, inputs, weight, retain_graph=True)
    before = torch.cuda.memory_stats()["allocated_bytes.all.allocated"]
    torch.autograd.grad(out, inputs, weight)
    asked = torch.cuda.memory_stats()["allocated_bytes.all.allocated"] - before
    gradients_bytes = sum(t.numel() * t.element_size() for t in inputs)
    # At least each row's sum of dout * out, in fp32.
    assert asked >= gradients_bytes + 2 * 500 * 4 * 4, f"{asked} bytes asked for, the gradients are {gradients_bytes}"


@pytest.mark.parametrize("function", [flash_attn_func, lambda q, k, v: nsa(q, k, v, block=16, query_tile=16)])
def test_a_workspace_that_is_not_to_be_had_is_torchs_error(function, monkeypatch):
    """By which training loops know to take smaller batches."""
    inputs = qkv("cuda", 70, 70)
    out = function(*inputs)

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate a workspace")

    with monkeypatch.context() as patch:
        patch.setattr(_device, "_raw_alloc", no_memory)
        with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
            torch.autograd.grad(out.sum(), inputs, retain_graph=True)
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))


def test_autocast_lowers_what_it_lowers_for_torchs_attention():
    q, k, v = inputs = qkv("cuda")
    with torch.autocast("cuda", torch.bfloat16):
        out = flash_attn_func(q, k, v, causal=True)
    assert out.dtype == torch.bfloat16
    lowered = [t.detach().bfloat16().requires_grad_() for t in inputs]
    expected = flash_attn_func(*lowered, causal=True)
    assert torch.equal(out, expected)
    for mine, right in zip(gradients(out, inputs), gradients(expected, lowered)):
        torch.testing.assert_close(mine, right.float())


def test_torchs_deterministic_mode_is_honoured():
    q, k, v = (t.transpose(1, 2) for t in qkv("cuda", kv_heads=4))
    bias = torch.zeros(4, device="cuda", requires_grad=True)
    torch.use_deterministic_algorithms(True)
    try:
        with pytest.raises(NotImplementedError, match="atomics, which deterministic forbids"):
            flex_attention(q, k, v, score_mod=lambda score, b, h, i, j: score + bias[h]).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
