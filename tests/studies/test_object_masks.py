"""A known box, from files to what a study sees: where each network's crop puts it."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from lmjax.data import from_folder
from lmjax.models import registry
from lmjax.studies.block import Block, read

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


def where(box, resize, crop):
    """Pixels of the crop whose centres lie in the box of the photograph."""
    sides = []
    for side in (HEIGHT, WIDTH):
        resized = int(resize * side / min(HEIGHT, WIDTH))
        centres = np.arange(resized) + 0.5
        first = round((resized - crop) / 2)
        sides.append(centres[first : first + crop] * side / resized)
    rows, columns = ((part.start <= c) & (c < part.stop) for part, c in zip(box, sides))
    return rows[:, None] & columns


@pytest.mark.parametrize("tag", TAGS)
def test_boxes_are_where_the_crop_puts_them(source, tag):
    preprocessing = registry.find_source(tag, "resnet50").preprocessing
    samples = [read(source, i) for i in range(len(source))]
    networks = {"a": SimpleNamespace(preprocessing=preprocessing)}
    for sample in samples:
        name = sample.id.removeprefix("box/").removesuffix(".png").removesuffix("-turned")
        expected = where(BOXES[name], preprocessing.resize, preprocessing.crop)
        block = Block([sample], networks, key=jax.random.key(0))
        if not expected.any():
            with pytest.raises(ValueError, match="none of its object_mask is in the part"):
                block.object_masks("a")
            continue
        (mask,), (image,) = block.object_masks("a"), block.images("a")
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, expected, err_msg=sample.id)
        # Smooth filters blur the edge of the picture of the box, not its inside.
        assert (mask == (image[..., 0] > 0.5)).mean() > 0.98, sample.id


def test_settings_differ():
    chosen = {registry.find_source(tag, "resnet50").preprocessing for tag in TAGS}
    assert len({(each.resize, each.crop, each.interpolation) for each in chosen}) == len(TAGS)
