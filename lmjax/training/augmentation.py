"""Augmentations that hide parts of images, as pure functions of (key, examples), for use in `jit`.

The kind of region and the removal are two choices: `"patches:grey"` paints random patches grey;
`"patches:layer"` removes the same patches by layer masking, so that the mask goes through the
network beside the image. Any removal of `lmjax.removals` that paints or that goes inside the
network is a fill, including those of other packages. Each image draws its own region.

| kind | hides | source |
|---|---|---|
| patches | 0.25, 0.5 or 0.75 of a 14 x 14 grid | Jain et al. 2022 (arXiv 2204.08945) |
| cell | one cell of a 4 x 4 grid, in half of the images | Hesse et al. 2024 (arXiv 2407.11910) |
| few | none to a tenth of a 14 x 14 grid | after Zheng et al. 2025 (arXiv 2410.02970) |
| cutout | a square of half the height | DeVries & Taylor 2017 (arXiv 1708.04552) |
| erasing | a rectangle, in half of the images | Zhong et al. 2017 (arXiv 1708.04896) |
| objects | the shape of the object of another image | |
| cutmix | a box, under a part of another image; labels mix | Yun et al. 2019 (arXiv 1905.04899) |
| flip | nothing: mirrors half of the images | |
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lmjax import removals
from lmjax._utils.summary import brief
from lmjax.removals.masking import Masking
from lmjax.removals.registry import prototype
from lmjax.removals.removal import Painting

MASKING_KINDS = ("patches", "cell", "few", "cutout", "erasing", "objects")
"""Kinds that hide something, so that a fill takes its place."""

PLAIN_KINDS = ("cutmix", "flip")
"""Kinds without a fill."""

MIXING_KINDS = ("cutmix", "objects")
"""Kinds that take something from another image of the batch."""

# Patches (Jain et al. 2022): cells along each side, 16 x 16 pixels of an image of 224 x 224; shares
# of them, of which one is drawn and rounded to whole cells.
_GRID, _FRACTIONS = 14, (0.25, 0.5, 0.75)
# Cell (Hesse et al. 2024): cells along each side, as IDSDS removes them, and how often one is.
_CELL_GRID, _CELL_SHARE = 4, 0.5
# Few (Zheng et al. 2025): the largest share of cells, their beta.
_FEW = 0.1
# Cutout (DeVries & Taylor 2017): the side of the square as a share of the height, as for CIFAR-10.
_SIDE = 0.5
# Erasing (Zhong et al. 2017): how often; least and most of the image's area, uniform, and of height
# over width, uniform in its logarithm; attempts at sides that fit, after which nothing is erased.
_ERASED, _AREA, _ASPECT, _ATTEMPTS = 0.5, (0.02, 0.4), (0.3, 1 / 0.3), 10


class Examples(NamedTuple):
    """A batch.

    Attributes:
      images: `[N, H, W, C]` in [0, 1].
      targets: `[N, K]`, each image's shares of the classes.
      masks: `[N, H, W]` bool, what the network is shown (1 = visible), or None for everything.
      objects: `[N, H, W]` bool, True on the object, or None where not known.
    """

    images: jax.Array
    targets: jax.Array
    masks: jax.Array | None = None
    objects: jax.Array | None = None


class Augmentation(NamedTuple):
    """An augmentation by name.

    Attributes:
      kind: one of `MASKING_KINDS` and `PLAIN_KINDS`.
      fill: a removal by name, or None for plain kinds.
    """

    kind: str
    fill: str | None

    @property
    def in_network(self) -> bool:
        """Whether the fill is a masking inside the network."""
        return self.fill is not None and not removals.paints(self.fill)

    def __str__(self) -> str:
        return self.kind if self.fill is None else f"{self.kind}:{self.fill}"


def fills() -> tuple[str, ...]:
    """Returns the names of the removals that can be a fill: all that do without segments."""
    return tuple(name for name in removals.names() if not removals.needs_segments(name))


def parse(augmentations: Sequence[str]) -> tuple[Augmentation, ...]:
    """Parses augmentations by name, `"flip"` or `"patches:grey"`.

    Raises:
      ValueError: no such kind or fill, a fill too many or too few, or several maskings at once.
    """
    parsed = tuple(_parse(each) for each in augmentations)
    maskings = sorted({str(each.fill) for each in parsed if each.in_network})
    if len(maskings) > 1:
        raise ValueError(
            f"augmentations mask in the network in different ways ({', '.join(maskings)}); choose "
            "one of them"
        )
    return parsed


def _parse(name: str) -> Augmentation:
    kind, colon, fill = name.partition(":")
    if kind in PLAIN_KINDS and not colon:
        return Augmentation(kind, None)
    if kind not in MASKING_KINDS or not fill:
        raise ValueError(
            f"augmentations must be {', '.join(PLAIN_KINDS)}, or KIND:FILL with one of the kinds "
            f"{', '.join(MASKING_KINDS)}, such as patches:grey or patches:layer; got {brief(name)}"
        )
    fill = removals.canonical(fill, argument=f"the fill of augmentation {name!r}")
    if removals.needs_segments(fill):
        raise ValueError(
            f"augmentation {name!r}: {fill} takes segments, which training images do not have; "
            f"fills are {', '.join(fills())}"
        )
    if isinstance(prototype(fill), removals.Calibrated):
        raise ValueError(
            f"augmentation {name!r}: {fill} maps logits, which training does not need; take the "
            "removal that was calibrated"
        )
    if removals.paints(fill) and not isinstance(prototype(fill), Painting):
        raise ValueError(
            f"augmentation {name!r}: {fill} has no method paint(image, masks, mean), which gives "
            "the image to train on; see lmjax.removals.Painting"
        )
    return Augmentation(kind, fill)


def masking_of(augmentations: Sequence[str], own: Masking) -> Masking | None:
    """Returns the masking inside the network that augmentations ask for, or None.

    Args:
      augmentations: their names.
      own: the network's masking, which the fill `"masking"` takes.
    """
    for each in parse(augmentations):
        if each.in_network:
            masking = removals.make(str(each.fill))
            return own if masking is None else masking
    return None


def needs_objects(augmentations: Sequence[str]) -> bool:
    """Returns whether augmentations ask for object masks."""
    return any(each.kind == "objects" for each in parse(augmentations))


def augment(
    examples: Examples, augmentations: Sequence[str], mean: Sequence[float], *, key: jax.Array
) -> Examples:
    """Applies augmentations to examples, in their order.

    Args:
      examples: the batch. `masks` may be None only if no augmentation masks in the network.
      augmentations: their names, see `parse`.
      mean: C floats, the colour of grey.
      key: of everything random.
    """
    for i, (kind, fill) in enumerate(parse(augmentations)):
        shape_key, fill_key = jax.random.split(jax.random.fold_in(key, i))
        if fill is None:
            examples = {"cutmix": cutmix, "flip": flip}[kind](examples, key=shape_key)
        else:
            examples = hide(examples, hidden(kind, examples, key=shape_key), fill, mean, fill_key)
    return examples


def hide(
    examples: Examples, where: jax.Array, fill: str, mean: Sequence[float], key: jax.Array
) -> Examples:
    """Hides some positions of examples.

    Args:
      examples: the batch.
      where: `[N, H, W]` bool, True = to be hidden.
      fill: a removal by name.
      mean: C floats, the colour of grey.
      key: of noise; each image draws its own.
    """
    if not removals.paints(fill):
        if examples.masks is None:
            raise ValueError(f"examples must have masks for {fill!r}, which masks in the network")
        return examples._replace(masks=examples.masks & ~where)

    def paint(key: jax.Array, image: jax.Array, visible: jax.Array) -> jax.Array:
        return removals.make(fill, key=key).paint(image, visible[None], mean)[0]

    keys = jax.random.split(key, len(where))
    return examples._replace(images=jax.vmap(paint)(keys, examples.images, ~where))


def hidden(kind: str, examples: Examples, *, key: jax.Array) -> jax.Array:
    """Draws the region that one of `MASKING_KINDS` hides of each image.

    Returns:
      `[N, H, W]` bool, True = hidden.
    """
    if kind == "objects":
        if examples.objects is None:
            raise ValueError("examples must have objects for the kind 'objects'")
        return jnp.roll(examples.objects, 1, axis=0)
    count, height, width = examples.images.shape[:3]
    kinds = {"patches": patches, "cell": cell, "few": few, "cutout": cutout, "erasing": erasing}
    draw = kinds[kind]
    return jax.vmap(lambda key: draw((height, width), key=key))(jax.random.split(key, count))


def patches(shape: tuple[int, int], *, key: jax.Array) -> jax.Array:
    """Draws random cells of a grid, `[H, W]` bool, True = hidden (Jain et al. 2022)."""
    fraction_key, order_key = jax.random.split(key)
    which = jax.random.randint(fraction_key, (), 0, len(_FRACTIONS), jnp.int32)
    return _cells(shape, _GRID, jnp.asarray(_FRACTIONS, jnp.float32)[which], order_key)


def cell(shape: tuple[int, int], *, key: jax.Array) -> jax.Array:
    """Draws one cell of a 4 x 4 grid or nothing, `[H, W]` bool, True = hidden (Hesse et al. 2024).

    It is what `lmjax.metrics.idsds` removes, so that the network judges in its domain.
    """
    there_key, order_key = jax.random.split(key)
    there = jax.random.bernoulli(there_key, jnp.float32(_CELL_SHARE))
    return _cells(shape, _CELL_GRID, there / _CELL_GRID**2, order_key)


def few(shape: tuple[int, int], *, key: jax.Array) -> jax.Array:
    """Draws none to about a tenth of the cells of a grid, `[H, W]` bool, True = hidden.

    After Zheng et al. 2025, whose judge, `lmjax.metrics.f_fidelity`, removes a tenth or less of an
    image on average. That the share is uniform, and the grid of patches, are choices made here.
    """
    share_key, order_key = jax.random.split(key)
    share = jax.random.uniform(share_key, (), jnp.float32, 0, _FEW)
    return _cells(shape, _GRID, share, order_key)


def _cells(shape: tuple[int, int], grid: int, share: jax.Array, key: jax.Array) -> jax.Array:
    """Draws a share of the cells of a grid, rounded to whole ones, `[H, W]` bool."""
    order = jax.random.permutation(key, grid**2).reshape(grid, grid)
    cells = order < jnp.round(share * grid**2).astype(order.dtype)
    rows, columns = (jnp.arange(length) * grid // length for length in shape)
    return cells[rows][:, columns]


def cutout(shape: tuple[int, int], *, key: jax.Array) -> jax.Array:
    """Draws a square around a random pixel, `[H, W]` bool, True = hidden (DeVries & Taylor 2017).

    Part of it may lie outside the image, as in the paper's section 3.2.
    """
    row, column = jax.random.randint(key, (2,), 0, jnp.array(shape), jnp.int32)
    half = round(_SIDE * shape[0]) // 2
    return _box(shape, (row - half, column - half), (2 * half, 2 * half))


def erasing(shape: tuple[int, int], *, key: jax.Array) -> jax.Array:
    """Draws a random rectangle, `[H, W]` bool, True = hidden (Zhong et al. 2017, algorithm 1).

    Sides are drawn until they fit, places among those that fit, as torchvision's `RandomErasing`.
    """
    keys = jax.random.split(key, 4)
    areas = jax.random.uniform(keys[0], (_ATTEMPTS,), jnp.float32, *_AREA)
    low, high = jnp.log(jnp.asarray(_ASPECT))
    aspects = jnp.exp(jax.random.uniform(keys[1], (_ATTEMPTS,), jnp.float32, low, high))
    areas = areas * shape[0] * shape[1]
    sides = jnp.stack([jnp.sqrt(areas * aspects), jnp.sqrt(areas / aspects)], axis=1)
    sides = jnp.round(sides).astype(int)
    fits = (sides < jnp.array(shape)[None]).all(axis=1)
    size = sides[fits.argmax()]
    corner = jax.random.randint(
        keys[2], (2,), 0, jnp.maximum(jnp.array(shape) - size, 0) + 1, jnp.int32
    )
    there = jax.random.bernoulli(keys[3], jnp.float32(_ERASED)) & fits.any()
    return _box(shape, corner, size) & there


def cutmix(examples: Examples, *, key: jax.Array) -> Examples:
    """Pastes a box of the image before it into each image, and mixes labels by the box's area.

    Source: Yun et al. 2019, equations 1 and 2, with the share that stays uniform, as theirs. Here
    each image draws its own box. Images of a batch come in random order, so the one before is any.
    """
    count, height, width = examples.images.shape[:3]
    shape = height, width

    def draw(key: jax.Array) -> jax.Array:
        share_key, place_key = jax.random.split(key)
        comes = jax.random.uniform(share_key, dtype=jnp.float32)
        half = (jnp.array(shape, jnp.float32) * jnp.sqrt(comes)).astype(int) // 2
        centre = jax.random.randint(place_key, (2,), 0, jnp.array(shape), jnp.int32)
        return _box(shape, centre - half, 2 * half)

    where = jax.vmap(draw)(jax.random.split(key, count))

    def mix(own: jax.Array | None) -> Any:
        if own is None:
            return None
        inside = where.reshape(*where.shape, *(1,) * (own.ndim - 3))
        return jnp.where(inside, jnp.roll(own, 1, axis=0), own)

    comes = where.mean(axis=(1, 2))[:, None]
    targets = (1 - comes) * examples.targets + comes * jnp.roll(examples.targets, 1, axis=0)
    return Examples(mix(examples.images), targets, mix(examples.masks), mix(examples.objects))


def flip(examples: Examples, *, key: jax.Array) -> Examples:
    """Mirrors half of the images, left to right, with their masks."""
    mirrored = jax.random.bernoulli(key, jnp.float32(0.5), examples.targets.shape[:1])

    def mirror(own: jax.Array | None) -> Any:
        if own is None:
            return None
        return jnp.where(mirrored.reshape(-1, *(1,) * (own.ndim - 1)), own[:, :, ::-1], own)

    return Examples(
        mirror(examples.images), examples.targets, mirror(examples.masks), mirror(examples.objects)
    )


def _box(shape: tuple[int, int], corner, size) -> jax.Array:
    """`[H, W]` bool, True in the rectangle of a size from a corner on, as far as it is inside."""
    rows, columns = (
        (jnp.arange(length) >= start) & (jnp.arange(length) < start + side)
        for length, start, side in zip(shape, corner, size)
    )
    return rows[:, None] & columns[None, :]
