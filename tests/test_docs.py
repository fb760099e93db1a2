"""The README's snippets run as written, and notebooks are what their sources say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from lmjax.methods import METHODS

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def test_readme_snippets_run():
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(snippets) == 2
    names = {}
    for snippet in snippets:
        exec(snippet, names)
    assert names["logits"].shape == (2, 10)
    assert names["attribution"].heatmap.shape == (128, 128)
    assert np.argmax(names["logits"][0]) == names["scene"].label  # the object alone is enough


def test_every_method_is_on_the_page_of_methods():
    described = re.findall(r"^\*\*.*\(`(\w+)`\)", (ROOT / "docs/methods.md").read_text(), re.M)
    assert described == list(METHODS)


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("source", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_their_sources_and_outputs(source):
    notebook = json.loads(source.with_suffix(".ipynb").read_text())
    cells = re.split(r"^# %%(.*)\n", source.read_text(), flags=re.MULTILINE)[1:]
    written = [text.strip() for kind, text in zip(cells[::2], cells[1::2]) if not kind.strip()]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert ["".join(cell["source"]).strip() for cell in code] == written
    assert all(cell["outputs"] for cell in code)
