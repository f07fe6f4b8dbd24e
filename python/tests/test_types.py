"""The package's types hold, by mypy's strictest rules."""

import pathlib

import pytest

torch = pytest.importorskip("torch")
api = pytest.importorskip("mypy.api")


def test_the_package_is_typed(tmp_path):
    if not torch.__version__.startswith("2.11."):
        pytest.skip("judged by the annotations of PyTorch 2.11")
    project = pathlib.Path(__file__).parents[2]
    package = str(project / "python" / "saccade")
    options = ["--config-file", str(project / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    found, problems, status = api.run([*options, package])
    assert status == 0, found + problems
