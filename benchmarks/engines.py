"""What a masked variant costs, by kind of mask, engine and network.

    python -m benchmarks.engines masks       # resnet50: engines, torchvision, the published recipe
    python -m benchmarks.engines networks    # every family: plain, masked, error of the port
    python -m benchmarks.engines families    # every family: one batch, against PyTorch

Needs torch, torchvision and timm (the extra `test`).
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import jax
import numpy as np
import torch
import tyro
from tyro.conf import Positional

import lmjax
from benchmarks import torch_layer_masking
from benchmarks.harness import Times, ratio, show, take_turns
from benchmarks.subjects import (
    Engine,
    patches,
    photograph,
    random_classifier,
    superpixels,
    to_torch,
    torch_original,
)
from lmjax.masks.families import MaskFamily, Masks, Windows
from lmjax.models import Classifier, registry

RECIPE = "PyTorch, layer masking as published"
TORCHVISION = "torchvision, unmasked, channels last"
TORCHVISION_NCHW = "torchvision, unmasked, NCHW"
ENGINES = get_args(Engine)
_FEW = 16  # variants a round, for contenders whose time does not depend on the masks
_FEWER = 8  # and for the slowest; PyTorch's batches are as large


def blobs(image: np.ndarray, count: int, share: float) -> MaskFamily:
    """Draws masks that show a disc at a random place, as large as `share` of the image."""
    height, width = image.shape[:2]
    rng = np.random.default_rng(0)
    radius = np.sqrt(share * height * width / np.pi)
    least = min(radius, height / 2)
    centres = rng.uniform(least, height - least, (count, 2))
    rows, columns = np.ogrid[:height, :width]
    return Masks(np.array([(rows - r) ** 2 + (columns - c) ** 2 <= radius**2 for r, c in centres]))


def full(image: np.ndarray, count: int, share: float) -> MaskFamily:
    """Makes masks that hide nothing."""
    return Masks(np.ones((count, *image.shape[:2]), bool))


def sliding_occlusion(image: np.ndarray, count: int, share: float) -> MaskFamily:
    """Makes consecutive masks of a sweep, from its middle."""
    whole = sweep(image)
    start = max((len(whole) - count) // 2, 0)
    return Windows(image.shape[:2], whole.corners[start : start + count], whole.size)


def sweep(image: np.ndarray) -> Windows:
    """Makes all masks of a 16-pixel hole that slides over the image by 8 pixels."""
    places = [np.arange(0, n - 8, 8) for n in image.shape[:2]]
    corners = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 2)
    return Windows(image.shape[:2], corners, (16, 16))


KINDS: dict[str, tuple[Callable, float]] = {
    "full": (full, 1.0),
    **{f"patches, {share:.0%}": (patches, share) for share in (0.5, 0.25, 0.1, 0.02)},
    **{f"superpixels, {share:.0%}": (superpixels, share) for share in (0.5, 0.25, 0.1)},
    **{f"blob, {share:.0%}": (blobs, share) for share in (0.5, 0.25, 0.1, 0.02)},
    "sliding occlusion": (sliding_occlusion, 1.0),
}


class Contender(NamedTuple):
    """A function that computes some variants and returns their logits."""

    run: Callable[[], np.ndarray]
    variants: int


class Network(NamedTuple):
    """A classifier and its original in PyTorch, in both of torch's memory formats."""

    name: str
    classifier: Classifier
    nchw: torch.nn.Module
    nhwc: torch.nn.Module

    @classmethod
    def make(cls, name: str) -> "Network":
        """Builds all three with the same random weights."""
        classifier = random_classifier(name)
        nhwc = torch_original(name, classifier).to(memory_format=torch.channels_last)
        return cls(name, classifier, torch_original(name, classifier), nhwc)


def torch_contenders(
    network: Network, image: np.ndarray, masks: np.ndarray
) -> dict[str, Contender]:
    """Returns PyTorch's contenders, whose time does not depend on the masks `[N, H, W]`."""
    nchw = to_torch(np.where(masks[..., None], np.asarray(network.classifier.normalise(image)), 0))
    nhwc, torch_masks = nchw.contiguous(memory_format=torch.channels_last), torch.from_numpy(masks)

    @torch.inference_mode()
    def unmasked(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
        return torch.cat([model(batch) for batch in images.split(_FEWER)]).numpy()

    def recipe() -> np.ndarray:
        images, visible = nchw[:_FEWER], torch_masks[:_FEWER]
        return torch_layer_masking.resnet(network.nchw, images, visible).numpy()

    runs = {
        TORCHVISION: Contender(functools.partial(unmasked, network.nhwc, nhwc), len(masks)),
        TORCHVISION_NCHW: Contender(functools.partial(unmasked, network.nchw, nchw), len(masks)),
    }
    if registry.network(network.name).family == "resnet":
        runs[RECIPE] = Contender(recipe, min(_FEWER, len(masks)))
    return runs


def contenders(network: Network, image: np.ndarray, masks: MaskFamily) -> dict[str, Contender]:
    """Returns all contenders: dense ones on the first variants of `masks`, engines on all."""
    few = np.array(masks.masks(slice(_FEW)))

    def evaluate(removal: Any, masks: Any, engine: str) -> Contender:
        predictor = lmjax.Predictor(network.classifier, removal)
        evaluator = lmjax.Evaluator(predictor, engine=engine, progress=False)
        return Contender(functools.partial(evaluator, image, masks), len(masks))

    layer = lmjax.LayerMasking()
    return {
        **torch_contenders(network, image, few),
        "lmjax, unmasked": evaluate(lmjax.Replace("grey"), few, "dense"),
        "dense": evaluate(layer, few, "dense"),
        **{engine: evaluate(layer, masks, engine) for engine in ENGINES[1:]},
    }


def measure_kind(
    network: Network, image: np.ndarray, kind: str, *, variants: int, rounds: int
) -> Iterator[dict[str, Any]]:
    """Yields a row for each contender under one kind of mask."""
    family, share = KINDS[kind]
    masks = family(image, variants, share)
    runs = contenders(network, image, masks)
    jax.clear_caches()  # so that the first call of every kind compiles
    times = take_turns({name: each.run for name, each in runs.items()}, rounds)
    each = {name: times[name].wall / run.variants for name, run in runs.items()}
    expected = runs[RECIPE if RECIPE in runs else "dense"].run()
    for name, run in runs.items():
        yield {
            "masks": kind,
            "contender": name,
            "ms a variant": 1e3 * float(np.median(each[name])),
            "against torchvision": ratio(each[TORCHVISION], each[name]),
            "against the recipe": ratio(each[RECIPE], each[name]) if RECIPE in runs else None,
            "against dense": ratio(each["dense"], each[name]),
            "first call, s": times[name].first.wall,
            "largest error": _error(run.run(), expected) if name in ENGINES else None,
        }


def _error(logits: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference from the expected logits over the largest of these."""
    return float(np.abs(logits[: len(expected)] - expected).max() / np.abs(expected).max())


def masks(
    kinds: Positional[tuple[str, ...]] = (),
    *,
    model: str = "resnet50",
    variants: int = 64,
    rounds: int = 5,
    size: int = 224,
) -> None:
    """Measures a variant under every kind of mask, by every engine and by PyTorch.

    Args:
      kinds: only kinds of masks whose name holds one of these, such as blob.
      model: a convolutional network of torchvision or timm; the published recipe takes ResNets.
      variants: of each kind of mask, a round.
      rounds: of measurement, after one that compiles.
      size: side of the photograph, in pixels.
    """
    network, image = Network.make(model), photograph(size)
    chosen = [kind for kind in KINDS if not kinds or any(each in kind for each in kinds)]
    rows = (
        row
        for kind in chosen
        for row in measure_kind(network, image, kind, variants=variants, rounds=rounds)
    )
    show(rows, network=model, size=size, variants=variants, rounds=rounds)


def port_error(name: str, classifier: Classifier, size: int) -> float:
    """Returns how far logits are from the original's, on one random image, nothing masked."""
    image = np.random.default_rng(0).random((1, size, size, 3), np.float32)
    images = np.asarray(classifier.normalise(image))
    with torch.inference_mode():
        expected = torch_original(name, classifier)(to_torch(images)).numpy()
    return _error(np.asarray(classifier.apply(images)), expected)


def time_network(
    classifier: Classifier, *, size: int, variants: int, visible: float, rounds: int, engine: str
) -> dict[str, Times]:
    """Measures a network plain, on variants painted grey, and under its own masking."""
    image = photograph(size)
    family = patches(image, variants, visible)

    def evaluate(predictor: lmjax.Predictor, engine: str) -> Callable:
        evaluator = lmjax.Evaluator(predictor, engine=engine, progress=False)
        return functools.partial(evaluator, image, family)

    plain = lmjax.Predictor(classifier, lmjax.Replace("grey"))
    runs = {
        "plain": evaluate(plain, "dense"),
        "masked": evaluate(lmjax.Predictor(classifier), engine),
    }
    return take_turns(runs, rounds)


def smallest_of_each_family() -> tuple[str, ...]:
    """Returns the smallest network of each family, and the bundled one."""
    smallest = {}
    for network in sorted(map(registry.network, registry.names()), key=lambda n: -n.parameters):
        smallest[network.family, network.bundled] = network.name
    return tuple(name for name in registry.names() if name in smallest.values())


def networks(
    names: Positional[tuple[str, ...]] = (),
    *,
    all: bool = False,
    size: int = 224,
    variants: int = 16,
    visible: float = 0.5,
    rounds: int = 5,
    engine: Engine = "dense",
) -> None:
    """Measures networks plain and masked, and how far they are from their originals.

    Args:
      names: of networks; by default the smallest of each family, and the bundled one.
      all: every network of the registry.
      size: side of the photograph, in pixels.
      variants: evaluated in each round.
      visible: share of 16-pixel patches that stay visible.
      rounds: of measurement; 0 compares with the originals alone.
      engine: of the masked network.
    """
    options = {"size": size, "variants": variants, "visible": visible, "engine": engine}
    chosen = names or (registry.names() if all else smallest_of_each_family())

    def row(name: str) -> dict[str, Any]:
        classifier, network = random_classifier(name), registry.network(name)
        cells: dict[str, Any] = {"network": name, "parameters": network.parameters}
        bundled = network.bundled is not None
        cells["largest error"] = None if bundled else port_error(name, classifier, size)
        if rounds:
            times = time_network(classifier, rounds=rounds, **options)
            for kind, each in times.items():
                cells[f"{kind}, ms"] = 1e3 * float(np.median(each.wall)) / variants
            cells["masked / plain"] = ratio(times["masked"].wall, times["plain"].wall)
        return cells

    show(map(row, chosen), **options, rounds=rounds)


def families(
    names: Positional[tuple[str, ...]] = (),
    *,
    size: int = 224,
    batch_size: int = 4,
    visible: float = 0.5,
    rounds: int = 15,
) -> None:
    """Measures a batch through networks and through PyTorch's, in the better memory format.

    Ratios above 1 say that lmjax is faster; the last row has their geometric means.

    Args:
      names: of networks; by default the smallest of each family.
      size: side of the photographs, in pixels.
      batch_size: of the batch.
      visible: share of 16-pixel patches that stay visible for the masked network.
      rounds: of measurement, after one that compiles.
    """
    image = photograph(size)
    given = np.array(patches(image, batch_size, visible).masks())
    ratios: dict[str, list[float]] = {}

    def row(name: str) -> dict[str, Any]:
        network = Network.make(name)
        times = take_turns(one_batch(network, image, given), rounds)
        cells: dict[str, Any] = {"network": name}
        for kind in times:
            cells[f"{kind}, ms an image"] = 1e3 * float(np.median(times[kind].wall)) / batch_size
        for kind in ("plain", "masked"):
            for clock in ("wall", "cpu"):
                torch_times = (getattr(times[each], clock) for each in ("NCHW", "NHWC"))
                found = ratio(np.minimum(*torch_times), getattr(times[kind], clock))
                column = f"PyTorch / {kind}" + (", CPU time" if clock == "cpu" else "")
                cells[column] = found
                ratios.setdefault(column, []).append(found.median)
        return cells

    def rows() -> Iterator[dict[str, Any]]:
        published = [n for n in smallest_of_each_family() if registry.network(n).bundled is None]
        for first in map(row, names or published):
            yield first
        means = {column: float(np.exp(np.mean(np.log(each)))) for column, each in ratios.items()}
        yield {**dict.fromkeys(first), "network": "geometric mean", **means}

    show(rows(), size=size, batch_size=batch_size, visible=visible, rounds=rounds)


def one_batch(
    network: Network, image: np.ndarray, masks: np.ndarray
) -> dict[str, Callable[[], np.ndarray]]:
    """Returns functions that take one batch of a photograph through a network, and PyTorch's.

    PyTorch's are given the batch normalised; `logits` does that itself.
    """
    classifier = network.classifier
    images = np.repeat(image[None], len(masks), axis=0)
    nchw = to_torch(np.asarray(classifier.normalise(images)))
    nhwc = nchw.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def of_torch(model: torch.nn.Module, images: torch.Tensor) -> np.ndarray:
        return model(images).numpy()

    return {
        "plain": lambda: np.asarray(classifier.logits(images)),
        "masked": lambda: np.asarray(classifier.logits(images, masks)),
        "NCHW": lambda: of_torch(network.nchw, nchw),
        "NHWC": lambda: of_torch(network.nhwc, nhwc),
    }


if __name__ == "__main__":
    app = tyro.extras.SubcommandApp()
    app.command(masks)
    app.command(networks)
    app.command(families)
    app.cli()
