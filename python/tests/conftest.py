import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")


def _devices():
    try:
        import torch
    except ImportError:
        return []
    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=_devices())
def device(request):
    return request.param


@pytest.fixture(autouse=True)
def fixed_seed():
    """A test draws the same numbers whatever ran before it."""
    try:
        import torch
    except ImportError:
        return
    torch.manual_seed(0)


def assert_close_to_truth(result, plain, truth):
    """At most twice the error of the plain formula in the input dtype, plus 1e-5 of the largest value."""
    error = (result.double() - truth).abs().max().item()
    bound = 2 * (plain.double() - truth).abs().max().item() + 1e-5 * truth.abs().max().item()
    assert error <= bound, f"error {error:.3e} is above the bound {bound:.3e}"
