"""A study from outside the package: registered, run, resumed, reported, and on the command line."""

import dataclasses
import sys
from importlib.metadata import EntryPoint
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax import studies
from lmjax._utils import registry as registries
from lmjax.cli.main import main
from lmjax.studies import job, statistics
from lmjax.studies.settings import for_tables
from tests.studies import fakes

NETWORKS = {"a": fakes.network()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corners(studies.Study):
    """Confidence in a class while one corner of the image is visible.

    Attributes:
      removals: names of removals.
      share: of each side that is visible.
      digits: of the table.
    """

    name: ClassVar[str] = "corners"
    title: ClassVar[str] = "Corners of images"
    removals: tuple[str, ...] = ("layer", "gaussian_noise")
    share: float = 0.5
    digits: int = for_tables(3)

    def rows(self, batch):
        rows, image_of = [], np.arange(len(batch.samples))
        for network in batch.networks:
            height, width = batch.images(network).shape[1:3]
            mask = np.zeros((height, width), bool)
            mask[: int(self.share * height), : int(self.share * width)] = True
            for removal in self.removals:
                masks = np.stack([mask] * len(image_of))
                logits = batch.logits(network, removal, masks, image_of)
                predictions = batch.predictions(network, logits, image_of)
                rows += [row | {"removal": removal} for row in predictions]
        return rows

    def tables(self, rows):
        table = []
        for group in statistics.groups(rows, ["network", "removal"]):
            mean = group.columns["probability"].mean()
            table.append({**group.key, "probability": round(float(mean), self.digits)})
        return {"confidences": table}

    def figures(self, tables):
        return {}


@dataclasses.dataclass(frozen=True)
class Structural:
    """A study that derives from nothing."""

    name: ClassVar[str] = "structural"
    title: ClassVar[str] = "Structural"
    seed: int = 0

    def check(self, networks):
        assert list(networks) == ["a"]

    def rows(self, batch):
        return [{"image": s.index, "mean": float(s.image.mean())} for s in batch.samples]

    def tables(self, rows) -> dict[str, list[dict[str, Any]]]:
        return {}

    def figures(self, tables) -> dict[str, Any]:
        return {}


@pytest.fixture
def corners():
    with fakes.registered(Corners):
        yield Corners()


def test_it_runs_goes_on_and_is_reported(corners, tmp_path):
    options = {"models": NETWORKS, "images_per_shard": 2}
    few = studies.run(corners, fakes.Source(6), output=tmp_path, images=4, **options)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.glob("rows-*/*")}
    rows = studies.run(corners, fakes.Source(6), output=tmp_path, **options)
    assert rows.slice(0, few.num_rows).equals(few)
    assert files.items() <= {p: p.stat().st_mtime_ns for p in tmp_path.glob("rows-*/*")}.items()
    again = dataclasses.replace(corners, digits=1)
    assert studies.run(again, fakes.Source(6), output=tmp_path, **options).equals(rows)
    with pytest.raises(ValueError, match=r"settings.share is 0.5 there and 0.25 here"):
        studies.run(Corners(share=0.25), fakes.Source(6), output=tmp_path, **options)
    text = studies.report([tmp_path], tmp_path / "report.html").read_text()
    assert "Corners of images" in text
    assert studies.estimate(corners, fakes.Source(6), models=NETWORKS).evaluations == 6 * 3


def test_rows_are_those_of_a_plain_loop(corners, tmp_path):
    rows = studies.run(corners, fakes.Source(3), models=NETWORKS, output=tmp_path).to_pylist()
    classifier, source = NETWORKS["a"], fakes.Source(3)
    for row in fakes.pick(rows, removal="layer"):
        image = source[row["image"]]["image"] / np.float32(255)
        mask = np.zeros(image.shape[:2], bool)
        mask[: fakes.SIZE // 2, : fakes.SIZE // 2] = True
        logits = classifier.apply(classifier.normalise(image[None]), mask[None])
        assert row["prediction"] == int(np.argmax(logits))


@dataclasses.dataclass(frozen=True)
class Stripes:
    """A removal that shows every other row of what is hidden, on the image's mean colour."""

    segments: Any = None

    def logits(self, classifier, image, masks):
        rows = jnp.arange(image.shape[0])[:, None] % 2 == 0
        shown = (masks > 0) | rows[None]
        mean = image.mean(axis=(0, 1), keepdims=True)[None]
        images = jnp.where(shown[..., None], image[None], mean)
        return classifier.apply(classifier.normalise(images))


@pytest.mark.parametrize(
    "make", [Stripes, lambda *, segments: Stripes(segments)], ids=["same", "segments"]
)
def test_a_removal_from_outside_enters_a_study_by_its_name(make, tmp_path):
    lmjax.removals.register("stripes", make, description="Every other row stays.")
    try:
        study = studies.SegmentRemoval(
            removals=("stripes", "grey"), orders=("random",), fractions=(0.5, 1.0), grid_size=8
        )
        study.check(NETWORKS)
        rows = studies.run(study, fakes.Source(3), models=NETWORKS, output=tmp_path).to_pylist()
        title = lmjax.removals.title("stripes")
    finally:
        lmjax.removals.registry.REGISTRY.unregister("stripes")
    assert title == "stripes"
    predictor = lmjax.Predictor(NETWORKS["a"], Stripes())
    for row in fakes.pick(rows, removal="stripes", fraction=1.0):
        image = fakes.Source(3)[row["image"]]["image"] / np.float32(255)
        nothing = np.zeros((1, *image.shape[:2]), bool)
        probabilities = jax.nn.softmax(predictor(image, nothing)[0])
        assert row["prediction"] == int(probabilities.argmax())
        assert row["probability"] == pytest.approx(float(probabilities.max()), abs=1e-5)


def test_it_is_a_command(corners, tmp_path, monkeypatch, capsys):
    from lmjax.cli import study as commands

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(commands, "load_models", lambda models: NETWORKS)
    monkeypatch.setattr(job, "open_source", lambda source, length: fakes.Source(length))
    main(["study", "corners", "--images", "3", "--removals", "grey", "--share", "0.25"])
    assert "wrote runs/corners/confidences.csv" in capsys.readouterr().out


def test_names_list_it_and_errors_name_what_is_near(corners):
    assert studies.names()[:2] == ("removal", "shape")
    assert studies.get("corners") is Corners
    with pytest.raises(ValueError, match=r"study must be one of .*did you mean corners"):
        studies.get("corner")
    with pytest.raises(ValueError, match="comes with lmjax"):
        studies.register(type("Other", (studies.MaskShape,), {}))


@pytest.mark.parametrize("wrong", [Corners(), "corners", object, fakes.Source], ids=repr)
def test_what_is_no_class_of_a_study_is_not_registered(wrong):
    with pytest.raises(ValueError, match="study must be a dataclass derived from"):
        studies.register(wrong)


def test_entry_points_of_packages_are_found(monkeypatch):
    where = f"{__name__}:Corners"
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Corners.__module__])
    entry = EntryPoint("corners", where, "lmjax.studies")
    monkeypatch.setattr(registries, "entry_points", lambda group: [entry])
    assert studies.names()[-1] == "corners"
    try:
        assert studies.get("corners") is Corners
        assert studies.registry.description("corners").startswith("Confidence in a class")
    finally:
        studies.registry.unregister("corners")


def test_what_has_all_methods_is_a_study(tmp_path):
    assert isinstance(Structural(), studies.Study)
    rows = studies.run(Structural(), fakes.Source(3), models=NETWORKS, output=tmp_path)
    assert rows.column("image").to_pylist() == [0, 1, 2]


def test_studies_print_their_settings():
    expected = "Corners(seed=1, removals=('layer', 'gaussian_noise'), share=0.5, digits=3)"
    assert repr(Corners(seed=1)) == expected
