"""Every Python example of the documentation runs."""

import pathlib
import re

import pytest

pytest.importorskip("torch")
PAGE = pathlib.Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"^## (.*?)$.*?```python\n(.*?)```", PAGE.read_text(), flags=re.M | re.S)


@pytest.mark.parametrize("example", [code for _, code in EXAMPLES], ids=[title for title, _ in EXAMPLES])
def test_example_runs(example):
    exec(compile(example, str(PAGE), "exec"), {})
