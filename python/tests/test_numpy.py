"""The package without torch: NumPy in, NumPy out, and errors in words."""

import copy
import os
import pickle
import subprocess
import sys

import numpy
import pytest

import saccade


def random(*shape, seed=0):
    return numpy.random.default_rng(seed).standard_normal(shape, dtype=numpy.float32)


def plain(q, k, v, visible):
    k, v = (t.repeat(q.shape[2] // t.shape[2], axis=2) for t in (k, v))
    scores = numpy.einsum("bihd,bjhd->bhij", q.astype(float), k) / q.shape[-1] ** 0.5
    scores = numpy.where(visible, scores, -numpy.inf)
    weights = numpy.exp(scores - scores.max(-1, keepdims=True))
    return numpy.einsum("bhij,bjhd->bihd", weights / weights.sum(-1, keepdims=True), v)


@pytest.fixture
def qkv():
    return random(2, 33, 4, 16), random(2, 33, 2, 16, seed=1), random(2, 33, 2, 24, seed=2)


def test_causal_attention_is_the_plain_formula(qkv):
    out, lse = saccade.attention(*qkv, causal=True, return_lse=True)
    assert out.shape == (2, 33, 4, 24) and lse.shape == (2, 4, 33)
    numpy.testing.assert_allclose(out, plain(*qkv, numpy.tri(33, dtype=bool)), atol=2e-6)


def test_strided_inputs_are_read_where_they_lie(qkv):
    q, k, v = (numpy.ascontiguousarray(t.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for t in qkv)
    numpy.testing.assert_array_equal(saccade.attention(q, k, v), saccade.attention(*qkv))


def test_a_mask_text_reads_arrays_and_scalars_by_name(qkv):
    document = numpy.repeat(numpy.arange(3, dtype=numpy.int32), 11)
    text = "aux_i32(document, q_idx) == aux_i32(document, kv_idx) && kv_idx <= q_idx + (int)scalar(ahead)"
    mask = saccade.mask_mod(text, document=document, ahead=2.0)
    index = numpy.arange(33)
    visible = (document[:, None] == document) & (index <= index[:, None] + 2)
    numpy.testing.assert_allclose(saccade.attention(*qkv, mask_mod=mask), plain(*qkv, visible), atol=2e-6)
    for number in (2, numpy.int64(2), numpy.float32(2)):
        again = saccade.attention(*qkv, mask_mod=saccade.mask_mod(text, document=document, ahead=number))
        numpy.testing.assert_array_equal(again, saccade.attention(*qkv, mask_mod=mask))
    wider = mask.with_values(scalars={"ahead": 40.0})
    visible = document[:, None] == document
    numpy.testing.assert_allclose(saccade.attention(*qkv, mask_mod=wider), plain(*qkv, visible), atol=2e-6)


def test_an_array_of_booleans_is_read_as_bytes(qkv):
    seen = numpy.arange(33) % 3 != 0
    expected = plain(*qkv, numpy.broadcast_to(seen, (33, 33)))
    for array in (seen, numpy.broadcast_to(seen, 33)):  # the latter is read-only, and not exported by NumPy
        out = saccade.attention(*qkv, mask_mod=saccade.mask_mod("aux_u8(seen, kv_idx)", seen=array))
        numpy.testing.assert_allclose(out, expected, atol=2e-6)


def test_a_text_alone_is_a_modifier(qkv):
    for options in (dict(mask_mod="kv_idx <= q_idx"),
                    dict(block_mask=saccade.block_mask.from_mod("kv_idx <= q_idx", 33, 33, block_size=(8, 8)))):
        out = saccade.attention(*qkv, score_mod="score", **options)
        numpy.testing.assert_allclose(out, saccade.attention(*qkv, causal=True), atol=2e-6)


def test_inputs_may_be_read_only_and_out_may_not(qkv):
    expected, out = saccade.attention(*qkv), numpy.zeros((2, 33, 4, 24), numpy.float32)
    for array in (*qkv, out):
        array.setflags(write=False)
    numpy.testing.assert_array_equal(saccade.attention(*qkv), expected)
    with pytest.raises(ValueError, match="out: is read-only"):
        saccade.attention(*qkv, out=out)


def test_block_masks_combine(qkv):
    size = (8, 16)
    near = saccade.block_mask.window(33, 33, 4, 4, block_size=size)
    mask = saccade.block_mask.causal(33, 33, block_size=size) & ~near
    index = numpy.arange(33)
    visible = (index <= index[:, None]) & ~(abs(index - index[:, None]) <= 4)
    assert all(mask.visible(0, 0, i, j) == visible[i, j] for i in range(33) for j in range(33))
    out = saccade.attention(*qkv, block_mask=mask)
    numpy.testing.assert_array_equal(out[:, :5], 0)  # nothing visible: zero, never NaN
    numpy.testing.assert_allclose(out[:, 5:], plain(*qkv, visible)[:, 5:], atol=2e-6)


def test_a_block_mask_is_copied_and_pickled_as_the_call_that_made_it(qkv):
    limit = saccade.mask_mod("kv_idx <= aux_i32(limit, q_idx)", limit=numpy.arange(33, dtype=numpy.int32)[::-1].copy())
    mask = saccade.block_mask.from_mod(limit, 33, 33, block_size=(8, 16))
    mask |= ~saccade.block_mask.window(33, 33, 9, -1, block_size=(8, 16))
    expected = saccade.attention(*qkv, block_mask=mask)
    for other in (copy.deepcopy(mask), pickle.loads(pickle.dumps(mask))):
        assert repr(other) == repr(mask) and "PARTIAL" in repr(mask)
        numpy.testing.assert_array_equal(saccade.attention(*qkv, block_mask=other), expected)


def test_eagle3_lists_what_its_definition_lists():
    mask = saccade.block_mask.eagle3(256, 1024, block_size=(64, 32))
    info = mask.info
    assert (info.full, info.partial, info.diagonal) == (2 * (0 + 1 + 2 + 3), 2 * 4, 3 * 2 * 4)
    assert mask.visible(0, 0, 5, 3 * 256 + 5) and not mask.visible(0, 0, 5, 3 * 256 + 6)


def test_errors_name_the_argument(qkv):
    q, k, v = qkv
    with pytest.raises(saccade.ArgumentError, match=r"k: shape is \(2, 33, 2, 8\), expected"):
        saccade.attention(q, numpy.ascontiguousarray(k[..., :8]), v)
    with pytest.raises(ValueError, match="window_align: 'bottom' is neither"):
        saccade.attention(q, k, v, window=(3, 0), window_align="bottom")
    with pytest.raises(TypeError, match="block_mask: a saccade.BlockMask is needed, not ndarray"):
        saccade.attention(q, k, v, block_mask=q)
    with pytest.raises(TypeError, match="mask_mod: C text.*not a function"):
        saccade.attention(q, k, v, mask_mod=lambda b, h, i, j: i >= j)
    with pytest.raises(ValueError, match="mask_mod: is a score_mod"):
        saccade.attention(q, k, v, mask_mod=saccade.score_mod("score"))
    with pytest.raises(TypeError, match="k: an array is needed, not a list"):
        saccade.attention(q, k.tolist(), v)
    with pytest.raises(ValueError, match=r"v: shape is \(16,\), expected"):
        saccade.attention(q, k, v[0, 0, 0, :16])
    with pytest.raises(TypeError, match="unsupported operand"):
        saccade.block_mask.causal(8, 8) & 3
    for window in (3, (3,), (3, None), (1.5, 0)):
        with pytest.raises(ValueError, match="window: .* is no pair"):
            saccade.attention(q, k, v, window=window)
    with pytest.raises(TypeError, match="deterministic: 'no': an integer is required"):
        saccade.attention(q, k, v, deterministic="no")
    with pytest.raises(TypeError, match="seqused_k: list is no tensor"):
        saccade.attention(q, k, v, seqused_k=[33, 33])
    with pytest.raises(TypeError, match="mask_mod: seen: list is no tensor"):
        saccade.attention(q, k, v, mask_mod=saccade.mask_mod("aux_u8(seen, kv_idx)", seen=[1] * 33))
    with pytest.raises(TypeError, match="mask_mod: C text is needed, not a NoneType"):
        saccade.mask_mod(None)
    with pytest.raises(ValueError, match="window_align: 'middle' is neither"):
        saccade.attention(q, k, v, window_align="middle")
    with pytest.raises(TypeError, match="out: list is no tensor"):
        saccade.attention(q, k, v, out=[1.0])
    with pytest.raises(TypeError, match="q: DLPack only supports native byte order"):
        saccade.attention(q.astype(">f4"), k, v)
    with pytest.raises(TypeError, match=r"lengths: \[1.5, 2\] are not whole numbers"):
        saccade.block_mask.documents([1.5, 2])
    with pytest.raises(OverflowError, match="q_len: 1099511627776"):
        saccade.block_mask.causal(1 << 40, 8)
    with pytest.raises(saccade.CompileError, match="scor"):
        saccade.attention(q, k, v, score_mod=saccade.score_mod("scor + 1"))
    with pytest.raises(saccade.UnsupportedError, match="dtype fp64"):
        saccade.attention(*(t.astype(float) for t in qkv), backend="cpu")


def test_backends_say_why_not():
    names = {b.name for b in saccade.backends()}
    assert {"cpu", "reference"} <= names
    assert all(b.reasons or b.usable for b in saccade.backends())
    # A GPU's backends are not held against tensors of the host.
    assert not any("tensors are on" in reason for b in saccade.backends() for reason in b.reasons)


def test_the_library_outlives_its_closing():
    """Threads of OpenMP still wait in code that only this library needs, as they do when Python ends and closes it."""
    code = """
import numpy, os, time, saccade
from saccade._library import ffi, lib
q = numpy.zeros((1, 512, 8, 64), numpy.float32)
saccade.attention(q, q, q)
ffi.dlclose(lib)
time.sleep(0.1)
os._exit(0)"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_WAIT_POLICY": "active"})


def test_imports_without_torch():
    code = "import sys, saccade; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    shown = subprocess.run([sys.executable, "-m", "saccade"], check=True, capture_output=True, text=True).stdout
    assert shown.startswith(f"saccade {saccade.__version__}") and "cpu" in shown
