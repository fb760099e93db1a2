"""Snippets of the pages run as written, counts are right, notebooks are what their sources say."""

import dataclasses
import inspect
import json
import re
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

import lmjax
from lmjax import data, objectives, removals
from lmjax.attribution import methods
from lmjax.cli.main import main
from lmjax.data import SourceSpec
from lmjax.models import registry
from lmjax.removals.registry import REGISTRY
from lmjax.training import TrainingConfig
from lmjax.training.augmentation import MASKING_KINDS, PLAIN_KINDS
from tests.support import small_digits

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.py"))


def run_snippets(page, *, count, smaller=()):
    """The names that a page's snippets, run one after the other, define.

    Numbers may be made smaller, by pairs of texts; all must be there.
    """
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert len(snippets) == count
    text = "\n".join(snippets)
    for large, small in smaller:
        assert large in text
        text = text.replace(large, small)
    names = {}
    exec(text, names)
    return names


@pytest.fixture
def _small_network(tmp_path, monkeypatch):
    """For pages that say nothing of what the network answers."""
    small_digits.replace(monkeypatch, tmp_path)


@pytest.mark.filterwarnings("ignore:40 samples for")
def test_snippets_of_five_minutes_run():
    fewer = [("key=jax.random.key(0))", "key=jax.random.key(0), num_samples=40)")]
    names = run_snippets("docs/start.md", count=2, smaller=fewer)
    assert names["logits"].shape == (2, 10)
    assert names["attribution"].heatmap.shape == (128, 128)
    assert np.argmax(names["logits"][0]) == names["scene"].label  # the object alone is enough


def test_snippets_on_adding_a_network_run():
    names = run_snippets("docs/howto/add-a-network.md", count=3)
    assert names["logits"].shape == (2, 10)
    assert np.ptp(names["expected"], axis=0).max() > 0  # images are seen


def test_snippets_on_networks_run():
    with jax.numpy_rank_promotion("allow"):
        names = run_snippets("docs/howto/own-network.md", count=2)
    assert names["logits"].shape == (1, 10)
    assert set(names["linen"].variables["batch_stats"]) == {
        f"batch_stats.BatchNorm_0.{name}" for name in ("mean", "var")
    }


@pytest.mark.usefixtures("_small_network")
def test_snippets_on_removals_run():
    try:
        names = run_snippets("docs/howto/own-removal.md", count=6)
    finally:
        REGISTRY.unregister("visible_mean")
    assert names["logits"].shape == names["dimmed"].shape == (2, 10)
    np.testing.assert_array_equal(names["named"], names["logits"])
    assert names["outside"].shape == (2, 2)


def test_the_table_of_removals_has_the_names_of_the_registry():
    table = (ROOT / "docs/reference/removals.md").read_text().split("\n\n")[2]
    assert set(removals.names()) <= set(re.findall(r"`(\w+)`", table))


def test_the_table_of_objectives_has_all_of_them():
    page = (ROOT / "docs/howto/objectives.md").read_text()
    listed = re.findall(r"^\| `(\w+)\(.*?\)` \|", page, re.M)
    functions = inspect.getmembers(objectives, inspect.isfunction)
    own = [name for name, each in functions if each.__module__ == objectives.__name__]
    assert sorted(listed) == sorted(n for n in own if n[0] != "_" and not n.startswith("check_"))


@pytest.mark.filterwarnings("ignore:40 samples for")
def test_snippets_on_objectives_run():
    fewer = [("num_samples=200", "num_samples=40")]
    fewer += [("against.heatmap, ", "against.heatmap, step=2048, ")]
    names = run_snippets("docs/howto/objectives.md", count=1, smaller=fewer)
    assert names["against"].scores.shape == (16,)
    assert names["against"].target is None
    assert names["curve"].values[0] > 0  # an 8 it is
    assert np.ptp(names["either"].scores) > 0


def test_snippets_on_pairs_run():
    """And the page says what they find."""
    names = run_snippets("docs/howto/pairs-of-segments.md", count=1)
    pairs = [names["found"].pairs[one, other] for one, other in ((3, 4), (2, 4), (1, 6))]
    np.testing.assert_allclose(pairs, [0.28, -0.29, 0.31], atol=0.006)


@pytest.mark.usefixtures("_small_network")
def test_snippets_on_devices_run():
    assert run_snippets("docs/howto/many-devices.md", count=1)["logits"].shape == (40, 10)


@pytest.mark.usefixtures("_small_network")
def test_snippets_on_training_run(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    fewer = [("24_000", "16"), ("epochs=2", "epochs=1, batch_size=8"), ("12_000", "16")]
    names = run_snippets("docs/howto/train.md", count=2, smaller=fewer)
    assert names["table"].num_rows == 2
    assert (tmp_path / "runs/own/classifier.safetensors").is_file()
    assert names["classifier"].class_names[9] == "9"


@pytest.mark.usefixtures("_small_network")
def test_snippets_on_studies_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fewer = [
        ("length=500", "length=2"),
        ('("slic",))', '("grid",), orders=("random",), fractions=(0.0, 0.5))'),
    ]
    names = run_snippets("docs/howto/run-a-study.md", count=1, smaller=fewer)
    assert set(names["table"].column("removal").to_pylist()) == {"layer", "grey"}
    assert (tmp_path / "report.html").is_file()


@pytest.mark.usefixtures("_small_network")
def test_snippets_on_the_contest_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fewer = [
        *((f"length={n}", "length=2") for n in (500, 300)),
        ('"grey_fitted"))', '"grey_fitted"), parts=("random",), n_segments=(16,), steps=2)'),
    ]
    try:
        names = run_snippets("docs/reference/studies.md", count=1, smaller=fewer)
    finally:
        REGISTRY.unregister("grey_fitted")
    assert set(names["table"].column("removal").to_pylist()) == {"layer", "grey", "grey_fitted"}


LIBRARIES = {"Captum": "captum", "lime": "lime", "shap": "shap", "Quantus": "quantus"}


@pytest.fixture(scope="module")
def sections():
    """The code for those who come from other libraries: common to all, and by library."""
    text = (ROOT / "docs/howto/from-other-libraries.md").read_text()
    common, *rest = re.split(r"^## (.*)$", text, flags=re.M)
    assert {*LIBRARIES, "Xplique"} == set(rest[::2])
    code = {name: python(part) for name, part in zip(rest[::2], rest[1::2])}
    names = {}
    exec(python(common), names)
    return names, code


def python(text):
    return "\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


@pytest.mark.filterwarnings("default")  # theirs
@pytest.mark.parametrize("library", LIBRARIES)
def test_other_libraries_and_this_one_agree_side_by_side(library, sections):
    pytest.importorskip(LIBRARIES[library])
    names, code = dict(sections[0]), sections[1]
    exec(code[library], names)
    segments = names["segments"]
    if library == "Captum":
        firsts = [np.flatnonzero(segments == segment)[0] for segment in range(16)]
        theirs = names["ablation"].numpy()[0, 0].ravel()[firsts]
        np.testing.assert_allclose(names["ablated"].scores, theirs, atol=1e-6)
        theirs = names["gradients"].detach().numpy()[0].sum(axis=0)
        np.testing.assert_allclose(names["integrated"].scores, theirs, atol=1e-6)
        theirs = names["windows"].detach().numpy()[0, 0]
        np.testing.assert_allclose(names["occluded"].scores, theirs, atol=1e-6)
    elif library == "lime":
        assert np.corrcoef(names["weights"], names["found"].scores)[0, 1] > 0.99
    elif library == "shap":
        theirs = names["values"].values.sum()
        np.testing.assert_allclose(names["sampled"].scores.sum(), theirs, atol=1e-5)
    else:
        (rank_accuracy,), (gini,) = names["scores"]
        np.testing.assert_allclose(names["rank_accuracy"], rank_accuracy)
        np.testing.assert_allclose(names["gini"], gini, atol=1e-6)


def test_maps_of_captum_are_scored():
    pytest.importorskip("captum")
    names = run_snippets("docs/howto/score-other-maps.md", count=1)
    assert len(set(names["areas"].values())) == 3


@pytest.mark.usefixtures("_small_network")
def test_figures_for_papers_are_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_snippets("docs/howto/paper-figure.md", count=1)
    names["plt"].close(names["figure"])
    assert (tmp_path / "removals.pdf").read_bytes().startswith(b"%PDF")


def commands_of(page):
    """The arguments of the commands of lmjax in a page's snippets, as a shell expands them.

    Pages of results begin with the names that their first page sets.
    """
    text = (ROOT / page).read_text()
    if str(page).startswith("docs/results/"):
        index = (ROOT / "docs/results/index.md").read_text()
        text = "\n".join(["```sh", *re.findall(r"^[A-Z]=.*", index, re.M), "```", text])
    snippets = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = "\n".join(snippets).replace("\\\n", " ").splitlines()
    lines = [line for line in lines if re.match("lmjax |[A-Z]+=", line)]
    script = "lmjax() { printf '%s\\0' \"$@\"; echo; }\n" + "\n".join(lines)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    return [line.split("\0")[:-1] for line in done.stdout.splitlines()]


@pytest.fixture
def only_read(monkeypatch):
    """Commands read their options, look at how sources are written, and do nothing."""

    def nothing(*_, **__):
        raise SystemExit(0)

    def source(written, *_, **__):
        SourceSpec.parse(written)

    def study(_, written, **__):
        source(written)
        nothing()

    monkeypatch.setattr(lmjax, "explain", nothing, raising=False)
    monkeypatch.setattr("lmjax.cli.explain.explain_into_files", nothing)
    monkeypatch.setattr(lmjax.models, "convert", nothing, raising=False)
    for function in ("lmjax.studies.reporting.report_each", "lmjax.studies.reporting.write_seeds"):
        monkeypatch.setattr(function, nothing)
    monkeypatch.setattr("lmjax.cli.train.train", nothing)
    for function in ("run", "estimate"):
        monkeypatch.setattr(f"lmjax.cli.study.{function}", study)
    monkeypatch.setattr("lmjax.cli.study.load_models", lambda models: models)
    monkeypatch.setattr("lmjax.cli.train._open", lambda spec, config: (spec, config))
    monkeypatch.setattr("lmjax.cli.main.import_modules", lambda modules: None)
    monkeypatch.setattr("lmjax.data.open_source", source)
    for function in ("prepare_cutout_scenes", "imagenet.wordnet.write_similarity"):
        monkeypatch.setattr(f"lmjax.data.{function}", nothing)
    for function in ("fit_calibration", "write_samples"):
        monkeypatch.setattr(lmjax.studies, function, nothing, raising=False)
    for command in ("train", "study"):
        monkeypatch.setattr(f"lmjax.cli.{command}.join", lambda **_: (0, 1))


PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
    if re.search(r"^```sh\n((?!```).*\n)*lmjax ", page.read_text(), re.M)
    and page.relative_to(ROOT).as_posix() != "docs/results/training.md"  # has loops
)


@pytest.mark.usefixtures("only_read")
@pytest.mark.parametrize("page", PAGES)
def test_commands_on_pages_are_taken(page, capsys):
    commands = commands_of(page)
    for arguments in commands:
        if "--import" in arguments:  # with names of the reader's own
            continue
        status = 0
        try:
            main(arguments)
        except SystemExit as stop:
            status = stop.code
        assert not status, (arguments, status, capsys.readouterr())
    assert commands


def test_commands_are_expanded_as_shells_do(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('```sh\nls\nlmjax a "b c" d-{0,1} \\\n  --e  # f\n```\n')
    assert commands_of(page) == [["a", "b c", "d-0", "d-1", "--e"]]


def test_counts_of_networks_and_weights_are_the_registrys():
    overview, start, models = (
        (ROOT / "docs" / page).read_text()
        for page in ("reference/index.md", "start.md", "reference/networks.md")
    )
    published = [name for name in registry.names() if registry.network(name).bundled is None]
    assert f"{len(published)} in all" in overview
    assert f"[{len(registry.tags())} weights]" in start
    for publisher in ("torchvision", "timm"):
        tags = [tag for tag in registry.tags() if tag.startswith(f"{publisher}/")]
        assert re.search(rf"\b{len(tags)}( tags)? of {publisher}", models)


def test_every_network_is_in_the_table():
    table = (ROOT / "docs/reference/networks.md").read_text().split("## Parity and cost")[1]
    listed = dict(re.findall(r"^\| (\w+) \| ([\d,]+) \|", table, re.MULTILINE))
    assert listed == {n: f"{registry.network(n).parameters:,}" for n in registry.names()}


def test_every_method_is_on_the_page_of_methods():
    described = re.findall(
        r"^\*\*.*\(`(\w+)`\)", (ROOT / "docs/reference/methods.md").read_text(), re.M
    )
    assert described == list(methods.names())


def test_every_source_is_on_the_page_of_data():
    page = (ROOT / "docs/reference/data.md").read_text()
    assert re.findall(r"^\| `([a-z-]+)[`:]", page, re.M)[: len(data.names())] == list(data.names())


def test_every_setting_and_augmentation_is_on_the_page_of_training():
    page = (ROOT / "docs/howto/train.md").read_text()
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
