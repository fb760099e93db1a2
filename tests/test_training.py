"""Training: exact resumption, files that are whole, settings that are checked."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest

import lmjax.training
from lmjax.data import DigitScenes
from lmjax.models import load, registry
from lmjax.models.checkpoints import read_metadata, read_state_dict
from lmjax.models.resnet import BasicBlock, ResNet
from lmjax.training import TrainingConfig, accuracy, train_digit_scenes

TINY = TrainingConfig(
    epochs=3, small_epochs=3, small_size=32, scenes_per_epoch=16, batch_size=8, test_scenes=10
)


def _metrics(out):
    """The rows of metrics.jsonl, without the times."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module", autouse=True)
def small_network():
    """A network of two blocks in place of ResNet-18: it compiles in a third of the time."""
    with pytest.MonkeyPatch.context() as patch:
        small = partial(ResNet, (1, 1), BasicBlock, width=8, num_classes=10)
        patch.setattr(registry.Network, "build", lambda self, **options: small())
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("run")
    train_digit_scenes(TINY, out)
    return out


def test_a_run_leaves_weights_metrics_and_a_checkpoint(run):
    assert {f.name for f in run.iterdir()} == {
        "resnet18_digits.safetensors",
        "metrics.jsonl",
        "checkpoint.msgpack",
    }
    rows = _metrics(run)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {"epoch", "loss", "train_accuracy", "test_accuracy"}
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_weights_are_a_state_dict_in_half_precision_that_says_how_it_was_made(run):
    from safetensors.numpy import load_file

    path = run / "resnet18_digits.safetensors"
    assert {value.dtype for value in load_file(path).values()} == {np.dtype(np.float16)}
    assert "layer2.0.bn2.running_var" in read_state_dict(path)
    metadata = read_metadata(path)
    assert metadata["config"] == dataclasses.asdict(TINY)
    assert metadata["test_accuracy"] == accuracy(load("resnet18_digits", weights=path), _test())


def _test():
    scenes = list(DigitScenes("test", length=TINY.test_scenes))
    yield np.stack([s.image for s in scenes]), np.array([s.label for s in scenes])


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(run, tmp_path, monkeypatch):
    epoch_batches = lmjax.training._epoch_batches

    def interrupted(config, epoch, **options):
        batches = epoch_batches(config, epoch, **options)
        yield next(batches)
        if epoch == 1:
            raise KeyboardInterrupt
        yield from batches

    monkeypatch.setattr(lmjax.training, "_epoch_batches", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_digit_scenes(TINY, tmp_path)
    assert _metrics(tmp_path) == _metrics(run)[:1]
    assert not (tmp_path / "resnet18_digits.safetensors").exists()
    monkeypatch.undo()

    train_digit_scenes(TINY, tmp_path)
    assert _metrics(tmp_path) == _metrics(run)
    name = "resnet18_digits.safetensors"
    assert (tmp_path / name).read_bytes() == (run / name).read_bytes()


def test_a_finished_run_is_not_trained_again(run, monkeypatch):
    before = (run / "metrics.jsonl").read_bytes(), (run / "checkpoint.msgpack").read_bytes()
    monkeypatch.setattr(lmjax.training, "train_step", None)
    train_digit_scenes(TINY, run)
    assert ((run / "metrics.jsonl").read_bytes(), (run / "checkpoint.msgpack").read_bytes()) == (
        before
    )


def test_a_folder_of_another_run_is_an_error(run):
    other = dataclasses.replace(TINY, seed=1)
    with pytest.raises(ValueError, match=r"another config \(seed 0 there, 1 now\)"):
        train_digit_scenes(other, run)


def test_a_damaged_checkpoint_is_an_error(run, tmp_path):
    content = (run / "checkpoint.msgpack").read_bytes()
    (tmp_path / "checkpoint.msgpack").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"checkpoint\.msgpack is not a readable checkpoint"):
        train_digit_scenes(TINY, tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"small_epochs": 4}, r"small_epochs is 4; it must be in 0\.\.epochs \(3\)"),
        ({"small_size": 129}, "small_size is 129"),
        ({"scenes_per_epoch": 7}, r"scenes_per_epoch is 7; it must be at least batch_size \(8\)"),
        ({"warmup": 1.5}, "warmup is 1.5"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **changes)


def test_scenes_are_rendered_ahead_and_in_order_and_errors_come_through():
    assert list(lmjax.training._ahead(lambda n: n * n, range(30))) == [n * n for n in range(30)]
    with pytest.raises(ZeroDivisionError):
        list(lmjax.training._ahead(lambda n: 1 // n, [1, 0]))
