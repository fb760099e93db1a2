"""Snippets of the pages run as written, counts are right, notebooks are what their sources say."""

import dataclasses
import inspect
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from lmjax import data, objectives, removals
from lmjax.attribution import methods
from lmjax.models import registry
from lmjax.removals.registry import REGISTRY
from lmjax.training import TrainingConfig
from lmjax.training.augmentation import MASKING_KINDS, PLAIN_KINDS

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def run_snippets(page, *, count):
    """The names that a page's snippets, run one after the other, define."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert len(snippets) == count
    names = {}
    for snippet in snippets:
        exec(snippet, names)
    return names


def test_readme_snippets_run():
    names = run_snippets("README.md", count=2)
    assert names["logits"].shape == (2, 10)
    assert names["attribution"].heatmap.shape == (128, 128)
    assert np.argmax(names["logits"][0]) == names["scene"].label  # the object alone is enough


def test_snippets_on_adding_a_network_run():
    names = run_snippets("docs/adding_a_network.md", count=3)
    assert names["logits"].shape == (2, 10)
    assert np.ptp(names["expected"], axis=0).max() > 0  # images are seen


def test_snippets_on_networks_run():
    with jax.numpy_rank_promotion("allow"):
        names = run_snippets("docs/models.md", count=2)
    assert names["logits"].shape == (1, 10)
    assert set(names["linen"].variables["batch_stats"]) == {
        f"batch_stats.BatchNorm_0.{name}" for name in ("mean", "var")
    }


def test_snippets_on_removals_run():
    try:
        names = run_snippets("docs/removals.md", count=6)
    finally:
        REGISTRY.unregister("visible_mean")
    assert names["logits"].shape == names["dimmed"].shape == (2, 10)
    np.testing.assert_array_equal(names["named"], names["logits"])
    assert names["outside"].shape == (2, 2)


def test_the_table_of_removals_has_the_names_of_the_registry():
    table = (ROOT / "docs/removals.md").read_text().split("\n\n")[2]
    assert set(removals.names()) <= set(re.findall(r"`(\w+)`", table))


def test_snippets_on_objectives_run():
    names = run_snippets("docs/methods.md", count=1)
    assert names["found"].scores.shape == (16,)
    assert names["found"].target is None
    assert names["curve"].values[0] > 0  # an 8 it is
    assert np.ptp(names["either"].scores) > 0


def test_the_table_of_objectives_has_all_of_them():
    page = (ROOT / "docs/methods.md").read_text()
    listed = re.findall(r"^\| `(\w+)\(.*?\)` \|", page, re.M)
    functions = inspect.getmembers(objectives, inspect.isfunction)
    own = [name for name, each in functions if each.__module__ == objectives.__name__]
    assert sorted(listed) == sorted(n for n in own if n[0] != "_" and not n.startswith("check_"))


def test_snippets_on_devices_run():
    assert run_snippets("docs/devices.md", count=1)["logits"].shape == (40, 10)


def test_counts_of_networks_and_weights_are_the_registrys():
    readme, models = ((ROOT / page).read_text() for page in ("README.md", "docs/models.md"))
    published = [name for name in registry.names() if registry.network(name).bundled is None]
    assert f"{len(published)} in all" in readme
    assert f"lists {len(registry.tags())} published weights" in readme
    assert f"{len(registry.tags())} published tags" in (ROOT / "CHANGELOG.md").read_text()
    for publisher in ("torchvision", "timm"):
        tags = [tag for tag in registry.tags() if tag.startswith(f"{publisher}/")]
        assert re.search(rf"\b{len(tags)}( tags)? of {publisher}", models)


def test_every_network_is_in_the_table():
    table = (ROOT / "docs/models.md").read_text().split("## Parity and cost")[1]
    listed = dict(re.findall(r"^\| (\w+) \| ([\d,]+) \|", table, re.MULTILINE))
    assert listed == {n: f"{registry.network(n).parameters:,}" for n in registry.names()}


def test_every_method_is_on_the_page_of_methods():
    described = re.findall(r"^\*\*.*\(`(\w+)`\)", (ROOT / "docs/methods.md").read_text(), re.M)
    assert described == list(methods.names())


def test_every_source_is_on_the_page_of_data():
    page = (ROOT / "docs/data.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)[`:]", page, re.M)[: len(data.names())] == list(data.names())


def test_every_setting_and_augmentation_is_on_the_page_of_training():
    page = (ROOT / "docs/training.md").read_text()
    for setting in dataclasses.fields(TrainingConfig):
        assert f"--{setting.name.replace('_', '-')}" in page
    for kind in (*MASKING_KINDS, *PLAIN_KINDS):
        assert f"| `{kind}`" in page


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
