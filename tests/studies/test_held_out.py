"""Calibrations and samples in files: by name everywhere, never of the images that are judged."""

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import lmjax
from lmjax import data, removals, studies
from lmjax._utils import array_file
from lmjax._utils.photographs import find
from lmjax.data.files.images import read_image
from lmjax.evaluation import Predictor
from lmjax.removals.calibration import read_calibrated
from lmjax.removals.samples import origin_of, read_images
from lmjax.studies import measurements
from lmjax.studies.held_out import HeldOut, HeldOutError
from lmjax.studies.samples import Sample
from tests.studies import fakes

pytestmark = pytest.mark.usefixtures("small_network")

TRAIN = "digit-scenes,split=train"
FITTED = {"images": 12, "variants": 4}


@pytest.fixture(scope="module")
def calibrations(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrations")
    for name in ("grey", "gaussian_noise"):
        studies.fit_calibration(name, TRAIN, output=folder / f"{name}.npz", **FITTED)
    studies.write_samples(folder / "samples.npz", TRAIN, images=12)
    return folder


@pytest.fixture(scope="module")
def classifier():
    return lmjax.models.load("resnet18_digits")


@pytest.fixture(scope="module")
def image(classifier):
    return classifier.preprocessing(data.DigitScenes("test", length=1)[0].image)


@pytest.fixture(scope="module")
def masks():
    return np.random.default_rng(0).random((5, 8, 8)) < 0.5


def _masks(masks):
    return masks.repeat(16, axis=1).repeat(16, axis=2)


@pytest.mark.parametrize("name", ["grey", "gaussian_noise"])
def test_a_file_gives_the_mapped_logits_of_the_removal(
    calibrations, classifier, image, masks, name
):
    file = calibrations / f"{name}.npz"
    fitted = read_calibrated(file)
    found = lmjax.evaluate(Predictor(classifier, f"calibrated@{file}"), image, _masks(masks))
    plain = lmjax.evaluate(Predictor(classifier, fitted.removal), image, _masks(masks))
    expected = plain @ np.asarray(fitted.matrix).T + np.asarray(fitted.bias)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert abs(found - plain).max() > 0.01


def test_the_fit_is_that_of_the_variants(calibrations, classifier):
    """Oracle: the variants evaluated one image at a time, and the fit of their logits."""
    from lmjax.studies.held_out import _masks as drawn

    logits, classes = [], []
    for i, scene in enumerate(data.open_source(TRAIN, length=12)):
        picture = classifier.preprocessing(scene.image)
        variants = drawn(picture.shape[:2], 4, (0, i))
        logits.append(lmjax.evaluate(Predictor(classifier, "grey"), picture, variants))
        classes += 4 * [int(classifier.logits(picture[None])[0].argmax())]
    expected = removals.calibrated("grey", np.concatenate(logits), np.array(classes))
    fitted = read_calibrated(calibrations / "grey.npz")
    np.testing.assert_allclose(fitted.matrix, expected.matrix, atol=1e-3)
    np.testing.assert_allclose(fitted.bias, expected.bias, atol=1e-3)
    assert fitted.fitted is not None
    assert (fitted.fitted.images, fitted.fitted.variants) == (12, 4)


def test_segments_of_all_sizes_and_all_shares_are_removed():
    from lmjax.studies.held_out import _masks as drawn

    masks = drawn((142, 142), 200, (0,))
    changes = (masks[:, :, 1:] != masks[:, :, :-1]).any(axis=1).sum(axis=1)
    assert set(changes) >= {4, 9, 21, 70}  # cells along a side, less one
    shares = masks.mean(axis=(1, 2))
    assert shares.min() < 0.05
    assert shares.max() > 0.95


def test_samples_are_the_preprocessed_images(calibrations, classifier, image, masks):
    import jax

    file = calibrations / "samples.npz"
    scenes = data.open_source(TRAIN, length=12)
    images = np.stack([classifier.preprocessing(scene.image) for scene in scenes])
    np.testing.assert_array_equal(read_images(file), images)
    key = jax.random.key(3)
    named = Predictor(classifier, removals.make(f"samples@{file}", key=key))
    made = Predictor(classifier, lmjax.Samples(images, key=key))
    np.testing.assert_array_equal(
        lmjax.evaluate(named, image, _masks(masks)), lmjax.evaluate(made, image, _masks(masks))
    )


def test_a_tilde_stands_for_the_home_folder(calibrations, monkeypatch):
    monkeypatch.setenv("HOME", str(calibrations))
    found = removals.make("calibrated@~/grey.npz")
    np.testing.assert_array_equal(found.matrix, read_calibrated(calibrations / "grey.npz").matrix)


@pytest.mark.parametrize("name", ["calibrated@{}/grey.npz", "samples@{}/samples.npz"])
def test_studies_and_explanations_take_them(calibrations, tmp_path, name):
    name = name.format(calibrations)
    study = studies.SegmentRemoval(
        removals=("grey", name), fractions=(0.0, 0.5), orders=("random",)
    )
    run = {"images": 2, "output": tmp_path / "run", "progress": False}
    rows = studies.run(study, "digit-scenes", **run).to_pylist()
    assert {row["removal"] for row in rows} == {"grey", name}
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert list(manifest["identity"]["files"]) == [name]
    options = {"method": "leave_one_out", "segmenter": "grid"}
    explanation = lmjax.explain("scene:0", output=tmp_path / "e.png", removal=name, **options)
    assert np.isfinite(explanation["leave_one_out", name].attribution.scores).all()
    record = json.loads((tmp_path / "e.json").read_text())
    assert record["files_sha256"] == manifest["identity"]["files"]


def test_a_study_does_not_go_on_with_another_file(calibrations, tmp_path):
    file = tmp_path / "map.npz"
    file.write_bytes((calibrations / "grey.npz").read_bytes())
    study = studies.SegmentRemoval(
        removals=(f"calibrated@{file}",), fractions=(0.0, 0.5), orders=("random",)
    )
    run = {"images": 1, "output": tmp_path / "run", "progress": False}
    studies.run(study, "digit-scenes", **run)
    fitted = read_calibrated(file)
    dataclasses.replace(fitted, bias=fitted.bias + 1).save(file)
    with pytest.raises(ValueError, match="files"):
        studies.run(study, "digit-scenes", **run)


def test_the_images_that_are_judged_are_not_those_of_the_fit(calibrations, tmp_path):
    study = studies.SegmentRemoval(removals=(f"calibrated@{calibrations / 'grey.npz'}",))
    with pytest.raises(ValueError, match="was made from this source"):
        studies.run(study, TRAIN, images=1, output=tmp_path / "run")


def test_samples_are_not_those_that_are_judged(calibrations, tmp_path):
    study = studies.SegmentRemoval(removals=(f"samples@{calibrations / 'samples.npz'}",))
    with pytest.raises(ValueError, match="was made from this source"):
        studies.run(study, TRAIN, images=1, output=tmp_path / "run")


@pytest.mark.parametrize("name", ["calibrated@{}/grey.npz", "samples@{}/samples.npz"])
def test_an_image_that_comes_by_another_source_is_left_out(calibrations, tmp_path, name):
    """The second is one that the file was made from; this source has another version."""

    class Mixed(list):
        version = "mixed"

    mixed = Mixed([*data.DigitScenes("test", length=1), data.DigitScenes("train", length=2)[1]])
    study = studies.SegmentRemoval(
        removals=(name.format(calibrations),), orders=("random",), fractions=(0.0, 0.5)
    )
    with pytest.warns(UserWarning, match="1 of 2 images are left out.* was made from this image"):
        rows = studies.run(study, mixed, output=tmp_path / "run", progress=False)
    assert set(rows.column("image").to_pylist()) == {0}
    (error,) = studies.errors(tmp_path / "run")
    assert error["id"] == mixed[1].id


def test_sources_without_a_version_are_told_by_their_images(tmp_path):
    train, test = (
        list(data.DigitScenes("train", length=8)),
        list(data.DigitScenes("test", length=1)),
    )
    studies.write_samples(tmp_path / "samples.npz", train, images=8)
    study = studies.MaskShape(removals=(f"samples@{tmp_path / 'samples.npz'}",), margins=(0,))
    for images, left_out in ((test, 0), ([*test, train[3]], 1)):
        out = tmp_path / f"run{left_out}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            studies.run(study, images, output=out, progress=False)
        assert len(studies.errors(out)) == left_out


@pytest.mark.parametrize("name", ["calibrated@{}/grey.npz", "samples@{}/samples.npz"])
def test_an_image_of_the_fit_is_not_explained(calibrations, name):
    options = {"segmenter": "grid", "method": "leave_one_out", "show_variants": 0}
    options["removal"] = name.format(calibrations)
    image = data.DigitScenes("train", length=2)[1].image
    with pytest.raises(ValueError, match="was made from image array itself"):
        lmjax.explain(image, model="resnet18_digits", **options)


def test_photographs_that_samples_takes_are_not_explained_under_it():
    options = {"model": "resnet18_digits", "segmenter": "grid", "method": "leave_one_out"}
    options["show_variants"] = 0
    files = [find(name) for name in ("china.jpg", "flower.jpg")]
    array = read_image(files[0])
    for image, name in (
        *(("photograph:china", "photograph:china"), ("photograph:flower", "photograph:flower")),
        *((array, "array"), (array / np.float32(255), "array"), (files[1], "flower.jpg")),
    ):
        with pytest.raises(ValueError, match=f"removal samples was made from image {name} itself"):
            lmjax.explain(image, **options, removal=("grey", "samples"))
    assert lmjax.explain("photograph:china", **options, removal="grey").results
    assert lmjax.explain("photograph:hopper", **options, removal="samples").results


def test_photographs_that_samples_takes_are_not_judged_under_it():
    def sample(name):
        return Sample(index=0, id=name, image=read_image(find(name)))

    held_out = HeldOut(["lime", "grey", "samples", "layer@2"], source=[])
    held_out.check(sample("rocket.jpg"))
    with pytest.raises(HeldOutError, match="removal samples was made from this image"):
        held_out.check(sample("china.jpg"))
    HeldOut(["grey"], source=[]).check(sample("china.jpg"))


def test_many_images_of_the_fit_come_before_those_that_are_judged(tmp_path):
    """More than those that may fail before a run gives up: they are no failures."""

    class Ordered(list):
        version = "ordered"

    source = Ordered(fakes.Source(20)[i] for i in range(20))
    file, networks = tmp_path / "map.npz", {"a": fakes.network()}
    fit = {"model": fakes.network(), "images": 18, "variants": 2, "output": file}
    studies.fit_calibration("grey", Ordered(source[:18]), **fit)
    source.version = "with two more"
    study = studies.RemovalContest(
        removals=(f"calibrated@{file}",), parts=("random",), n_segments=(4,), segmenter="grid"
    )
    run = {"models": networks, "output": tmp_path / "run", "progress": False}
    with pytest.warns(UserWarning, match="18 of 20 images are left out"):
        rows = studies.run(study, source, images_per_shard=4, **run)
    assert set(rows.column("image").to_pylist()) == {18, 19}
    assert measurements.measurements(rows)
    assert studies.estimate(study, source, models=networks).images == 20
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run/rows-*/*")}
    with pytest.warns(UserWarning, match="18 of 20 images are left out"):
        studies.run(study, source, images_per_shard=4, retry_errors=True, **run)
    assert finished == {path: path.stat().st_mtime_ns for path in tmp_path.glob("run/rows-*/*")}


def without_hashes(path, kind, to):
    header, arrays = array_file.read(path, kind)
    del header["kind"], header["format"], header["hashes"]
    return array_file.write(to, kind, header, arrays)


def test_files_that_do_not_know_their_images_are_read(calibrations, tmp_path):
    """As version 0.2.0 has written them."""
    for name, kind in (("grey", "calibration"), ("samples", "samples")):
        without_hashes(calibrations / f"{name}.npz", kind, tmp_path / f"{name}.npz")
    known, found = (read_calibrated(folder / "grey.npz") for folder in (calibrations, tmp_path))
    np.testing.assert_array_equal(found.matrix, known.matrix)
    assert found.fitted == known.fitted._replace(hashes=())
    np.testing.assert_array_equal(
        read_images(tmp_path / "samples.npz"), read_images(calibrations / "samples.npz")
    )
    study = studies.SegmentRemoval(removals=(f"samples@{tmp_path / 'samples.npz'}",))
    with pytest.raises(ValueError, match="was made from this source"):
        studies.run(study, TRAIN, images=1, output=tmp_path / "run")


def test_variants_that_hide_nothing_are_left_as_they_are(calibrations, classifier, image):
    everything = np.ones((1, *image.shape[:2]), bool)
    found = lmjax.evaluate(
        Predictor(classifier, f"calibrated@{calibrations / 'grey.npz'}"), image, everything
    )
    plain = lmjax.evaluate(Predictor(classifier, "grey"), image, everything)
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("kind", [studies.FeatureLinearity, studies.Concordance])
def test_features_are_those_of_the_other_removal(calibrations, tmp_path, kind):
    name = f"calibrated@{calibrations / 'grey.npz'}"
    rows = studies.run(
        kind(removals=("grey", name)), "digit-scenes", images=1, output=tmp_path, progress=False
    ).to_pylist()
    values = {
        removal: [
            {key: value for key, value in row.items() if key != "removal"}
            for row in rows
            if row["removal"] == removal
        ]
        for removal in ("grey", name)
    }
    assert values["grey"] == values[name]


def test_variants_are_shown_as_the_other_removal_shows_them(calibrations):
    from lmjax.explanation.variants import painted

    name = f"calibrated@{calibrations / 'grey.npz'}"
    classifier = lmjax.models.load("resnet18_digits")
    picture = np.full((128, 128, 3), 0.25, np.float32)
    masks = np.zeros((1, 128, 128), bool)
    shown = painted(Predictor(classifier, name), picture, masks)
    np.testing.assert_array_equal(shown, painted(Predictor(classifier, "grey"), picture, masks))
    assert np.isfinite(shown).all()


def test_files_of_one_title_are_refused():
    with pytest.raises(ValueError, match="would both be called 'calibrated"):
        studies.SegmentRemoval(removals=("calibrated@a/map.npz", "calibrated@b/map.npz"))


def test_an_empty_name_of_a_file_is_an_error():
    with pytest.raises(ValueError, match="samples needs a file, as in samples@FILE"):
        removals.check_name("samples@")


def test_files_are_made_from_the_training_split(tmp_path):
    file = tmp_path / "samples.npz"
    studies.write_samples(file, "digit-scenes", images=8)
    assert origin_of(file).source == data.open_source(TRAIN).version
    fitted = studies.fit_calibration("grey", "digit-scenes", images=2, variants=2).fitted
    assert fitted is not None
    assert fitted.source == data.open_source(TRAIN).version


def test_fewer_images_than_are_drawn(tmp_path):
    with pytest.raises(ValueError, match="images must be a whole number, 8 or more"):
        studies.write_samples(tmp_path / "few.npz", TRAIN, images=4)


def test_removals_of_others_take_files(tmp_path):
    (tmp_path / "red.txt").write_text("1 0 0")

    def make(*, file=None):
        values = "0.5 0.5 0.5" if file is None else Path(file).read_text()
        return lmjax.Replace(tuple(map(float, values.split())))

    removals.register("colour_of_file", make, description="a colour in a file")
    try:
        made = removals.make(f"colour_of_file@{tmp_path / 'red.txt'}")
        assert repr(made) == repr(lmjax.Replace((1.0, 0.0, 0.0)))
        assert removals.title("colour_of_file@red.txt") == "colour of file (red)"
    finally:
        removals.registry.REGISTRY.unregister("colour_of_file")


def test_another_network_is_refused(calibrations, tmp_path):
    name = f"calibrated@{calibrations / 'grey.npz'}"
    other = lmjax.models.load("resnet18_digits", weights="cheat")
    study = studies.SegmentRemoval(removals=(name,))
    with pytest.raises(ValueError, match="calibrated for another network than cheat"):
        studies.run(study, "digit-scenes", models={"cheat": other}, images=1, output=tmp_path)
    with pytest.raises(ValueError, match="calibrated for another network"):
        lmjax.explain("scene:0", model=other, removal=name)


@pytest.mark.parametrize(
    ("removal", "message"),
    [
        ("masking", "must not be 'masking'"),
        ("segment_mean", "neither segments nor a file"),
        ("samples", "neither segments nor a file"),
        ("mauve", "mauve"),
    ],
)
def test_what_cannot_be_calibrated_by_name(removal, message):
    with pytest.raises(ValueError, match=message):
        studies.fit_calibration(removal, TRAIN)


def test_the_file_is_checked_before_anything_is_evaluated(calibrations):
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        studies.fit_calibration("grey", TRAIN, model="none", output="grey.txt")
    with pytest.raises(ValueError, match="holds 'samples'; expected 'calibration'"):
        studies.fit_calibration("grey", TRAIN, model="none", output=calibrations / "samples.npz")


def test_more_images_than_there_are():
    with pytest.raises(ValueError, match="images must be at most 3"):
        studies.fit_calibration("grey", data.DigitScenes("train", length=3), images=4)


def test_a_map_without_a_record_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="fitted must say"):
        removals.Calibrated(lmjax.Replace("grey"), np.eye(2), np.zeros(2)).save(tmp_path / "x.npz")


def test_files_that_are_missing_or_hold_something_else(calibrations, tmp_path):
    with pytest.raises(ValueError, match=r"there is no file none\.npz"):
        removals.make("calibrated@none.npz")
    with pytest.raises(ValueError, match="calibrated needs a file"):
        removals.make("calibrated")
    with pytest.raises(ValueError, match="holds 'samples'; expected 'calibration'"):
        removals.make(f"calibrated@{calibrations / 'samples.npz'}")
    with pytest.raises(ValueError, match="holds 'calibration'; expected 'samples'"):
        removals.make(f"samples@{calibrations / 'grey.npz'}", key=np.zeros(2, np.uint32))
    header, arrays = array_file.read(calibrations / "grey.npz", "calibration")
    arrays["bias"] = arrays["bias"][:3]
    array_file.write(tmp_path / "damaged.npz", "calibration", header, arrays)
    with pytest.raises(ValueError, match="is not a whole file of this type: calibration"):
        removals.make(f"calibrated@{tmp_path / 'damaged.npz'}")


def test_a_calibration_is_no_augmentation(calibrations):
    from lmjax.training.augmentation import parse

    with pytest.raises(ValueError, match="maps logits, which training does not need"):
        parse([f"patches:calibrated@{calibrations / 'grey.npz'}"])


def test_a_report_shows_what_the_removals_showed_while_their_files_are_there(
    calibrations, tmp_path
):
    file = tmp_path / "map.npz"
    file.write_bytes((calibrations / "grey.npz").read_bytes())
    study = studies.MaskShape(removals=(f"calibrated@{file}",), margins=(0,))
    run = tmp_path / "run"
    studies.run(study, "digit-scenes", images=1, output=run, progress=False)
    studies.report([run], tmp_path / "whole.html")
    assert "calibrated (map)" in (tmp_path / "whole.html").read_text()
    file.unlink()
    studies.report([run], tmp_path / "without.html")
    page = (tmp_path / "without.html").read_text()
    assert "is gone, or is another by now" in page
    assert "calibrated (map)" in page
