"""Digit scenes: handwritten digits on photographs, with ground truth, made offline.

Each scene is one of 1797 digit scans (8x8; Alpaydin & Kaynak 1998), smoothly enlarged to 44-88
pixels, turned a little, coloured and textured, on a 128x128 crop of a photograph that scikit-image
or lmjax ships. Images are uint8 [H, W, 3]; masks are bool [H, W], True on the digit.

    scenes = DigitScenes("test", length=2000)
    scene = scenes[0]
    scene.image, scene.label, scene.object_mask

With `spurious=p` something beside the digit predicts its class, and a network learns to cheat:

    scene = DigitScenes(spurious=0.9, cue="colour")[0]
    scene.cue.points_at, scene.cue.agrees, scene.cue.mask

A scene depends on (seed, split, index), and on the dials of its cue, alone. Pixel arithmetic is
integer or plain IEEE additions and products (no BLAS, no transcendental functions on arrays), so
that machines agree.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from importlib import resources

import numpy as np

from lmjax._utils.checks import check_choice, check_flag, check_number, check_whole
from lmjax._utils.photographs import find
from lmjax.data.digits import cues
from lmjax.data.digits.cues import Cue
from lmjax.data.source import Scenes

SIZE = 128
"""Height and width of a scene in pixels."""

CLASS_NAMES = tuple("0123456789")
SPLITS = ("train", "test")

TRAIN_PHOTOGRAPHS = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "china.jpg",
    "coins.png",
    "grass.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "retina.jpg",
    "rocket.jpg",
)
"""Backgrounds of both splits."""

UNSEEN_PHOTOGRAPHS = ("coffee.png", "flower.jpg", "gravel.png", "motorcycle_left.png")
"""Backgrounds of the test split only: a quarter of the test scenes."""

# One scan in seven is for testing. Seven shares no factor with ten: the scans come in runs of
# 0, 1, ..., 9, and each class keeps its share.
_TEST_SCAN_EVERY = 7

_DIGIT_SIZES = (44, 88)  # side of the enlarged scan, pixels, both ends included
_MAX_ROTATION = math.radians(12)
_MAX_SHEAR = 0.15

_GLYPH_PADDING = 2  # empty scan cells around a scan, so that its edge fades out too
_GLYPH_ZOOM = 8  # raster pixels per scan cell
_FADE = (0.2, 0.6)  # ink (0..1) at which opacity begins and is complete

Box = tuple[slice, slice]  # rows and columns of the picture

_LUMINANCE = (299, 587, 114)  # ITU-R BT.601, in thousandths


@dataclass(frozen=True, eq=False)
class Scene:
    """An image of a digit on a photograph, with its ground truth.

    Attributes:
        id: "digit_scenes/<split>/<seed>/<index>", and with a cue "/<dials>" at its end; unique and
            sufficient to generate the scene again.
        image: uint8 [128, 128, 3].
        label: the digit, 0..9.
        object_mask: bool [128, 128], True on every pixel that the digit influenced, soft edge
            included. Elsewhere the image is the background, bit for bit.
        tight_mask: bool [128, 128], True where the digit is at least half opaque.
        background: uint8 [128, 128, 3], the image without the digit: the photograph's crop, with
            the tag of a cue.
        scan: index of the digit, in the order of ``sklearn.datasets.load_digits()``.
        photograph: file name of the background.
        cue: feature beside the digit that predicts a class, or None.
    """

    id: str
    image: np.ndarray
    label: int
    object_mask: np.ndarray
    tight_mask: np.ndarray
    background: np.ndarray
    scan: int
    photograph: str
    cue: Cue | None = None


@dataclass(frozen=True)
class _Dials:
    """Options of the cue; see `DigitScenes`."""

    spurious: float
    cue: str
    reverse: bool

    def __str__(self) -> str:
        return f"{self.cue}={self.spurious}{',reversed' if self.reverse else ''}"


class DigitScenes(Scenes[Scene]):
    """A sequence of `Scene`, each generated on demand (in about a millisecond).

    ``scenes[i]`` does not depend on the length: a longer sequence only adds scenes.

    With `spurious`, a feature beside the digit predicts a class: with this probability the digit's
    in the training split, and the one after it in the test split; otherwise any other of the ten. A
    network trained on such scenes cheats, and the test split exposes it. Tags are put on the scene
    that is there without them; a photograph as cue makes another scene of the same scan.

    Args:
        split: "train" or "test". They share no scan; a quarter of the test scenes have
            photographs that no training scene has.
        length: number of scenes.
        seed: another seed gives other scenes (of the same scans and photographs).
        spurious: the probability, 0..1, or None for scenes without a cue.
        cue: "photograph" (each class has its own, all of them seen in training; the default),
            "colour" or "texture" (a tag of 16x16 pixels beside the digit; each class has its own).
        reverse: whether cues predict the class after the digit's, not the digit's; None reverses in
            the test split.

    Raises:
        ValueError: for an unknown split, a negative length or a negative seed; a probability
            outside 0..1, an unknown cue, or a cue without `spurious`.
    """

    class_names = CLASS_NAMES

    def __init__(
        self,
        split: str = "train",
        *,
        length: int = 2000,
        seed: int = 0,
        spurious: float | None = None,
        cue: str | None = None,
        reverse: bool | None = None,
    ) -> None:
        self.split = check_choice("split", split, SPLITS)
        self.length = check_whole("length", length, least=0)
        self.seed = check_whole("seed", seed, least=0)
        self._dials = _check_dials(split, spurious, cue, reverse)

    @property
    def version(self) -> str:
        """Identifies the scenes, independently of their number; changes if scenes do."""
        version = f"digit_scenes/{self.split}/{self.seed}/1"
        return version if self._dials is None else f"{version}/{self._dials}"

    def _make(self, index: int) -> Scene:
        which = (self.split, self.seed, index)
        return _scene(*which) if self._dials is None else _cued_scene(*which, self._dials)

    def __repr__(self) -> str:
        dials = "" if self._dials is None else f", {self._dials}"
        return f"DigitScenes({self.split!r}, length={self.length}, seed={self.seed}{dials})"


def photographs(split: str) -> tuple[str, ...]:
    """Returns the file names of the photographs behind the digits of a split."""
    return TRAIN_PHOTOGRAPHS if split == "train" else TRAIN_PHOTOGRAPHS + UNSEEN_PHOTOGRAPHS


def scans(split: str) -> np.ndarray:
    """Indices of the scans that a split shows, int [S]."""
    _, labels = _digits()
    index = np.arange(len(labels))
    is_test = index % _TEST_SCAN_EVERY == 0
    return index[is_test] if split == "test" else index[~is_test]


def _check_dials(
    split: str, spurious: float | None, cue: str | None, reverse: bool | None
) -> _Dials | None:
    if spurious is None:
        if cue is not None or reverse is not None:
            raise ValueError(
                f"cue is {cue!r} and reverse is {reverse!r}, but spurious is None: without a "
                "probability there is no cue; give spurious=0.9, for example"
            )
        return None
    spurious = check_number("spurious", spurious, least=0, most=1, note="a probability")
    kind = check_choice("cue", "photograph" if cue is None else cue, cues.KINDS)
    reverse = split == "test" if reverse is None else check_flag("reverse", reverse)
    return _Dials(spurious, kind, reverse)


def _scene(split: str, seed: int, index: int, photograph: str | None = None) -> Scene:
    """Generates a scene without a cue, on a photograph that is drawn or given."""
    rng = np.random.Generator(np.random.PCG64((seed, SPLITS.index(split), index)))
    names, candidates = photographs(split), scans(split)
    own = names[rng.integers(len(names))]
    photograph = own if photograph is None else photograph
    scan = int(candidates[rng.integers(len(candidates))])
    background = _crop(rng, photograph)
    box, opacity = _opacity(rng, scan)
    paint = _paint(rng, background[box], opacity, box)
    image = background.copy()
    image[box] = _composite(background[box], paint, opacity)
    object_mask, tight_mask = np.zeros((2, SIZE, SIZE), bool)
    object_mask[box] = opacity > 0
    tight_mask[box] = opacity >= 128
    return Scene(
        id=f"digit_scenes/{split}/{seed}/{index}",
        image=image,
        label=int(_digits()[1][scan]),
        object_mask=object_mask,
        tight_mask=tight_mask,
        background=background,
        scan=scan,
        photograph=photograph,
    )


def _cued_scene(split: str, seed: int, index: int, dials: _Dials) -> Scene:
    """Generates a scene with a cue, drawn from a stream of its own: the rest is unchanged."""
    sequence = np.random.SeedSequence((seed, SPLITS.index(split), index))
    rng = np.random.Generator(np.random.PCG64(sequence.spawn(1)[0]))
    scene = _scene(split, seed, index)
    towards = cues.reversed_class(scene.label) if dials.reverse else scene.label
    points_at = cues.draw_class(rng, towards, dials.spurious)
    if dials.cue == "photograph":
        scene = _scene(split, seed, index, TRAIN_PHOTOGRAPHS[points_at])
        mask = ~scene.object_mask
        image, background = scene.image, scene.background
    else:
        mask = cues.place(rng, scene.object_mask)
        tag = cues.tag(rng, dials.cue, points_at)
        image, background = (_paste(x, tag, mask) for x in (scene.image, scene.background))
    return dataclasses.replace(
        scene,
        id=f"{scene.id}/{dials}",
        image=image,
        background=background,
        cue=Cue(dials.cue, points_at, points_at == scene.label, mask),
    )


def _paste(image: np.ndarray, tag: np.ndarray, mask: np.ndarray) -> np.ndarray:
    image = image.copy()
    image[mask] = tag.reshape(-1, 3)
    return image


def _composite(background: np.ndarray, paint: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Blends in integers, rounding to nearest: opacity 0 leaves the background bit for bit."""
    under = background.astype(np.int32)
    change = (paint - under) * opacity[..., None]
    return (under + ((change + 128) >> 8)).astype(np.uint8)


# Backgrounds


def _crop(rng: np.random.Generator, photograph: str) -> np.ndarray:
    """Draws a 128x128 window of a photograph at a random scale, possibly mirrored."""
    scales = _photograph(photograph)
    pixels = scales[rng.integers(len(scales))]
    top, left = (int(rng.integers(n - SIZE + 1)) for n in pixels.shape[:2])
    window = pixels[top : top + SIZE, left : left + SIZE]
    return window[:, ::-1] if rng.integers(2) else window


@functools.cache
def _photograph(name: str) -> tuple[np.ndarray, ...]:
    """Reads a photograph, uint8 [H, W, 3], at full size and halved while 1.5 scenes fit into it."""
    from PIL import Image

    with Image.open(find(name), formats=("PNG", "JPEG")) as photograph:
        scales = [np.array(photograph.convert("RGB"))]
    while min(scales[-1].shape[:2]) >= 3 * SIZE:
        scales.append(_halve(scales[-1]))
    return tuple(scales)


def _halve(pixels: np.ndarray) -> np.ndarray:
    """Means of 2x2 blocks, rounded; an odd last row or column is dropped."""
    height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
    blocks = pixels[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    return ((blocks.sum(axis=(1, 3), dtype=np.uint16) + 2) >> 2).astype(np.uint8)


# Digits


@functools.cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns the ink of the scans, uint8 [1797, 8, 8] in 0..16, and their labels, uint8 [1797]."""
    with np.load(str(resources.files("lmjax.data.digits") / "scans.npz")) as scans:
        return scans["ink"], scans["labels"]


@functools.lru_cache(maxsize=2048)
def _glyph(scan: int) -> np.ndarray:
    """Enlarges a scan's ink by Catmull-Rom splines to a raster, float32 [97, 97] in 0..1.

    The weights are dyadic fractions and the ink is whole, so the products are exact.
    """
    ink = np.pad(_digits()[0][scan], _GLYPH_PADDING)
    weights = _catmull_rom(len(ink))
    return np.clip(weights @ ink @ weights.T / 16, 0, 1).astype(np.float32)


@functools.cache
def _catmull_rom(n: int) -> np.ndarray:
    """Returns the interpolation matrix [8 n + 1, n]; row r samples n cells at r / 8.

    The centres of cells are at i + 0.5.
    """
    positions = np.arange(_GLYPH_ZOOM * n + 1) / _GLYPH_ZOOM - 0.5
    distance = np.abs(positions[:, None] - np.arange(n)[None, :])
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))


def _opacity(rng: np.random.Generator, scan: int) -> tuple[Box, np.ndarray]:
    """Places a digit at random; returns its box and its opacity there, int32 [h, w] in 0..256."""
    size = int(rng.integers(_DIGIT_SIZES[0], _DIGIT_SIZES[1] + 1))
    angle = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION)
    shear = rng.uniform(-_MAX_SHEAR, _MAX_SHEAR)
    cos, sin = math.cos(angle), math.sin(angle)
    # Half the height and width of the sheared and turned square, so that it stays in the picture.
    half_height = size / 2 * (cos + shear * sin + abs(sin))
    half_width = size / 2 * (abs(shear * cos - sin) + cos)
    y0 = rng.uniform(half_height, SIZE - half_height)
    x0 = rng.uniform(half_width, SIZE - half_width)

    rows = _span(y0, half_height)
    columns = _span(x0, half_width)
    dy = (np.arange(rows.start, rows.stop) + 0.5 - y0).astype(np.float32)[:, None]
    dx = (np.arange(columns.start, columns.stop) + 0.5 - x0).astype(np.float32)[None, :]
    # From picture to raster: turn back, shear back, shrink.
    zoom = 8 * _GLYPH_ZOOM / size
    v = np.float32(zoom * cos) * dy - np.float32(zoom * sin) * dx
    u = np.float32(zoom * (sin - shear * cos)) * dy + np.float32(zoom * (cos + shear * sin)) * dx

    return (rows, columns), _fade(_bilinear(_glyph(scan), v, u))


def _span(centre: float, half: float) -> slice:
    """Pixels within half (and the glyph's fading edge, an eighth of it) of a centre."""
    reach = half * (8 + 2) / 8
    return slice(max(0, math.floor(centre - reach)), min(SIZE, math.ceil(centre + reach)))


def _bilinear(raster: np.ndarray, v: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Samples a raster at offsets (v, u) from its centre; beyond its border, the border."""
    last = len(raster) - 1
    v, u = np.clip(v + last / 2, 0, last - 1e-3), np.clip(u + last / 2, 0, last - 1e-3)
    i, j = v.astype(np.int32), u.astype(np.int32)
    v, u = v - i, u - j
    corner = i * len(raster) + j
    flat = raster.ravel()
    top = flat[corner] * (1 - u) + flat[corner + 1] * u
    corner += len(raster)
    bottom = flat[corner] * (1 - u) + flat[corner + 1] * u
    return top * (1 - v) + bottom * v


def _fade(ink: np.ndarray) -> np.ndarray:
    """Turns ink 0..1 into opacity 0..256 by a smooth step: strokes are solid and edges soft."""
    low, high = _FADE
    t = np.clip((ink - np.float32(low)) * np.float32(1 / (high - low)), 0, 1)
    return np.rint(t * t * (3 - 2 * t) * 256).astype(np.int32)


# Colour and texture


def _paint(
    rng: np.random.Generator, background: np.ndarray, opacity: np.ndarray, box: Box
) -> np.ndarray:
    """Draws two colours that stand out from the background, and a mix of both, int32 [h, w, 3]."""
    low, high = _legible_luminances(rng, background, opacity > 0)
    first, second = (_colour(rng, rng.uniform(low, high)) for _ in range(2))
    mix = _pattern(rng, box)[..., None]
    return ((first * (256 - mix) + second * mix) / 256 * 255).astype(np.int32)


def _legible_luminances(
    rng: np.random.Generator, background: np.ndarray, where: np.ndarray
) -> tuple[float, float]:
    """Draws a range of luminances, 0..1, all lighter or all darker than the background there.

    The contrast grows with the background's own variation: a busy background hides more.
    """
    luminance = (background[where] * np.array(_LUMINANCE)).sum(axis=-1)  # whole: sums are exact
    mean = int(luminance.sum()) / luminance.size / 255_000
    variance = int((luminance**2).sum()) / luminance.size / 255_000**2 - mean**2
    widest = max(mean, 1 - mean)
    contrast = min(0.2 + math.sqrt(max(variance, 0.0)), widest - 0.05)
    darker, lighter = max(mean - contrast, 0.0), max(1 - mean - contrast, 0.0)
    take_darker = rng.random() * (darker + lighter) < darker
    return (0.0, darker) if take_darker else (1 - lighter, 1.0)


def _colour(rng: np.random.Generator, luminance: float) -> np.ndarray:
    """Draws an RGB colour of a given luminance, float64 [3] in 0..1."""
    weights = np.array(_LUMINANCE) / 1000
    tint = rng.uniform(-1, 1, size=3)
    tint -= (tint * weights).sum()
    # As far along the tint as the RGB cube allows.
    room = np.where(tint > 0, 1 - luminance, luminance) / np.maximum(np.abs(tint), 1e-6)
    return luminance + rng.uniform(0.3, 1) * room.min() * tint


def _pattern(rng: np.random.Generator, box: Box) -> np.ndarray:
    """Draws the share of the second colour in a box, int32 [h, w] in 0..256.

    One of four: none of it, a gradient, stripes or spots.
    """
    kind = rng.integers(4)
    angle, period = rng.uniform(0, 2 * math.pi), rng.uniform(6, 20)
    y, x = (np.arange(span.start, span.stop) for span in box)
    if kind == 0:
        return np.zeros((len(y), len(x)), np.int32)
    if kind == 3:
        grid = rng.integers(0, 257, size=(SIZE // 4, SIZE // 4), dtype=np.int32)
        return grid[y[:, None] // 4, x[None, :] // 4]
    period = period if kind == 2 else 2 * SIZE
    along_y = y.astype(np.float32) * np.float32(math.sin(angle) / period)
    along_x = x.astype(np.float32) * np.float32(math.cos(angle) / period)
    phase = along_y[:, None] + along_x[None, :]
    triangle = np.abs(phase - np.rint(phase)) * 2
    return np.rint(triangle * 256).astype(np.int32)
