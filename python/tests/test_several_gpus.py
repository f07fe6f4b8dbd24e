"""Tensors on a GPU that is not the current one."""

import pytest

torch = pytest.importorskip("torch")
if torch.cuda.device_count() < 2:
    pytest.skip("two GPUs are needed", allow_module_level=True)

from saccade import torch as st  # noqa: E402


def _dense(q, k, v):
    return st.flash_attn_func(q, k, v, causal=True, deterministic=True)


def _flex(q, k, v):
    n = q.shape[1]
    mask = st.create_block_mask(lambda b, h, i, j: i - j < 100, None, None, n, n, device=q.device)
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return st.flex_attention(
        q, k, v, score_mod=lambda s, b, h, i, j: s - 0.01 * (i - j), block_mask=mask, enable_gqa=True)  # fmt: skip


def _nsa(q, k, v):
    gates = torch.full((*q.shape[:3], 3), 0.5, device=q.device, dtype=q.dtype)
    return st.nsa(q, k, v, gates=gates)


@pytest.mark.parametrize("attend", [_dense, _flex, _nsa])
def test_a_gpu_that_is_not_current_gives_what_the_current_one_gives(attend):
    torch.manual_seed(0)
    inputs = [torch.randn(1, 1024, heads, 64).bfloat16() for heads in (4, 2, 2)]
    results = []
    for index in (0, 1, 0):
        q, k, v = (t.to(f"cuda:{index}").requires_grad_() for t in inputs)
        out = attend(q, k, v)
        out = out[0] if isinstance(out, tuple) else out
        out.float().square().sum().backward()
        assert torch.cuda.current_device() == 0
        results.append([t.detach().float().cpu() for t in (out, q.grad, k.grad, v.grad)])
    for other in results[1:]:
        for a, b in zip(results[0], other):
            torch.testing.assert_close(a, b, atol=2e-2, rtol=2e-2)


def _on(index):
    torch.manual_seed(0)
    return [torch.randn(1, 1024, heads, 64).bfloat16().to(f"cuda:{index}") for heads in (4, 2, 2)]


def test_each_gpu_has_its_current_stream():
    """The other GPU's call waits for what its own stream still writes, though another GPU is current."""
    q, k, v = _on(1)
    expected = _dense(q, k, v)
    late, side = torch.full_like(q, torch.nan), torch.cuda.Stream(1)
    torch.cuda.synchronize(1)
    with torch.cuda.stream(side):
        torch.cuda._sleep(200_000_000)
        late.copy_(q)
        with torch.cuda.device(0):  # device 1's current stream stays `side`
            out = _dense(late, k, v)
            here = _dense(*_on(0))
    side.synchronize()
    assert torch.equal(out, expected)
    assert torch.equal(here.cpu(), expected.cpu())


def test_a_graph_of_the_second_gpu_replays():
    with torch.cuda.device(1):
        q, k, v = _on(1)
        expected = _dense(q, k, v)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = _dense(q, k, v)
        graph.replay()
        torch.cuda.synchronize()
    assert torch.equal(out, expected)


def test_a_block_mask_of_another_gpu_is_refused():
    mask = st.create_block_mask(lambda b, h, i, j: i >= j, None, None, 1024, 1024, device="cuda:1")
    with pytest.raises(ValueError, match="block_mask: .*device"):
        st.flash_attn_func(*_on(0), block_mask=mask)


def test_tensors_of_two_gpus_are_refused():
    (q, _, v), (_, k, _) = _on(0), _on(1)
    with pytest.raises(ValueError, match="k: is on device"):
        st.flash_attn_func(q, k, v)
