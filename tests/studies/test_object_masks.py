"""A known box, from files to what studies see and remove: where each network's crop puts it."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from lmjax.data import from_folder
from lmjax.models import Preprocessing, registry
from lmjax.studies import LimeQuality, MaskShape, SegmentRemoval
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from tests.studies import linear_network
from tests.studies.fakes import pick
from tests.support.torch_reference import torchvision

HEIGHT, WIDTH = 300, 420
TAGS = (
    "torchvision/resnet50.IMAGENET1K_V1",
    "torchvision/resnet50.IMAGENET1K_V2",
    "timm/resnet50.a1_in1k",
    "timm/resnet50.a3_in1k",
)
BOXES = {
    "middle": (slice(100, 190), slice(150, 260)),
    "edge": (slice(0, 40), slice(30, 390)),
    "corner": (slice(0, 20), slice(0, 20)),  # outside most crops
    "pixel": (slice(150, 151), slice(210, 211)),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """White boxes on black and their masks, one of each stored lying on its side."""
    folder = tmp_path_factory.mktemp("boxes")
    for name, box in BOXES.items():
        picture = np.zeros((HEIGHT, WIDTH), np.uint8)
        picture[box] = 255
        write(folder / "images" / "box" / f"{name}.png", picture)
        write(folder / "masks" / "box" / f"{name}.png", picture)
        tags = Image.Exif()
        tags[0x0112] = 6  # to be turned clockwise
        write(folder / "images" / "box" / f"{name}-turned.png", np.rot90(picture), exif=tags)
        write(folder / "masks" / "box" / f"{name}-turned.png", picture)
    return from_folder(folder / "images", masks=folder / "masks")


def write(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def where(box, resize, crop, size=(HEIGHT, WIDTH)):
    """Pixels of the crop whose centres lie in the box of the photograph."""
    sides = []
    for side in size:
        resized = side if resize is None else resize * side // min(size)
        centres = (np.arange(resized) + 0.5) * side / resized
        if crop is not None:
            before, after = max(crop - resized, 0) // 2, (max(crop - resized, 0) + 1) // 2
            centres = np.pad(centres, (before, after), constant_values=-1)
            first = round((len(centres) - crop) / 2)
            centres = centres[first : first + crop]
        sides.append(centres)
    rows, columns = ((part.start <= c) & (c < part.stop) for part, c in zip(box, sides))
    return rows[:, None] & columns


@pytest.mark.parametrize("tag", TAGS)
def test_boxes_are_where_the_crop_puts_them(source, tag):
    preprocessing = registry.find_source(tag, name="resnet50").preprocessing
    samples = [read_sample(source, i) for i in range(len(source))]
    networks = {"a": SimpleNamespace(preprocessing=preprocessing)}
    for sample in samples:
        name = sample.id.removeprefix("box/").removesuffix(".png").removesuffix("-turned")
        expected = where(BOXES[name], preprocessing.resize, preprocessing.crop)
        batch = ImageBatch([sample], networks, key=jax.random.key(0))
        if not expected.any():
            with pytest.raises(ValueError, match="none of its object_mask is in the part"):
                batch.object_masks("a")
            continue
        (mask,), (image,) = batch.object_masks("a"), batch.images("a")
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected, err_msg=sample.id)
        # Smooth filters blur the edge of the picture of the box, not its inside.
        assert (mask == (image[..., 0] > 0.5)).mean() > 0.98, sample.id


def test_settings_differ():
    chosen = {registry.find_source(tag, name="resnet50").preprocessing for tag in TAGS}
    assert len({(each.resize, each.crop, each.interpolation) for each in chosen}) == len(TAGS)


@pytest.mark.parametrize("size", [(37, 53), (53, 37), (45, 45), (64, 101), (33, 200)], ids=str)
@pytest.mark.parametrize(
    ("resize", "crop"),
    [(40, 32), (41, 32), (50, 31), (64, 64), (20, 32), (None, 32), (None, 64), (40, None)],
)
def test_boxes_go_where_torchvision_puts_them(size, resize, crop):
    """Enlarged and shrunk, padded, with halves of pixels to round, and uncropped."""
    box = (slice(size[0] // 3, 2 * size[0] // 3 + 1), slice(size[1] // 2 - 9, size[1] // 2 + 6))
    mask = np.zeros(size, bool)
    mask[box] = True
    sample = {"image": np.repeat(mask[..., None] * np.uint8(255), 3, axis=2), "object_mask": mask}
    preprocessing = Preprocessing(resize, crop, interpolation="nearest")
    networks = {"a": SimpleNamespace(preprocessing=preprocessing)}
    batch = ImageBatch([read_sample([sample], 0)], networks, key=jax.random.key(0))
    (found,), (image,) = batch.object_masks("a"), batch.images("a")
    transforms = torchvision.transforms
    nearest = transforms.InterpolationMode.NEAREST
    steps = [] if resize is None else [transforms.Resize(resize, interpolation=nearest)]
    steps += [] if crop is None else [transforms.CenterCrop(crop)]
    expected = np.asarray(transforms.Compose(steps)(Image.fromarray(mask)))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(found, where(box, resize, crop, size))
    np.testing.assert_array_equal(found, image[..., 0] == 1)


SMALL_BOXES = {"left": (slice(12, 31), slice(9, 30)), "right": (slice(20, 33), slice(40, 49))}
CROPS = {"bigger": (60, 32), "smaller": (37, 32), "cut": (None, 32)}  # crops of 50 x 71 pixels


@pytest.fixture(params=[("left", "bigger"), ("right", "smaller"), ("left", "cut")], ids="-".join)
def white_box(request, tmp_path):
    """A batch with a white box on black, and where it must be."""
    box, (resize, crop) = SMALL_BOXES[request.param[0]], CROPS[request.param[1]]
    picture = np.zeros((50, 71), np.uint8)
    picture[box] = 255
    write(tmp_path / "images" / "3" / "a.png", picture)
    write(tmp_path / "masks" / "3" / "a.png", picture)
    source = from_folder(tmp_path / "images", masks=tmp_path / "masks")
    preprocessing = Preprocessing(resize, crop, "nearest", mean=(0.5,) * 3, std=(0.5,) * 3)
    network = linear_network.network()
    # Sums of colours are large; weights so small that probabilities stay between 0 and 1.
    small = jax.tree.map(lambda leaf: leaf / 200, network.variables)
    network = dataclasses.replace(network, variables=small, preprocessing=preprocessing)
    batch = ImageBatch([read_sample(source, 0)], {"a": network}, key=jax.random.key(0))
    return batch, where(box, resize, crop, picture.shape)


def probabilities(batch, images):
    """Of the classes that the network predicts on images `[N, H, W]`, 0 black and 1 white."""
    network = batch.networks["a"]
    images = np.repeat(np.asarray(images, np.float32)[..., None], 3, axis=-1)
    return np.asarray(jax.nn.softmax(network.apply(network.normalise(images)), axis=-1).max(axis=1))


def test_the_removal_study_removes_squares_of_the_box(white_box):
    """All is black when the squares that the box touches are gone, and not one square before."""
    batch, box = white_box
    covered = box.reshape(16, 2, 16, 2).mean(axis=(1, 3)).ravel()
    gone = np.count_nonzero(covered)
    fractions = ((gone - 1) / 256, gone / 256)
    study = SegmentRemoval(
        removals=("black",), orders=("most_salient",), fractions=fractions, grid_size=2
    )
    before, after = study.rows(batch)
    assert (before["removed"], after["removed"]) == (gone - 1, gone)
    black, *rest = probabilities(
        batch,
        # Which of the least covered squares is the last is drawn.
        [
            0 * box,
            *(box & square(i) for i in np.flatnonzero(covered == covered[covered > 0].min())),
        ],
    )
    assert after["probability"] == pytest.approx(black, rel=1e-6)
    assert np.isclose(before["probability"], rest, rtol=1e-6, atol=0).any()
    assert not np.isclose(black, rest, rtol=1e-5, atol=0).any()


def square(i):
    """Pixels of one of 16 x 16 squares."""
    return np.kron(np.arange(256).reshape(16, 16) == i, np.ones((2, 2), bool))


def test_the_shape_study_removes_the_box(white_box):
    batch, box = white_box
    rows = MaskShape(removals=("black",), margins=(0,)).rows(batch)
    (removed,), (swapped,) = pick(rows, hole="object"), pick(rows, hole="swapped")
    quarters = np.roll(box, (16, 16), axis=(0, 1))
    assert removed["hidden"] == swapped["hidden"] == box.mean()
    black, rest, whole = probabilities(batch, [0 * box, box & ~quarters, box])
    assert removed["probability"] == pytest.approx(black, rel=1e-6)
    assert swapped["probability"] == pytest.approx(rest, rel=1e-6)
    assert not np.isclose(black, whole, rtol=1e-3)


def test_the_lime_study_compares_with_the_box(white_box, monkeypatch):
    batch, box = white_box
    scores = np.random.default_rng(0).normal(size=16)
    monkeypatch.setattr(LimeQuality, "explain", lambda *_, **__: [scores[None]])
    study = LimeQuality(
        removals=("black",), evaluated_under=("own",), ks=(1,), top=3, grid_size=8, num_samples=8
    )
    (row,) = study.rows(batch)
    segments = np.arange(16).reshape(4, 4).repeat(8, axis=0).repeat(8, axis=1)
    covered = box.reshape(4, 8, 4, 8).sum(axis=(1, 3)).ravel() - 64 * box.mean()
    cosine = scores @ covered / np.linalg.norm(scores) / np.linalg.norm(covered)
    assert row["alignment"] == pytest.approx(cosine)
    top = np.isin(segments, np.argsort(-scores)[:3])
    assert row["iou"] == pytest.approx((top & box).sum() / (top | box).sum())
