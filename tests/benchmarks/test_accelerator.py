"""Parts of the benchmark of accelerators that need none."""

import pytest

import lmjax
from benchmarks import accelerator
from benchmarks.subjects import patches, photograph, random_classifier
from lmjax.masking.sparse import positions


def test_operations_are_summed_by_name():
    events = [
        {"ph": "X", "dur": 5, "args": {"hlo_op": "convolution.1"}},
        {"ph": "X", "dur": 3, "args": {"hlo_op": "convolution.27"}},
        {"ph": "X", "dur": 4, "args": {"hlo_op": "fusion.2"}},
        {"ph": "X", "dur": 100, "args": {}},  # not an operation of the device
        {"ph": "M", "name": "process"},
    ]
    assert accelerator._operations(events) == {"convolution": 8, "fusion": 4}


def test_nothing_new_is_begun_after_the_time(capsys):
    assert accelerator._is_time(float("inf"), "this")
    assert not accelerator._is_time(0, "the profile")
    assert capsys.readouterr().out == "no time left for the profile\n"


def test_work_on_rows_grows_with_what_is_visible(monkeypatch):
    for name, cost in (("_ON_ROWS", 1), ("_GATHERED_ROW", 0), ("_FULL_SIZE_NUMBER", 0)):
        monkeypatch.setattr(positions, name, cost)  # multiplications alone
    image = photograph(64)
    predictor = lmjax.Predictor(random_classifier("resnet18_digits"), lmjax.LayerMasking())
    kept = [
        accelerator._work_on_rows(predictor, image, patches(image, 4, share))
        for share in (0.1, 0.5, 1.0)
    ]
    assert 0 < kept[0] < kept[1] < kept[2]
    assert kept[2] == pytest.approx(1)
