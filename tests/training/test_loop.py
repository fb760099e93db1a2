"""Training runs: exact resumption after a kill, files that are whole, errors that help."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file

import lmjax
from lmjax._utils.run_folder import read_manifest
from lmjax.cli.main import main
from lmjax.data import DigitScenes
from lmjax.data.source import Example
from lmjax.models import convert, load, registry
from lmjax.models.checkpoints import read_metadata, read_state_dict, save_safetensors
from lmjax.removals.samples import Origin, write_images
from lmjax.training import TrainingConfig, accuracy, read_metrics, train
from lmjax.training.batches import Reader, ahead, indices
from lmjax.training.run_folder import RunFolder
from tests.support.several_devices import run_tests
from tests.training import a_run

WEIGHTS = "resnet18_digits.safetensors"
SCRIPT = Path(a_run.__file__)


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.NetworkInfo, "build", a_run.build)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("run")
    a_run.run(out, test=_test())
    return out


def _test():
    return DigitScenes("test", length=20)


def rows(out):
    """Metrics without times and test accuracies."""
    table = read_metrics(out)
    return table.drop_columns(["seconds", "test_accuracy"]).to_pylist()


def process(out):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen([sys.executable, SCRIPT, out, "3"], env=environment)


def test_a_run_leaves_weights_metrics_and_checkpoints(finished):
    assert {f.name for f in finished.iterdir()} == {
        *("manifest.json", "metrics", "checkpoints"),
        WEIGHTS,
    }
    assert {f.name for f in (finished / "checkpoints").iterdir()} == {"00000016", "00000024"}
    table = read_metrics(finished)
    assert table["step"].to_pylist() == list(range(1, 25))
    assert table["epoch"].to_pylist() == [1] * 8 + [2] * 8 + [3] * 8
    tested = [i for i, value in enumerate(table["test_accuracy"].to_pylist()) if value is not None]
    assert tested == [7, 15, 23]
    losses = table["loss"].to_numpy()
    assert losses[-8:].mean() < losses[:8].mean()


def test_weights_are_a_state_dict_that_says_how_it_was_made(finished):
    assert "bn.running_var" in read_state_dict(finished / WEIGHTS)
    metadata = read_metadata(finished / WEIGHTS)
    assert metadata["settings"] == {
        **dataclasses.asdict(a_run.CONFIG),
        "augmentations": ["cutout:black"],
    }
    classifier = load("resnet18_digits", weights=finished / WEIGHTS)
    batch = Reader(_test(), classifier.preprocessing, 10)(range(20))
    assert metadata["test_accuracy"] == accuracy(classifier, [batch])


def test_a_killed_run_goes_on_as_if_it_had_not_been(finished, tmp_path):
    out = tmp_path / "run"
    killed = process(out)
    while killed.poll() is None and not list(out.glob("checkpoints/0*")):
        time.sleep(0.005)
    killed.kill()
    assert killed.wait() == -9
    assert not (out / WEIGHTS).exists()
    assert 0 < len(rows(out)) < 24
    assert process(out).wait() == 0
    assert rows(out) == rows(finished)
    found, expected = (read_state_dict(each / WEIGHTS) for each in (out, finished))
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


def test_four_devices():
    run_tests(SCRIPT.with_name("four_devices.py"), count=4)


def test_a_finished_run_is_not_trained_again(finished, monkeypatch):
    before = rows(finished), (finished / WEIGHTS).read_bytes()
    monkeypatch.setattr(lmjax.training.loop, "train_step", None)
    a_run.run(finished, test=_test())
    assert (rows(finished), (finished / WEIGHTS).read_bytes()) == before


def test_a_folder_of_another_run_is_an_error(finished):
    other = dataclasses.replace(a_run.CONFIG, seed=1, ema=0.5)
    with pytest.raises(
        ValueError, match=r"ema is 0\.9 there and 0\.5 here; settings\.seed is 0 there and 1 here"
    ):
        a_run.run(finished, config=other, test=_test())


class _Unversioned:
    """Digit scenes without a version."""

    def __init__(self, length, seed=0):
        self.scenes = DigitScenes("train", length=length, seed=seed)

    def __len__(self):
        return len(self.scenes)

    def __getitem__(self, index):
        return self.scenes[index]


def test_other_images_are_another_run(finished):
    with pytest.raises(ValueError, match="test_examples is 20 there and 30 here"):
        a_run.run(finished, test=DigitScenes("test", length=30))
    with pytest.raises(ValueError, match=r"test is .*test.* there and null here"):
        a_run.run(finished)


def test_a_source_without_a_version_is_told_by_length_and_first_image(tmp_path):
    config = dataclasses.replace(a_run.CONFIG, epochs=1, images_per_epoch=8, ema=0.0)
    train("resnet18_digits", _Unversioned(8), config=config, output=tmp_path)
    for source, message in (
        (_Unversioned(9), "source_examples is 8 there and 9 here"),
        (_Unversioned(8, seed=1), "source is .* there"),
    ):
        with pytest.raises(ValueError, match=message):
            train("resnet18_digits", source, config=config, output=tmp_path)


def test_files_of_others_are_left_alone(finished, tmp_path):
    others = [tmp_path / name for name in ("checkpoints/best", "metrics/mine.csv", "notes.txt")]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    with pytest.raises(ValueError, match="holds files that are not of a training run"):
        a_run.run(tmp_path, test=_test())
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*others}
    # Also in a folder of a training, but for names that a training writes.
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    unfinished = tmp_path / "checkpoints" / "00000032.orbax-checkpoint-tmp"
    unfinished.mkdir()
    (tmp_path / "metrics" / "00000024-00000032.parquet").write_text("")
    a_run.run(tmp_path, test=_test())
    assert all(path.read_text() == "mine" for path in others)
    assert not unfinished.exists()
    assert rows(tmp_path) == rows(finished)


def test_a_failed_start_claims_no_folder(tmp_path):
    config = dataclasses.replace(a_run.CONFIG, epochs=1, images_per_epoch=8, augmentations=())
    with pytest.raises(ValueError, match="label of image"):
        train("resnet18_digits", _Labelled([10]), config=config, output=tmp_path)
    other = dataclasses.replace(config, seed=3)
    assert train("resnet18_digits", _Labelled([3]), config=other, output=tmp_path).exists()


def test_one_training_in_a_folder_at_a_time(finished):
    with RunFolder(finished) as folder:
        folder.claim(read_manifest(finished, "training"))
        with pytest.raises(ValueError, match="another process trains in it"):
            a_run.run(finished, test=_test())


def test_damaged_metrics_are_named(finished, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    path = out / "metrics" / "00000008-00000016.parquet"
    table = pq.read_table(path)
    for damage in (
        lambda: path.write_bytes(path.read_bytes()[:80]),
        lambda: path.write_text(""),
        lambda: pq.write_table(table.drop_columns(["loss"]), path),
    ):
        damage()
        with pytest.raises(ValueError, match=r"00000008-00000016\.parquet is damaged"):
            read_metrics(out)


@pytest.mark.parametrize("most", [300, 5000])  # bytes a file: metrics, and a checkpoint, fail
def test_a_full_disk_is_one_error_and_loses_nothing(finished, tmp_path, monkeypatch, capfd, most):
    save, (soft, hard) = RunFolder.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def on_full_disk(self, state, rows):
        if int(state.step) > 8:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
        try:
            save(self, state, rows)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(RunFolder, "save", on_full_disk)
    with pytest.raises(OSError, match=r"step 16 cannot .* \(.*too large\); .* steps 8 are"):
        a_run.run(tmp_path, test=_test())
    assert "Traceback" not in capfd.readouterr().err
    monkeypatch.undo()
    monkeypatch.setattr(registry.NetworkInfo, "build", a_run.build)
    a_run.run(tmp_path, test=_test())
    assert rows(tmp_path) == rows(finished)


def test_a_damaged_checkpoint_is_an_error(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints" / "00000024").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"00000024 is not a readable checkpoint"):
        a_run.run(tmp_path / "run", test=_test())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    config = dataclasses.replace(
        a_run.CONFIG, optimizer="sgd", learning_rate=1e30, warmup=0.0, ema=0.0, augmentations=()
    )
    with pytest.raises(ValueError, match=r"at step \d+; the run has stopped, checkpoints of steps"):
        a_run.run(tmp_path, config=config)


def test_fine_tuning_starts_from_weights_with_a_new_head(finished, tmp_path):
    config = TrainingConfig(epochs=1, images_per_epoch=8, batch_size=8, learning_rate=1e-9)
    options = {"weights": finished / WEIGHTS, "num_classes": 7}
    path = train("resnet18_digits", _Labelled([0]), config=config, output=tmp_path, **options)
    found, old = read_state_dict(path), read_state_dict(finished / WEIGHTS)
    for key in ("conv.weight", "bn.bias"):
        np.testing.assert_allclose(found[key], old[key], atol=1e-6, err_msg=key)
    assert found["fc.weight"].shape == (7, 6)
    assert np.ptp(found["fc.weight"]) > 0
    with pytest.raises(ValueError, match=r"start is .* there and null here"):
        train("resnet18_digits", _Labelled([0]), config=config, output=tmp_path, num_classes=7)


def test_commands_train_and_fine_tune(tmp_path, capsys):
    settings = {"epochs": 1, "images-per-epoch": 16, "batch-size": 8, "seed": 5, "small-share": 0}
    common = {"optimizer": "sgd", "warmup": 0, "weight-decay": 0, "label-smoothing": 0}
    settings |= {**common, "learning-rate": 0.01}  # the same in both: the step compiles once
    options = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
    first, second = tmp_path / "first", tmp_path / "second"
    main(["train", "digit-scenes", *options, "--test-images", "10", "--output", str(first)])
    assert capsys.readouterr().out == f"wrote {first / WEIGHTS}\n"
    spec = f"resnet18_digits={first / WEIGHTS}"
    scenes = ["--source", "digit-scenes,split=train,seed=3"]
    main(["train", "network", spec, *scenes, *options, "--output", str(second)])
    assert capsys.readouterr().out == f"wrote {second / WEIGHTS}\n"
    manifests = [json.loads((out / "manifest.json").read_text()) for out in (first, second)]
    # The run's seed, unless the source has its own.
    assert [manifest["source"] for manifest in manifests] == [
        "digit_scenes/train/5/1",
        "digit_scenes/train/3/1",
    ]
    assert [manifest["start"] is None for manifest in manifests] == [True, False]
    kinds = [load_file(out / WEIGHTS)["fc.weight"].dtype for out in (first, second)]
    assert kinds == [np.float16, np.float32]


SHORT = TrainingConfig(batch_size=8, epochs=1)


class _Labelled:
    """A source of black images with given labels."""

    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return 8 * len(self.labels)

    def __getitem__(self, i):
        image = np.zeros((128, 128, 3), np.uint8)
        return Example(f"image {i}", image, self.labels[i % len(self.labels)])


def test_weights_are_read_back_as_they_were_trained(tmp_path):
    """Class names and preprocessing go with them, also where they are converted."""
    source = _Labelled([0, 1])
    source.class_names = tuple(f"pet {i}" for i in range(10))
    usual = registry.network("resnet18_digits").preprocessing
    own = dataclasses.replace(usual, resize=140, mean=(0.4,) * 3)
    start = tmp_path / "start.safetensors"
    state = read_state_dict(train("resnet18_digits", source, output=tmp_path / "a", config=SHORT))
    save_safetensors(start, state, metadata={"preprocessing": dataclasses.asdict(own)})
    trained = train("resnet18_digits", source, weights=start, output=tmp_path / "b", config=SHORT)
    convert(trained, tmp_path / "converted.safetensors")
    for weights in (trained, tmp_path / "b", tmp_path / "converted.safetensors"):
        found = load("resnet18_digits", weights=weights)
        assert (found.preprocessing, found.class_names) == (own, source.class_names)
    found = load("resnet18_digits", weights=trained, class_names="abcdefghij")
    assert found.class_names == tuple("abcdefghij")
    save_safetensors(start, state, metadata={"preprocessing": {"squash": True}})
    with pytest.raises(ValueError, match=r"start.safetensors holds a preprocessing.*give preproc"):
        load("resnet18_digits", weights=start)


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([0, None], {}, "source has no label for image"),
        ([0, 10], {}, r"label of image \d+ is 10, and the network has classes 0 to 9"),
        ([3], {"augmentations": ("objects:grey",)}, "source has no object mask for image"),
        ([], {"images_per_epoch": 8}, "source has no examples"),
        ([3], {"batch_size": 16}, r"images_per_epoch is 8; it must be at least batch_size \(16\)"),
        ([3], {"augmentations": ("patches:token_dropping",)}, "masking must be lmjax.LayerMasking"),
    ],
)
def test_sources_that_do_not_do_are_errors(labels, options, message, tmp_path):
    config = TrainingConfig(**{"batch_size": 8, "epochs": 1, **options})
    with pytest.raises(ValueError, match=message):
        train("resnet18_digits", _Labelled(labels), config=config, output=tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number, 1 or more; got 0"),
        ({"batch_size": 0}, "batch_size must be a whole number, 1 or more"),
        (
            {"batch_size": 1, "accumulate": 1, "augmentations": ("objects:grey",)},
            "batch_size must be 2 or more for the augmentation objects:grey",
        ),
        (
            {"batch_size": 1, "accumulate": 1, "augmentations": ("cutmix",)},
            "batch_size must be 2 or more for",
        ),
        ({"accumulate": 3}, r"batch_size is 8; it must be a multiple of accumulate \(3\)"),
        ({"small_share": 1.5}, "small_share must be a finite number at least 0 and at most 1"),
        ({"small_size": 31}, "small_size must be a whole number, 32 or more"),
        ({"images_per_epoch": 7}, r"images_per_epoch is 7; it must be at least batch_size \(8\)"),
        ({"warmup": 1.0}, "warmup must be a finite number at least 0 and below 1"),
        ({"ema": -0.1}, "ema must be a finite number at least 0 and below 1"),
        ({"learning_rate": 0.0}, "learning_rate must be a finite number above 0"),
        ({"optimizer": "adam"}, "optimizer must be one of sgd, adamw; got 'adam'"),
        ({"dtype": "float16"}, "dtype must be one of float32, bfloat16"),
        ({"augmentations": ("mixup",)}, "augmentations must be cutmix, flip"),
        ({"seed": -1}, "seed must be a whole number, 0 or more"),
    ],
)
def test_settings_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(a_run.CONFIG, **changes)


def test_items_are_mappings_too(tmp_path):
    config = TrainingConfig(batch_size=8, epochs=1)
    image = np.zeros((128, 128, 3), np.uint8)
    items = [{"image": image, "label": i % 10} for i in range(8)]
    train("resnet18_digits", items, config=config, output=tmp_path / "run")
    assert len(read_metrics(tmp_path / "run")) == 1


def test_a_test_source_of_other_classes_is_refused(tmp_path):
    source, test = _Labelled([0, 1, 2]), _Labelled([0, 1])
    source.class_names, test.class_names = ("cat", "dog", "fox"), ("dog", "fox")
    with pytest.raises(ValueError, match="labels of the test are not classes of the training's"):
        train("resnet18_digits", source, test=test, output=tmp_path / "run")


def test_a_run_does_not_go_on_with_another_file_of_a_removal(tmp_path):
    file, out = tmp_path / "samples.npz", tmp_path / "run"
    write_images(file, np.zeros((8, 128, 128, 3)), origin=Origin("zeros"))
    config = TrainingConfig(batch_size=8, epochs=1, augmentations=(f"patches:samples@{file}",))
    train("resnet18_digits", _Labelled([3]), config=config, output=out)
    write_images(file, np.ones((8, 128, 128, 3)), origin=Origin("ones"))
    with pytest.raises(ValueError, match=r"files\.samples@.*samples.npz is "):
        train("resnet18_digits", _Labelled([3]), config=config, output=out)
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["files"]  # as of a run from before they were recorded, which goes on
    (out / "manifest.json").write_text(json.dumps(manifest))
    train("resnet18_digits", _Labelled([3]), config=config, output=out)


def test_a_run_does_not_go_on_with_other_code_of_a_removal(tmp_path):
    def painting(colour):
        return lambda: lmjax.Replace((colour,) * 3)

    try:
        lmjax.removals.register("mine", painting(0.1), description="a grey")
        config = TrainingConfig(batch_size=8, epochs=1, augmentations=("patches:mine",))
        options = {"config": config, "output": tmp_path / "run"}
        train("resnet18_digits", _Labelled([3]), **options)
        lmjax.removals.register("mine", painting(0.2), description="a grey")
        with pytest.raises(ValueError, match=r"registered\.removal mine is "):
            train("resnet18_digits", _Labelled([3]), **options)
    finally:
        lmjax.removals.registry.REGISTRY.unregister("mine")


def test_a_written_source_is_its_training_split_and_a_warning_says_that_a_test_is_the_same(
    tmp_path,
):
    config = dataclasses.replace(a_run.CONFIG, epochs=1, images_per_epoch=8, ema=0.0)
    options = {"config": config, "output": tmp_path, "test": DigitScenes("train", length=8)}
    with pytest.warns(UserWarning, match="test has the images of source"):
        train("resnet18_digits", "digit-scenes", **options)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["source"].startswith("digit_scenes/train/")


class _Flawed(_Labelled):
    """Some of its images cannot be read, and some have a label that is no class."""

    broken: tuple[int, ...] = (2,)

    def __getitem__(self, i):
        if i in self.broken:
            raise OSError(f"image {i} is truncated")
        return super().__getitem__(i)


@pytest.mark.parametrize(("labels", "left_out"), [([0, 1], 1), ([0, None], 9), ([0, 10], 9)])
def test_test_images_that_cannot_be_used_are_left_out(labels, left_out, tmp_path):
    config = TrainingConfig(batch_size=8, epochs=1)
    options = {"config": config, "output": tmp_path, "num_classes": 10}
    with pytest.warns(UserWarning, match=f"{left_out} of 16 test images cannot be used") as said:
        path = train("resnet18_digits", _Labelled([0]), test=_Flawed(labels), **options)
    wrong = "source has no label for image 1" if labels[1] is None else "label of image 1 is 10"
    first = "image 2: image 2 is truncated" if left_out == 1 else f"image 1: {wrong}"
    assert all(f"the first is {first}" in str(each.message) for each in said)
    (measured,) = read_metrics(tmp_path)["test_accuracy"].to_pylist()
    # All images are black, and so all are of one class: of 7 that are 0 and 8 that are 1, or of 7.
    assert measured in ((0, 7 / 15, 8 / 15) if left_out == 1 else (0, 1))
    assert read_metadata(path)["test_accuracy"] == measured


def test_a_test_of_which_no_image_can_be_read_costs_no_training(tmp_path):
    test = _Flawed([0, 1])
    test.broken = tuple(range(16))
    config = TrainingConfig(batch_size=8, epochs=1)
    with pytest.warns(UserWarning, match="16 of 16 test images cannot be used"):
        path = train("resnet18_digits", _Labelled([0]), test=test, config=config, output=tmp_path)
    assert read_metrics(tmp_path)["test_accuracy"].to_pylist() == [None]
    assert read_metadata(path)["test_accuracy"] is None


class _FailsLater(_Labelled):
    """Can be read some times."""

    def __init__(self, labels, left):
        super().__init__(labels)
        self.left = left

    def __getitem__(self, i):
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk is gone")
        return super().__getitem__(i)


def test_an_image_that_cannot_be_read_costs_no_step(tmp_path):
    config = TrainingConfig(batch_size=8, epochs=4)
    failing, whole = tmp_path / "failing", tmp_path / "whole"
    with pytest.raises(OSError, match="the disk is gone"):  # five batches can be read
        train("resnet18_digits", _FailsLater([0, 1], 44), config=config, output=failing)
    assert RunFolder(failing).checkpoints() == [4, 5]  # an epoch has two steps
    weights = [
        train("resnet18_digits", _FailsLater([0, 1], 100), config=config, output=output)
        for output in (failing, whole)
    ]
    assert rows(failing) == rows(whole)
    found, expected = map(read_state_dict, weights)
    for key in expected:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


class _Alone(_Labelled):
    """Fails where two threads read at the same time."""

    def __init__(self, labels):
        super().__init__(labels)
        self.reading = threading.Lock()

    def __getitem__(self, i):
        if not self.reading.acquire(blocking=False):
            raise RuntimeError("two threads read at the same time")
        try:
            time.sleep(0.002)
            return super().__getitem__(i)
        finally:
            self.reading.release()


def test_training_and_test_images_may_be_of_one_source(tmp_path):
    source = _Alone([*range(10)])
    config = TrainingConfig(batch_size=8, epochs=2)
    train("resnet18_digits", source, test=source, config=config, output=tmp_path)
    assert len(read_metrics(tmp_path)) == 20


def test_one_class_is_refused(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ValueError, match=r"two classes or more, and here is one: softmax over one"):
        train("resnet18_digits", _Labelled([0]), output=out, num_classes=1)
    assert not out.exists()


def test_unknown_networks_are_errors(tmp_path):
    with pytest.raises(ValueError, match=r"network must be one of .*got 'resnet17'"):
        train("resnet17", _Labelled([0]), output=tmp_path)


def test_passes_over_a_source_follow_each_other_each_in_its_own_order():
    steps = [indices(step, length=10, batch_size=4, seed=3) for step in range(5)]
    seen = [i for batch in steps for i in batch]
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]
    assert indices(3, length=10, batch_size=4, seed=3) == steps[3]
    assert indices(3, length=10, batch_size=4, seed=4) != steps[3]


def test_examples_are_read_ahead_and_in_order_and_errors_come_through():
    assert list(ahead(lambda n: n * n, range(30))) == [n * n for n in range(30)]
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda n: 1 // n, [1, 0]))
