"""Every Python example of the documentation runs."""

import pathlib
import re

import pytest

pytest.importorskip("torch")
ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "python.md"]
SECTIONS = [(page.name, *section.split("\n", 1)) for page in PAGES for section in page.read_text().split("\n## ")[1:]]
EXAMPLES = {f"{page}: {title}, example {i}": code for page, title, section in SECTIONS
            for i, code in enumerate(re.findall(r"```python\n(.*?)```", section, flags=re.S), 1)}


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example):
    exec(compile(EXAMPLES[example], example, "exec"), {})
