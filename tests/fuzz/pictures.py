"""Photographs and mask files: containers, modes, sizes, EXIF, damaged bytes."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from lmjax.data.files.images import read_cutout, read_image, read_mask, read_saliency
from lmjax.explanation.images import load_image
from tests.fuzz.harness import damaged, pick
from tests.support.any_size_network import any_size_network

_FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "bmp": "BMP", "gif": "GIF", "tif": "TIFF"}
_FORMATS |= {"ppm": "PPM", "jp2": "JPEG2000", "tga": "TGA", "ico": "ICO", "pcx": "PCX"}
_MODES = ("RGB", "RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr")
_SIZES = ((9, 7), (1, 1), (1, 40), (40, 1), (33, 64), (128, 3))
_NETWORK = any_size_network()


def attempt(rng: np.random.Generator, folder: Path) -> str:
    content, suffix, exact = _written(rng)
    broken = rng.random() < 0.6
    if broken:
        for _ in range(pick(rng, (1, 1, 3))):
            content = damaged(rng, content)
    suffix = pick(rng, (suffix, suffix, suffix, "jpg", "png", "txt", ""))
    path = folder / f"{pick(rng, ('a', '$x$', 'näme 日本', 'a b', '-x'))}.{suffix}"
    path.write_bytes(content)
    outcome = pick(rng, (_image, _mask, _saliency, _cutout, _explained))(
        rng, path, None if broken else exact
    )
    assert path.read_bytes() == content, "the file was changed"
    assert len(list(folder.iterdir())) == 1, "files were written"
    return outcome


def _written(rng: np.random.Generator) -> tuple[bytes, str, np.ndarray | None]:
    """A picture in some container; its suffix; its colours where reading must give just these."""
    width, height = pick(rng, _SIZES)
    mode, suffix = pick(rng, _MODES), pick(rng, _FORMATS)
    colours = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    picture = Image.fromarray(colours)
    if mode in ("I;16", "I", "F"):
        deep = colours[..., 0].astype(np.uint16) * 257
        kinds = {"I;16": deep, "I": deep.astype(np.int32), "F": deep.astype(np.float32)}
        picture = Image.fromarray(kinds[mode])
    else:
        picture = picture.convert(mode)
    options, turn = {}, 0
    if rng.random() < 0.3 and suffix in ("jpg", "png", "webp", "tif"):
        exif, turn = Image.Exif(), int(rng.integers(0, 12))
        exif[0x0112] = pick(rng, (turn, turn, "x", (1, 2), 70000)) if rng.random() < 0.2 else turn
        turn = exif[0x0112]
        options["exif"] = exif
    if suffix == "tif":
        options["compression"] = pick(rng, ("raw", "tiff_lzw", "tiff_deflate", "jpeg", "group4"))
    file = io.BytesIO()
    try:
        picture.save(file, _FORMATS[suffix], **options)
    except Exception:  # not every container takes every mode
        return _written(rng)
    exact = suffix in ("png", "bmp", "ppm") and mode in ("RGB", "L") and turn in (0, 1)
    return file.getvalue(), suffix, np.asarray(picture.convert("RGB")) if exact else None


def _image(rng, path: Path, expected: np.ndarray | None) -> str:
    found = read_image(path)
    assert found.dtype == np.uint8
    assert found.ndim == 3
    assert found.shape[2] == 3
    assert found.size > 0
    if expected is not None:
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(read_image(path.read_bytes()), found)
    return "answer"


def _mask(rng, path: Path, expected: np.ndarray | None) -> str:
    rule = pick(rng, ({}, {}, {"background": 3}, {"at_least": 128}, {"background": 255}))
    found = read_mask(path, **rule)
    assert found.dtype == bool
    assert found.ndim == 2
    if expected is not None and not rule:
        np.testing.assert_array_equal(found, expected.max(axis=2) > 0)
    return "answer"


def _saliency(rng, path: Path, expected: np.ndarray | None) -> str:
    found = read_saliency(path)
    assert found.dtype == np.float32
    assert found.ndim == 2
    assert 0 <= found.min() <= found.max() <= 1
    return "answer"


def _cutout(rng, path: Path, expected: np.ndarray | None) -> str:
    found = read_cutout(path)
    assert found.dtype == np.uint8
    assert found.shape[2] == 4
    return "answer"


def _explained(rng, path: Path, expected: np.ndarray | None) -> str:
    found = load_image(str(path), _NETWORK)
    assert found.pixels.shape == (32, 32, 3)
    assert 0 <= found.pixels.min() <= found.pixels.max() <= 1
    return "answer"
