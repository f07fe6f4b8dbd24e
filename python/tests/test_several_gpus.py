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


def test_tensors_of_two_gpus_are_refused():
    q, k, v = (torch.randn(1, 64, 4, 64, device=f"cuda:{i}", dtype=torch.bfloat16) for i in (0, 1, 0))
    with pytest.raises((ValueError, RuntimeError)):
        st.flash_attn_func(q, k, v)
