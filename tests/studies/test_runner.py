"""Runs that are killed, resumed, shared, and that meet broken images and disks."""

import dataclasses
import errno
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax import studies
from lmjax._utils import notices
from lmjax.removals.registry import REGISTRY
from lmjax.studies import runner
from lmjax.studies.run_folder import MANIFEST
from lmjax.studies.runner import open_run
from tests.studies import fakes

ROOT = Path(__file__).parents[2]
NETWORKS = {"a": fakes.network()}


def run(out, source=None, study=None, **options):
    source = fakes.Source(10) if source is None else source
    study = fakes.Brightness() if study is None else study
    options = {"models": NETWORKS, "images_per_shard": 3} | options
    return studies.run(study, source, output=out, **options)


def shards(out):
    return {path.name: path.read_bytes() for path in out.glob("rows-*/*.parquet")}


def test_rows_are_those_of_the_study_in_the_order_of_images(tmp_path):
    table = run(tmp_path)
    assert table.column("image").to_pylist() == [i for i in range(10) for _ in range(3)]
    image = fakes.Source(10)[4]["image"]
    assert table.column("mean").to_pylist()[12:15] == [image[..., c].mean() for c in range(3)]
    names = ["00000000-00000003", "00000003-00000006", "00000006-00000009", "00000009-00000010"]
    assert sorted(shards(tmp_path)) == [f"{name}.parquet" for name in names]


def test_numbers_of_numpy_are_settings_as_those_of_python_are(tmp_path):
    plain = studies.SegmentRemoval(seed=3, n_segments=20, fractions=(0.0, 0.5))
    given = {"seed": np.int64(3), "n_segments": np.float32(20), "fractions": np.array([0.0, 0.5])}
    study = studies.SegmentRemoval(**given)
    assert study == plain
    assert studies.SegmentRemoval(**{k: jnp.asarray(v) for k, v in given.items()}) == plain
    assert [type(study.seed), type(study.n_segments)] == [int, int]
    assert run(tmp_path, study=fakes.Brightness(seed=3)).num_rows == 30
    assert run(tmp_path, study=fakes.Brightness(seed=np.uint8(3))).num_rows == 30  # goes on with it
    with pytest.raises(ValueError, match="seed must be a whole number, 0 or more"):
        run(tmp_path / "other", study=fakes.Brightness(seed=np.float32(3.5)))


class Warned(fakes.Brightness):
    """Is warned of the same thing for every image."""

    def rows(self, batch):
        for sample in batch.samples:
            notices.warn("samples", f"few samples, image {sample.index}", stacklevel=1)
        return super().rows(batch)


def test_a_warning_about_one_thing_comes_once_in_a_run_and_in_an_estimate(tmp_path):
    study = Warned()
    with pytest.warns(UserWarning, match="few samples, image 0") as said:
        run(tmp_path, study=study)
    assert len(said) == 1
    with pytest.warns(UserWarning, match="few samples, image 0") as said:
        studies.estimate(study, fakes.Source(10), models=NETWORKS)
    assert len(said) == 1


def test_kills_cost_the_shard_under_way_and_nothing_else(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.studies.killed", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["statuses"] == [0, 0]
    finished = report["finished"]
    assert finished == sorted(finished)
    assert len(finished) > 5, "too few kills to tell anything"
    assert list(tmp_path.glob("killed/rows-*/.*.part")), "no kill met a shard being written"
    whole = shards(tmp_path / "whole")
    assert len(whole) == 20
    for other in ("killed", "two"):
        assert shards(tmp_path / other) == whole
        assert errors_of(tmp_path / other) == [7]


def test_a_black_box_that_fails_for_an_image_costs_that_image_alone(tmp_path):
    third = fakes.Source(4)[2]["image"] / np.float32(255)

    def fails(images):
        if any(np.allclose(image, third, atol=1e-6) for image in images):
            raise RuntimeError("no answer for this one")
        return np.repeat(images.mean(axis=(1, 2)), 4, axis=1)

    study = studies.SegmentRemoval(removals=("grey",), orders=("random",), grid_size=16)
    networks = {"box": lmjax.black_box(fails, preprocessing=fakes.AS_IT_IS)}
    with pytest.warns(UserWarning, match="1 of 4 images could not be evaluated"):
        table = run(tmp_path, fakes.Source(4), study, models=networks)
    assert set(table.column("image").to_pylist()) == {0, 1, 3}
    (error,) = studies.errors(tmp_path)
    assert error["image"] == 2
    assert error["error"].startswith("ValueError: BlackBox(")
    assert error["error"].endswith("[1, 32, 32, 3]: no answer for this one")


def test_labels_that_are_no_class_of_the_network_cost_their_image(tmp_path):
    def three_classes(images):
        return images.mean(axis=(1, 2))

    study = studies.SegmentRemoval(removals=("grey",), orders=("random",), grid_size=16)
    networks = {"box": lmjax.black_box(three_classes, preprocessing=fakes.AS_IT_IS)}
    with pytest.warns(UserWarning, match=r"label of fake/3 is 3, and box has classes 0 to 2"):
        run(tmp_path, fakes.Source(4), study, models=networks)


def raises_for(image):
    def fill(images, masks):
        if any(np.allclose(*(x[mask] for x in (each, image))) for each, mask in zip(images, masks)):
            raise RuntimeError("no colour for this one")
        return np.where(masks[..., None], images, 0.5)

    return lmjax.Fill(lmjax.black_box(fill))


def nan_for(image):
    def fill(shown, mask, key):
        same = jnp.where(mask[..., None], jnp.abs(shown - image), 0).max() < 1e-6
        return jnp.where(same, jnp.nan, shown)

    return lmjax.Fill(fill)


@pytest.mark.parametrize(
    ("make", "message"),
    [(raises_for, "no colour for this one"), (nan_for, "holds NaN or infinity")],
)
def test_a_fill_that_fails_for_an_image_costs_that_image_alone(tmp_path, make, message):
    source = fakes.Source(3)
    second = source[1]["image"] / np.float32(255)
    options = {"orders": ("random",), "grid_size": 16, "fractions": (0.0, 0.5)}
    lmjax.removals.register("brittle", lambda: make(second), description="test")
    try:
        study = studies.SegmentRemoval(removals=("brittle",), **options)
        with pytest.warns(UserWarning, match="1 of 3 images could not be evaluated"):
            table = run(tmp_path, source, study)
    finally:
        REGISTRY.unregister("brittle")
    assert set(table.column("image").to_pylist()) == {0, 2}
    (error,) = studies.errors(tmp_path)
    assert (error["image"], error["id"]) == (1, "fake/1")
    assert message in error["error"]


def errors_of(out):
    return [error["image"] for error in studies.errors(out)]


def test_finished_shards_are_not_computed_again(tmp_path, monkeypatch):
    whole = run(tmp_path)
    next(tmp_path.glob("rows-*/*06.parquet")).unlink()
    asked = []
    rows = fakes.Brightness.rows
    monkeypatch.setattr(
        fakes.Brightness, "rows", lambda self, batch: asked.append(batch) or rows(self, batch)
    )
    assert run(tmp_path).equals(whole)
    assert [[sample.index for sample in batch.samples] for batch in asked] == [[3, 4, 5]]


def test_more_images_go_on_with_the_same_rows(tmp_path):
    few = run(tmp_path, images=6)
    before = shards(tmp_path)
    assert run(tmp_path).slice(0, few.num_rows).equals(few)
    assert before.items() <= shards(tmp_path).items()
    assert run(tmp_path, images=6).equals(few)


def test_a_shard_of_more_images_takes_the_place_of_a_shorter_one(tmp_path):
    few = run(tmp_path, images=5)
    assert run(tmp_path).slice(0, few.num_rows).equals(few)
    assert [name[:17] for name in sorted(shards(tmp_path))] == [
        "00000000-00000003",
        "00000003-00000006",
        "00000006-00000009",
        "00000009-00000010",
    ]


def test_fewer_images_take_the_rows_of_a_longer_shard(tmp_path, monkeypatch):
    source = fakes.Source(10, broken=(2, 7))
    with pytest.warns(UserWarning, match="2 of 10 images"):
        whole = run(tmp_path, source, images_per_shard=8)
    monkeypatch.setattr(fakes.Brightness, "rows", lambda *_: pytest.fail("evaluated again"))
    with pytest.warns(UserWarning, match="1 of 5 images"):
        few = run(tmp_path, source, images=5, images_per_shard=8)
    assert few.equals(whole.slice(0, 12))
    assert open_run(tmp_path)[1].equals(few)
    assert errors_of(tmp_path) == [2]


@pytest.mark.parametrize(("first", "second"), [(10, 5), (5, 10)])
def test_runs_of_more_and_of_fewer_images_at_once_lose_nothing(
    tmp_path, monkeypatch, first, second
):
    write_shards, meanwhile = runner._write_shards, []

    def and_another(*arguments):
        """Another run begins and ends when this one has written its rows, and not read them."""
        write_shards(*arguments)
        if not meanwhile:
            meanwhile.append(None)
            meanwhile[0] = run(tmp_path, images=second, images_per_shard=8)

    monkeypatch.setattr(runner, "_write_shards", and_another)
    found = run(tmp_path, images=first, images_per_shard=8)
    for table, images in ((found, first), (meanwhile[0], second)):
        assert table.column("image").unique().to_pylist() == list(range(images))
    assert open_run(tmp_path)[1].equals(found)  # of the one that has ended last
    assert runner.unfinished(tmp_path) == []


class ByColour(fakes.Brightness):
    """Its rows are not in the order of images."""

    def rows(self, batch):
        return sorted(super().rows(batch), key=lambda row: -row["colour"])


def test_rows_are_in_the_order_of_images_whatever_the_study_gives(tmp_path):
    table = run(tmp_path, study=ByColour())
    assert table.column("image").to_pylist() == [i for i in range(10) for _ in range(3)]
    assert table.column("colour").to_pylist() == [2, 1, 0] * 10


def test_whole_numbers_are_one_setting_however_written(tmp_path):
    table = run(tmp_path, study=fakes.Brightness(seconds=0, colours=(0, 1)))
    again = run(tmp_path, study=fakes.Brightness(seconds=0.0, colours=(0.0, 1)), images=10)
    assert again.equals(table)
    assert len(list(tmp_path.glob("rows-*"))) == 1


def test_what_made_the_rows_is_kept(tmp_path, monkeypatch):
    run(tmp_path, images=6)
    now = open_run(tmp_path)[0]["made_by"]
    monkeypatch.setattr("lmjax.studies.runner.version", lambda name: "9.9.9")
    run(tmp_path, images=6)
    assert open_run(tmp_path)[0]["made_by"] == now
    run(tmp_path)
    first, second = open_run(tmp_path)[0]["made_by"]
    assert first == now[0]
    assert first["versions"]["numpy"] == np.__version__
    assert second["versions"]["numpy"] == "9.9.9"


def test_old_files_of_killed_runs_are_removed_and_fresh_ones_left(tmp_path):
    run(tmp_path, images=6)
    (folder,) = tmp_path.glob("rows-*")
    fresh = folder / ".00000006-00000009.parquet.12-0123abcd.part"
    old = [tmp_path / ".manifest.json.12-0123abcd.part", folder / ".x.parquet.9-0123abcd.part"]
    other = folder / ".notes.part"
    for path in (fresh, other, *old):
        path.write_text("")
    for path in (other, *old):
        os.utime(path, (0, 0))
    run(tmp_path)
    assert fresh.exists()
    assert other.exists()
    assert not any(path.exists() for path in old)


def test_a_source_without_a_version_brings_a_warning(tmp_path):
    with pytest.warns(UserWarning, match="source has no version"):
        run(tmp_path, [fakes.Source(2)[i] for i in range(2)])


def test_a_version_that_is_no_text_is_none(tmp_path):
    """As of Hugging Face's datasets, where it is that of a format, or None."""
    source = fakes.Source(2)
    source.version = None
    with pytest.warns(UserWarning, match="source has no version"):
        run(tmp_path, source)


def test_processes_share_the_work(tmp_path):
    with pytest.warns(UserWarning, match="2 of 4 shards are not finished"):
        run(tmp_path, shard=(0, 2))
    assert run(tmp_path, shard=(1, 2)).num_rows == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"study": fakes.Brightness(colours=(0, 1))}, r"settings.colours is \[0, 1, 2\] there and"),
        ({"study": fakes.Brightness(seed=1)}, "settings.seed is 0 there and 1 here"),
        ({"models": {"b": NETWORKS["a"]}}, 'networks.*"b"'),
        ({"models": {"a": fakes.network(1)}}, "weights_sha256"),
        ({"images_per_shard": 4}, "images_per_shard is 3 there and 4 here"),
        ({"source": "other"}, 'source is "fake/1" there and "fake/2" here'),
    ],
    ids=["settings", "seed", "name", "weights", "shards", "source"],
)
def test_a_folder_of_other_rows_is_refused(tmp_path, change, message):
    run(tmp_path)
    before = shards(tmp_path), (tmp_path / MANIFEST).read_bytes()
    if "source" in change:
        change = {"source": fakes.Source(10)}
        change["source"].version = "fake/2"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **change)
    assert before == (shards(tmp_path), (tmp_path / MANIFEST).read_bytes())


class Network:
    """Never asked; its module's repr has an address."""

    variables: ClassVar[dict] = {}
    preprocessing = fakes.AS_IT_IS
    apply = None

    def __init__(self, depth):
        self.module = {"depth": depth, "activation": lambda x: x}


def test_another_architecture_with_the_same_weights_is_refused(tmp_path):
    table = run(tmp_path, models={"a": Network(2)})
    assert run(tmp_path, models={"a": Network(2)}).equals(table)
    with pytest.raises(ValueError, match=r"networks.*'depth': 2.*there and.*'depth': 3.*here"):
        run(tmp_path, models={"a": Network(3)})


def times(factor):
    def logits(images):
        means = images.mean(axis=(1, 2))
        return factor * np.concatenate([means, means**2], axis=1)

    return lmjax.black_box(logits, preprocessing=fakes.AS_IT_IS)


class OwnNetwork:
    """No pytree, without `variables`."""

    preprocessing = fakes.AS_IT_IS

    def __init__(self, factor):
        self.factor = factor

    def normalise(self, images):
        return images

    def apply(self, images, masks=None, *, masking=None):
        return self.factor * images.mean(axis=(1, 2))


@pytest.mark.parametrize("make", [times, OwnNetwork])
def test_a_network_that_answers_otherwise_is_refused(tmp_path, make):
    table = run(tmp_path, models={"a": make(2.0)})
    assert run(tmp_path, models={"a": make(2.0)}).equals(table)
    with pytest.raises(ValueError, match=r"networks.*weights_sha256.*there and.*weights_sha256"):
        run(tmp_path, models={"a": make(2.001)})


def test_a_network_that_does_not_take_the_fixed_images_is_known_by_its_code(tmp_path):
    def of_size(images, least=fakes.SIZE):
        if images.shape[1] != least:
            raise ValueError(f"images must be {least} pixels wide")
        return images.mean(axis=(1, 2))

    def other(images):
        return 2 * of_size(images)

    other.__qualname__ = of_size.__qualname__
    run(tmp_path, models={"a": lmjax.black_box(of_size)})
    with pytest.raises(ValueError, match=r"architecture.*there and.*architecture.*here"):
        run(tmp_path, models={"a": lmjax.black_box(other)})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patterned(fakes.Brightness):
    """Names a removal and a segmenter."""

    removals: tuple[str, ...] = ()
    segmenter: str = "grid"


def columns(number):
    return lambda image: np.indices(image.shape[:2])[1] % number


def painting(colour):
    return lambda: lmjax.Replace((colour,) * 3)


def test_a_removal_registered_with_other_code_is_refused(tmp_path):
    study = Patterned(removals=("mine",), segmenter="halves")

    options = {"source": fakes.Source(2), "study": study}
    try:
        lmjax.segments.register("halves", columns(2), description="every other column")
        lmjax.removals.register("mine", painting(0.1), description="a grey")
        table = run(tmp_path, **options)
        lmjax.removals.register("mine", painting(0.1), description="another description")
        assert run(tmp_path, **options).equals(table)
        lmjax.removals.register("mine", painting(0.2), description="a grey")
        with pytest.raises(ValueError, match=r'registered.removal mine is "\w+" there and "'):
            run(tmp_path, **options)
        lmjax.removals.register("mine", painting(0.1), description="a grey")
        lmjax.segments.register("halves", columns(4), description="every other column")
        with pytest.raises(ValueError, match=r"registered.segmenter halves is"):
            run(tmp_path, **options)
    finally:
        lmjax.removals.registry.REGISTRY.unregister("mine")
        lmjax.masks.segments._REGISTRY.unregister("halves")


def test_another_version_of_lmjax_is_refused(tmp_path, monkeypatch):
    run(tmp_path)
    monkeypatch.setattr("lmjax.studies.job.__version__", "9.9.9")
    with pytest.raises(ValueError, match=f'lmjax is "{lmjax.__version__}" there and "9.9.9" here'):
        run(tmp_path)


def test_settings_of_tables_alone_go_on_with_the_same_rows(tmp_path):
    study = fakes.Brightness()
    assert run(tmp_path, study=dataclasses.replace(study, unit="lux")).equals(run(tmp_path))


def test_broken_images_are_recorded_and_left_out(tmp_path):
    source = fakes.Source(10, broken=(4, 9), misshapen=(5,))
    with pytest.warns(UserWarning, match="3 of 10 images could not be evaluated.*truncated"):
        table = run(tmp_path, source)
    left = [0, 1, 2, 3, 6, 7, 8]
    assert table.column("image").to_pylist() == [i for i in left for _ in range(3)]
    errors = studies.errors(tmp_path)
    assert [error["image"] for error in errors] == [4, 5, 9]
    assert errors[0]["error"] == "OSError: image 4 is truncated"
    assert errors[1]["id"] == "fake/5"
    assert "shape" in errors[1]["error"]


class Asked:
    """A source that knows what it was asked for, and can wait for it."""

    version = fakes.Source.version

    def __init__(self, length=12):
        self.length, self.indices, self.changed = length, [], threading.Condition()

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        with self.changed:
            self.indices.append(index)
            self.changed.notify_all()
        return fakes.Source(self.length)[index]

    def wait_for(self, index):
        with self.changed:
            assert self.changed.wait_for(lambda: index in self.indices, timeout=30)


def test_the_next_images_are_read_while_a_study_is_at_some(tmp_path, monkeypatch):
    source, ahead, rows = Asked(), [], fakes.Brightness.rows

    def slow(self, batch):
        last = batch.samples[-1].index
        source.wait_for(min(last + 3, 11))  # it would wait in vain if nobody read meanwhile
        ahead.append(max(source.indices) - last)
        return rows(self, batch)

    monkeypatch.setattr(fakes.Brightness, "rows", slow)
    threads = threading.active_count()
    table = run(tmp_path, source)
    assert source.indices == list(range(12))
    assert ahead == [3, 3, 3, 0]
    assert threading.active_count() == threads
    monkeypatch.undo()
    assert run(tmp_path, source).equals(table)
    assert source.indices == list(range(12)), "what is there was read again"


def test_a_run_that_is_interrupted_reads_no_further(tmp_path, monkeypatch):
    source, go_on = Asked(), threading.Event()
    give = Asked.__getitem__

    def slow(self, index):
        item = give(self, index)
        assert index < 4 or go_on.wait(30)
        return item

    def interrupt(self, batch):
        source.wait_for(4)
        threading.Timer(0.2, go_on.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(Asked, "__getitem__", slow)
    monkeypatch.setattr(fakes.Brightness, "rows", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, source)
    assert source.indices == [0, 1, 2, 3, 4]


def test_no_good_image_at_all_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"none of the first 10 images.*truncated"):
        run(tmp_path, fakes.Source(10, broken=range(10)))


def test_a_source_that_gives_nothing_ends_the_run_early(tmp_path):
    source = fakes.Source(40, broken=range(40))
    with pytest.raises(ValueError, match="none of the first 18 images"):
        run(tmp_path, source)
    assert len(shards(tmp_path)) == 5


@pytest.mark.filterwarnings("ignore:.* of 40 images", "ignore:.* shards are not finished")
@pytest.mark.parametrize(
    ("length", "shard", "images"), [(1, (0, 1), 37), (3, (0, 2), 18)], ids=["single", "shared"]
)
def test_images_that_fail_first_do_not_end_the_run(tmp_path, length, shard, images):
    source = fakes.Source(40, broken=range(3))
    table = run(tmp_path, source, images_per_shard=length, shard=shard)
    assert table.num_rows == 3 * images
    assert errors_of(tmp_path) == [0, 1, 2]


def test_rows_of_others_are_enough_to_go_on(tmp_path):
    source = fakes.Source(6, broken=(3, 4, 5))
    with pytest.warns(UserWarning, match="1 of 2 shards"):
        run(tmp_path, source, shard=(0, 2))
    with pytest.warns(UserWarning, match="3 of 6 images"):
        assert run(tmp_path, source, shard=(1, 2)).num_rows == 9


class Rowless(fakes.Brightness):
    """No image has what it asks for."""

    def rows(self, batch):
        return []


def test_a_run_without_any_row_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="none of 10 images has rows: no errors"):
        run(tmp_path, study=Rowless())


def test_images_that_failed_are_tried_again_when_asked(tmp_path):
    with pytest.warns(UserWarning, match=r"2 of 10 images.*retry_errors=True"):
        run(tmp_path / "out", fakes.Source(10, broken=(4, 9)))
    before = shards(tmp_path / "out")
    with pytest.warns(UserWarning, match="2 of 10 images"):
        run(tmp_path / "out")
    assert shards(tmp_path / "out") == before
    good = Asked(10)
    assert run(tmp_path / "out", good, retry_errors=True).equals(run(tmp_path / "whole"))
    assert good.indices == [3, 4, 5, 9]
    assert errors_of(tmp_path / "out") == []


def test_trying_again_loses_no_rows(tmp_path):
    """The disk of all but one image is out of reach by then."""
    with pytest.warns(UserWarning, match="1 of 10 images"):
        before = run(tmp_path, fakes.Source(10, broken=(4,)))
    out_of_reach = fakes.Source(10, broken=(3, 5, 6, 7, 8, 9))
    with pytest.warns(UserWarning, match="1 of 10 images"):
        assert run(tmp_path, out_of_reach, retry_errors=True).equals(before)
    assert errors_of(tmp_path) == [4]


@pytest.mark.parametrize("shard", ["0/2", (0.5, 2), 3, (0, 1, 2)])
def test_shards_are_two_numbers(tmp_path, shard):
    with pytest.raises(ValueError, match="shard must be"):
        run(tmp_path, shard=shard)


@pytest.mark.parametrize("models", [3, [fakes.network(0)], fakes.network(0)], ids=type)
def test_models_are_names_or_classifiers_by_name(tmp_path, models):
    with pytest.raises(ValueError, match="models must be names of networks, or classifiers by na"):
        run(tmp_path, models=models)


def test_images_after_one_that_makes_no_sense_are_evaluated_once_more_only(tmp_path, monkeypatch):
    asked, rows = [], fakes.Brightness.rows

    def count(self, batch):
        asked.append([sample.index for sample in batch.samples])
        return rows(self, batch)

    monkeypatch.setattr(fakes.Brightness, "rows", count)
    with pytest.warns(UserWarning, match="1 of 3 images"):
        run(tmp_path, fakes.Source(3, misshapen=(1,)))
    assert asked == [[0, 1, 2], [0], [1], [2]]


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    fsync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:  # manifest, its folder, two shards and theirs
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device.*run again to go on"):
        run(tmp_path / "full")
    assert len(shards(tmp_path / "full")) == 2
    assert not list(tmp_path.glob("full/rows-*/.*"))
    monkeypatch.undo()
    assert run(tmp_path / "full").equals(whole)


def test_a_folder_that_cannot_be_written_is_an_error_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(fakes.Brightness, "rows", lambda self, batch: pytest.fail("ran"))
    with pytest.raises(OSError, match=r"output .*file/below cannot be written: Not a directory"):
        run(tmp_path / "file" / "below")


def test_damaged_files_are_named(tmp_path):
    run(tmp_path)
    path = next(tmp_path.glob("rows-*/*03.parquet"))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match=r"00000003\.parquet is damaged"):
        run(tmp_path)
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        run(tmp_path)


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "rows.parquet").write_text("mine")
    with pytest.raises(ValueError, match=r"not of a study run: rows\.parquet; nothing was changed"):
        run(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.parquet"]


def test_a_failed_start_claims_no_folder(tmp_path):
    with pytest.raises(ValueError, match="none of the first 3 images can be evaluated"):
        run(tmp_path, fakes.Source(3, broken=(0, 1, 2)), study=fakes.Brightness(seed=1))
    assert run(tmp_path).num_rows == 30


def test_of_two_runs_that_start_together_one_goes_on(tmp_path, monkeypatch):
    rows = fakes.Brightness.rows

    def while_another_starts(self, batch):
        if self.seed == 0:
            run(tmp_path, study=fakes.Brightness(seed=1))
        return rows(self, batch)

    monkeypatch.setattr(fakes.Brightness, "rows", while_another_starts)
    with pytest.raises(ValueError, match=r"another run by now: settings\.seed is 1 there"):
        run(tmp_path)
    assert open_run(tmp_path)[1].num_rows == 30


def test_a_flipped_bit_is_seen_or_changes_nothing(tmp_path):
    whole = run(tmp_path)
    path = next(tmp_path.glob("rows-*/*03.parquet"))
    content, seen = path.read_bytes(), 0
    for place in np.random.default_rng(0).integers(8 * len(content), size=80):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << (place % 8)
        path.write_bytes(flipped)
        try:
            read = run(tmp_path)
        except ValueError as error:
            seen += "03.parquet is damaged" in str(error)
        else:
            assert read.equals(whole)
    assert seen > 40


def test_estimates_write_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = studies.SegmentRemoval(removals=("black",), orders=("random",), grid_size=16)
    cost = studies.estimate(study, fakes.Source(10), models=NETWORKS)
    # Four squares: 0.1 removes none, 0.2 and 0.3 one; so whole, three in between, and nothing.
    assert cost.images == 10
    assert cost.evaluations == 10 * (1 + 4)
    assert cost.seconds > 0
    assert not list(tmp_path.iterdir())


def test_estimates_take_images_that_can_be_evaluated():
    source = fakes.Source(20, broken=(0, 2), misshapen=(1,))
    assert studies.estimate(fakes.Brightness(), source, models=NETWORKS).images == 20
    with pytest.raises(ValueError, match=r"none of the first 16 images.*image 0 is truncated"):
        studies.estimate(fakes.Brightness(), fakes.Source(20, broken=range(20)), models=NETWORKS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 11}, "images must be .* from 1 to 10"),
        ({"images": 0}, "images must be .* from 1"),
        ({"shard": (2, 2)}, "shard must be"),
        ({"images_per_shard": 0}, "images_per_shard must be"),
        ({"models": {}}, "models must be one or more"),
        ({"models": {"a": "resnet50"}}, "must be a classifier"),
        ({"models": "resnet9"}, "network must be one of .*resnet9"),
        ({"study": "removal"}, "study must be"),
        ({"study": fakes.Brightness}, "study must be"),
        ({"engine": "quick"}, "engine must be one of auto, dense, visible, shared"),
        ({"batch_size": 0}, "batch_size must be"),
    ],
    ids=str,
)
def test_arguments_out_of_range_are_errors(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
