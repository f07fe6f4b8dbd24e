"""Python modifiers traced into C agree with themselves in Python, on any input that hypothesis finds."""

import types

import pytest

torch = pytest.importorskip("torch")
from hypothesis import given, settings, strategies as st  # noqa: E402

from saccade.torch import create_block_mask, flex_attention  # noqa: E402
from saccade.torch._trace import TraceError, trace_mask_mod, trace_score_mod  # noqa: E402
from saccade.torch._trace_cache import trace_once  # noqa: E402

N = 24
table = torch.arange(7 * N) % 5 - 2


def dense(mask_mod):
    b = h = torch.zeros((), dtype=torch.int64)
    rows = [[bool(mask_mod(b, h, torch.tensor(i), torch.tensor(j))) for j in range(N)] for i in range(N)]
    return torch.tensor(rows)


integers = st.integers(-9, 9)


@st.composite
def integer_expressions(draw, depth=3):
    """A function of (q, kv) and its operators, as Python users write them."""
    if depth == 0:
        value = draw(integers)
        leaves = [lambda q, k: q, lambda q, k: k, lambda q, k: value, lambda q, k: table[q * 7 + k % 7]]
        return draw(st.sampled_from(leaves))
    a, b = draw(integer_expressions(depth - 1)), draw(integer_expressions(depth - 1))
    divisor = draw(integers.filter(bool))
    return draw(st.sampled_from([
        lambda q, k: a(q, k) + b(q, k), lambda q, k: a(q, k) - b(q, k), lambda q, k: a(q, k) * b(q, k),
        lambda q, k: a(q, k) // divisor, lambda q, k: a(q, k) % divisor,
        lambda q, k: torch.where(torch.as_tensor(q > k) if isinstance(q, int) else q > k, q + a(q, k), k - b(q, k)),
        lambda q, k: abs(a(q, k)), lambda q, k: -b(q, k)]))  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(integer_expressions(), integer_expressions())
def test_integer_arithmetic_is_pythons(left, right):
    def mask_mod(b, h, q, kv):
        return (left(q, kv) < right(q, kv)) & (q != kv) | (left(q, kv) == 3)

    mask = create_block_mask(mask_mod, None, None, N, N, "cpu", BLOCK_SIZE=8)
    visible = torch.tensor([[mask.visible(0, 0, i, j) for j in range(N)] for i in range(N)])
    assert torch.equal(visible, dense(mask_mod))


def test_captured_values_are_no_part_of_the_text():
    def of(window, documents):
        return trace_mask_mod(lambda b, h, q, kv: (documents[q] == documents[kv]) & (q - kv <= window), "cpu").text

    assert of(3, torch.zeros(8)) == of(5, torch.ones(9))


def test_text_is_both_c_and_cuda():
    text = trace_mask_mod(lambda b, h, q, kv: ((q - kv).abs() <= 3) & ~(q == kv) | (b > 0), "cpu").text
    assert "const bool" in text and "_Bool" not in text  # CUDA's C++ knows bool only


def test_gradients_of_every_operation_are_torchs():
    bias = torch.randn(4, requires_grad=True)
    gain = torch.tensor(0.7, requires_grad=True)

    def score_mod(score, b, h, q, kv):
        x = score * gain + bias[h]
        x = torch.tanh(x) + torch.sigmoid(x) * torch.exp(-abs(x)) + torch.sqrt(x * x + 1.5) - torch.log(x * x + 2)
        x = torch.where(kv <= q, x / (1.0 + gain * gain), torch.minimum(x, -x) + torch.sin(x) * torch.cos(x))
        return torch.maximum(x, 0.1 * x) + 2.0**0.5 * torch.exp2(0.1 * x) + x**3 * 0.01

    q, k, v = (torch.randn(1, 4, N, 16, requires_grad=True) for _ in range(3))
    out = flex_attention(q, k, v, score_mod=score_mod)
    scores = q @ k.transpose(-1, -2) / 4
    h, i, j = torch.meshgrid(*(torch.arange(n) for n in (4, N, N)), indexing="ij")
    expected = score_mod(scores, 0, h, i, j).softmax(-1) @ v
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=2e-5)
    inputs = (q, k, v, bias, gain)
    weight = torch.randn_like(out)
    grads, others = (torch.autograd.grad((result * weight).sum(), inputs) for result in (out, expected))
    for mine, theirs in zip(grads, others):
        torch.testing.assert_close(mine, theirs, atol=3e-5, rtol=1e-3)


@pytest.mark.parametrize("mod, words", [
    (lambda b, h, q, kv: q if q > kv else kv, "branch in Python"),
    (lambda b, h, q, kv: torch.erf(q) > 0, "cannot use erf"),
    (lambda b, h, q, kv: q.cumsum(0) > 0, "cannot use .cumsum"),
    (lambda b, h, q, kv: table[None] > 0, "NoneType|dimensions"),
])  # fmt: skip
def test_what_has_no_counterpart_is_refused_by_name(mod, words):
    with pytest.raises(TraceError, match=words):
        trace_mask_mod(mod, "cpu")


def test_unused_score_has_no_gradient():
    traced = trace_score_mod(lambda score, b, h, q, kv: 0.5 * q, "cpu")
    assert traced.grad_text.endswith("return v0; }") or "= 0" in traced.grad_text


class Traces:
    """Traces through the cache, and how often that was a real trace."""

    def __init__(self):
        self.count = 0

    def _trace(self, function, device):
        self.count += 1
        return trace_mask_mod(function, device)

    def __call__(self, function):
        return trace_once(self._trace, function, torch.device("cpu"))


def test_a_function_is_traced_again_only_where_its_text_may_differ():
    def same_document(window, documents):
        return lambda b, h, q, kv: (documents[q] == documents[kv]) & (q - kv <= window)

    traces, tables = Traces(), (torch.zeros(8), torch.ones(9))
    for documents in tables:
        assert traces(same_document(3, documents)).aux[0] is documents
    assert traces.count == 1
    assert traces(same_document(5, tables[0])).aux[1].tolist() == [5]
    assert "aux_i32" in traces(same_document(3, tables[0].int())).text
    assert traces.count == 3


def test_a_tensor_captured_twice_is_not_two_tensors():
    def either(first, second):
        return lambda b, h, q, kv: (first[q] > 0) | (second[kv] > 0)

    traces, (a, b) = Traces(), (torch.zeros(8), torch.ones(8))
    names = [traces(either(*pair)).aux_names[:-1] for pair in ((a, a), (a, b), (b, b))]  # the last holds the zeros
    assert [len(n) for n in names] == [1, 2, 1]
    assert traces.count == 2


def test_what_a_trace_reads_unseen_is_read_each_time():
    traces, window, config = Traces(), torch.tensor(3), types.SimpleNamespace(window=3)
    for mod in (lambda b, h, q, kv: q - kv <= window.item(), lambda b, h, q, kv: q - kv <= config.window):
        assert traces(mod).aux[0].tolist() == [3]
        window.fill_(4)
        config.window = 4
        assert traces(mod).aux[0].tolist() == [4]
        window.fill_(3)
        config.window = 3
