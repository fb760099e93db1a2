"""Explanations of several photographs: files, failures, one network for all."""

import gc
import json
import warnings
import weakref

import numpy as np
import pytest

import lmjax
from lmjax.explanation import ExplanationConfig, compute
from lmjax.explanation.files import check_outputs
from tests.support.compilations import counted

FAST = {"segmenter": "grid", "num_samples": 40, "removal": ("layer", "black")}
pytestmark = pytest.mark.filterwarnings("ignore:40 samples for:UserWarning")


def test_each_is_explained_as_it_is_alone_and_a_damaged_one_loses_no_other(
    photographs, any_size, tmp_path
):
    array = np.full((40, 40, 3), 0.2)
    with pytest.warns(UserWarning, match=r"left out .*damaged\.jpg: image .* cannot be read"):
        found = lmjax.explain([*photographs, array], model=any_size, **FAST, output=tmp_path / "o")
    assert [each.image.name for each in found] == ["cat.png", "Cat.jpg", "dog.png", "array"]
    assert [path.name for path in found.files if path.suffix == ".png"] == [
        *("cat.png", "Cat-2.png", "dog.png", "array.png")
    ]
    assert len(list((tmp_path / "o").iterdir())) == len(found.files) == 12
    assert json.loads((tmp_path / "o/Cat-2.json").read_text())["image"] == "Cat.jpg"
    ((failed, error),) = found.failures
    assert failed == str(photographs[3])
    assert "cannot be read" in str(error)
    for file, explanation in zip(photographs[:3], found):
        alone = lmjax.explain(file, model=any_size, **FAST)
        for pair, result in alone.results.items():
            scores = explanation[pair].attribution.scores
            np.testing.assert_array_equal(scores, result.attribution.scores)


def test_what_holds_for_all_is_said_once(photographs, any_size):
    options = {**FAST, "method": ("lime", "kernelshap"), "num_samples": 4, "show_variants": 0}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = lmjax.explain(photographs[:2], model=any_size, **options)
    few, more = sorted(str(each.message) for each in said)
    assert few.startswith("4 samples for 4 segments are fewer than 10 a segment")
    assert more == "num_samples 4 are too few with 4 segments: kernelshap gets 14"
    assert found[1]["kernelshap", "layer"].attribution.num_variants == 14


def test_one_table_for_all(photographs, any_size):
    found = lmjax.explain(photographs[:3], model=any_size, **FAST)
    _, heading, *rows = found.summary().splitlines()
    assert heading.split()[:4] == ["image", "class", "probability", "removal"]
    assert [row.split()[0] for row in rows] == [
        *("cat.png", "cat.png", "Cat.jpg", "Cat.jpg", "dog.png", "dog.png")
    ]
    assert len(found) == 3
    assert repr(found) == "Explanations of 3 photographs"


def test_the_command_keeps_a_table_and_no_explanation(photographs, any_size, tmp_path, monkeypatch):
    explain_image, kept = compute._explain_image, []

    def explain_one(image, *arguments):
        gc.collect()
        assert not any(each() is not None for each in kept)
        found = explain_image(image, *arguments)
        kept.extend(map(weakref.ref, (found, found.segments, found.image.pixels)))
        return found

    monkeypatch.setattr(compute, "_explain_image", explain_one)
    config = ExplanationConfig(**FAST, model=any_size, top_k=2)
    images = (*photographs[:3], photographs[3], photographs[0])
    with pytest.warns(UserWarning, match=r"left out .*damaged\.jpg"):
        written = compute.explain_into_files(images, config=config, output=tmp_path / "brief")
    assert len(kept) == 12
    monkeypatch.undo()
    with pytest.warns(UserWarning, match=r"left out .*damaged\.jpg"):
        found = lmjax.explain(images, config=config, output=tmp_path / "whole")
    same = slice(0, 4)  # columns of speed differ
    assert [line.split()[same] for line in written.table.splitlines()] == [
        line.split()[same] for line in found.summary().splitlines()
    ]
    assert [path.name for path in written.files] == [path.name for path in found.files]
    assert [each.image for each in written.failures] == [str(photographs[3])]


def test_what_failed_keeps_nothing_of_what_was_computed(photographs, any_size):
    with pytest.warns(UserWarning, match="left out"):
        found = lmjax.explain([*photographs[:1], photographs[3]], model=any_size, **FAST)
    assert found.failures[0].error.__traceback__ is None


def test_the_network_is_loaded_once_and_compiled_once(photographs, any_size, monkeypatch):
    loaded = []
    monkeypatch.setattr(compute, "load", lambda *_, **__: loaded.append(1) or any_size)
    options = FAST | {"model": "resnet18_digits", "crop": True}
    lmjax.explain(photographs[:1], **options)
    with counted() as compiled:
        lmjax.explain(photographs[1:3], **options)
    assert len(loaded) == 2
    assert not compiled


def test_where_none_can_be_explained_it_is_an_error(photographs, any_size):
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(ValueError, match=r"none of 2 images could be explained; the first: .*read"),
    ):
        lmjax.explain([photographs[3], photographs[3]], model=any_size, **FAST)
    for wrong in ([], [None]):
        with pytest.raises(ValueError, match="image must be"):
            lmjax.explain(wrong, model=any_size)


def test_files_go_beside_a_figure_or_into_a_folder(photographs, tmp_path):
    images = [*photographs[:2], "photograph:chelsea", "scene:3"]
    beside = [
        each[0].relative_to(tmp_path).name for each in check_outputs(tmp_path / "r.pdf", images)
    ]
    assert beside == ["r-cat.pdf", "r-Cat-2.pdf", "r-chelsea.pdf", "r-scene-3.pdf"]
    inside = check_outputs(tmp_path / "new", images)
    assert [path.name for path in inside[0]] == ["cat.png", "cat.npz", "cat.json"]
    assert not (tmp_path / "new").exists()  # until something is written


@pytest.mark.parametrize("folder", ["there", "new"])
def test_long_names_are_cut_so_that_all_files_have_one(photographs, any_size, tmp_path, folder):
    (tmp_path / "there").mkdir()
    long = [tmp_path / f"{name}.png" for name in ("x" * 251, "x" * 245, "é" * 125)]
    for path in long:
        path.write_bytes(photographs[0].read_bytes())
    options = {**FAST, "html": True, "show_variants": 0, "output": tmp_path / folder}
    found = lmjax.explain(long, model=any_size, **options)
    assert len(list((tmp_path / folder).iterdir())) == len(found.files) == 12


@pytest.mark.parametrize(
    ("output", "error", "message"),
    [
        ("a", ValueError, r"a.cat\.png is one of the images"),
        ("x.gif", ValueError, "output of several images must be a folder, or end in .png"),
        ("new/" + "x" * 250 + ".png", OSError, "too long"),
        ("no/where", FileNotFoundError, "does not exist; create it first"),
        ("a/cat.png/x", NotADirectoryError, r"is a file|does not exist"),
    ],
)
def test_outputs_that_would_not_do(photographs, tmp_path, output, error, message):
    with pytest.raises((error, FileNotFoundError), match=message):
        check_outputs(tmp_path / output, photographs)
