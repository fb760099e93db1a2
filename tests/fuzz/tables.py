"""Tables and folders of images, lists of classes, descriptions of datasets."""

import functools
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from lmjax import data
from tests.fuzz.harness import STRANGE_TEXT, damaged, kept_folder, pick
from tests.fuzz.records import _changed_json

_FIELDS = ("image", "label", "mask", "tight_mask", "saliency", "id", "x")


def attempt(rng: np.random.Generator, folder: Path) -> str:
    kind = pick(rng, (_csv, _csv, _folder, _dataset, _spec, _imagenet))
    source = kind(rng, folder)
    assert len(source) > 0
    found = source[int(rng.integers(len(source)))]
    assert found.image.dtype == np.uint8
    assert found.image.ndim == 3
    assert found.label is None or found.label >= 0
    assert found.object_mask is None or found.object_mask.dtype == bool
    assert isinstance(source.version, str)
    return "answer"


def _picture(path: Path, value: int = 200) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 5, 3), value, np.uint8)).save(path, "PNG")


def _csv(rng: np.random.Generator, folder: Path):
    for name in ("a.png", "b.png", "m.png"):
        _picture(folder / name)
    columns = [each for each in _FIELDS if rng.random() < 0.6] or ["image"]
    values = {"image": ("a.png", "b.png"), "label": ("0", "1", "10", "cat", "n01440764")}
    rows = [columns]
    for _ in range(int(rng.integers(0, 4))):
        rows.append([pick(rng, values.get(each, ("m.png", ""))) for each in columns])
    if rng.random() < 0.5 and len(rows) > 1:
        row = pick(rng, rows)
        row[int(rng.integers(len(row)))] = pick(rng, STRANGE_TEXT)
    if rng.random() < 0.2:
        pick(rng, rows).append("more")
    quote = pick(rng, ('"', "'", ""))
    text = "\n".join(
        pick(rng, (",", ",", ",", ";")).join(f"{quote}{v}{quote}" for v in r) for r in rows
    )
    content = text.encode(pick(rng, ("utf-8", "utf-8", "utf-16", "latin-1")), "replace")
    (folder / "t.csv").write_bytes(damaged(rng, content) if rng.random() < 0.3 else content)
    return data.from_csv(folder / "t.csv", **_options(rng, folder))


def _options(rng: np.random.Generator, folder: Path) -> dict:
    options = {}
    if rng.random() < 0.3:
        lines = [pick(rng, ("cat", "dog", "0", "1", "n01440764", *STRANGE_TEXT)) for _ in range(3)]
        content = "\n".join(lines).encode("utf-8", "replace")
        (folder / "classes.txt").write_bytes(
            content if rng.random() < 0.7 else damaged(rng, content)
        )
        options["classes"] = folder / "classes.txt"
    for name in ("background", "at_least"):
        if rng.random() < 0.1:
            options[name] = pick(rng, (0, 1, 255, 256, -1, "3", "x", 1.5, 2**70, "", "٣", "²"))
    return options


def _folder(rng: np.random.Generator, folder: Path):
    root, masks = folder / "images", folder / "masks"
    for _ in range(int(rng.integers(0, 4))):
        name = pick(
            rng, ("cat", "dog", "0", "1", "10", "@eaDir", ".hidden", "$x$", "näme", "n01440764")
        )
        _picture(root / name / pick(rng, ("a.png", "b.PNG", "c.jpg", ".d.png", "x.txt", "b.JPG")))
        _picture(masks / name / pick(rng, ("a.png", "b.png", "c.png", "c.gif")), 255)
    root.mkdir(exist_ok=True)
    how = int(rng.integers(6))
    if how == 0:
        (root / "stray.png").write_bytes(rng.bytes(9))
    if how == 1:
        (root / "loop").symlink_to(root)
    options = _options(rng, folder)
    if rng.random() < 0.5:
        options["masks"] = pick(rng, (masks, masks, root, folder / "none", "", folder / "t.csv"))
    return data.from_folder(pick(rng, (root, root, root, folder, folder / "none")), **options)


@functools.cache
def _prepared() -> Path:
    out = kept_folder()
    data.prepare_digit_scenes(out, train_length=3, test_length=2)
    return out


def _dataset(rng: np.random.Generator, folder: Path):
    """A prepared dataset with a file changed."""
    root = folder / "datasets"
    shutil.copytree(_prepared(), root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    small = [path for path in files if path.suffix in (".json", ".txt")]
    path = pick(rng, small if rng.random() < 0.8 else files)
    if path.suffix == ".json" and rng.random() < 0.7:
        path.write_text(_changed_json(rng, path.read_text()))
    elif rng.random() < 0.2:
        path.unlink()
    else:
        path.write_bytes(damaged(rng, path.read_bytes()))
    name = next(each.name for each in _prepared().iterdir() if each.is_dir())
    return data.from_tfds(name, split=pick(rng, ("train", "test", "train[1:]")), data_dir=root)


def _spec(rng: np.random.Generator, folder: Path):
    """What is written for a source on the command line."""
    _picture(folder / "images" / "cat" / "a.png")
    (folder / "t.csv").write_text("image,label\nimages/cat/a.png,cat\n")
    kinds = (*data.names(), "folder", "csv", "digit-scenes", "x", "")
    places = (folder / "images", folder / "t.csv", "none", "", "a[b", *STRANGE_TEXT)
    parts = [f"{pick(rng, kinds)}:{pick(rng, places)}" if rng.random() < 0.8 else pick(rng, kinds)]
    names = (
        "masks",
        "classes",
        "seed",
        "split",
        "spurious",
        "cue",
        "reverse",
        "size",
        "x",
        "images",
    )
    for _ in range(int(rng.integers(0, 3))):
        values = (*STRANGE_TEXT, "test", "0.5", "3", "yes", "watermark")
        parts.append(f"{pick(rng, names)}={pick(rng, values)}")
    return data.open_source(",".join(parts), length=pick(rng, (None, 2)))


def _imagenet(rng: np.random.Generator, folder: Path):
    """ImageNet's validation images, in one folder, with their labels."""
    names = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in range(1, 4)]
    for name in names:
        _picture(folder / "val" / name)
    lines = [pick(rng, ("3", "65", "n01440764", "0", "1000", "-1", "x", "")) for _ in range(3)]
    content = "\n".join(lines).encode()
    if rng.random() < 0.4:
        content = damaged(rng, content)
    labels = folder / "labels.txt"
    labels.write_bytes(content)
    return data.from_imagenet(folder / "val", labels=pick(rng, (labels, labels, None, folder)))
