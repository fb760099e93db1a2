"""What each removal costs, and what the tolerance of the harmonic fill does to logits.

    python -m benchmarks.removals cost
    python -m benchmarks.removals tolerance    # needs the extra imagenet

The removals telea and navier_stokes need the extra `inpaint`, and are left out without it.
"""

import functools
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import skimage.data
import tyro
from scipy import sparse
from scipy.sparse.linalg import spsolve

import lmjax
from benchmarks.harness import Usage, measure, ratio, show, take_turns
from benchmarks.subjects import PHOTOGRAPHS, patches, photograph, random_classifier
from lmjax.removals.multigrid import solve
from lmjax.removals.visible import TOLERANCE

NAMES = (
    *("grey", "blur", "uniform_noise", "layer", "no_padding", "partial"),
    *("ring", "harmonic", "noisy_linear", "histogram", "samples"),
    *("telea", "navier_stokes", "biharmonic"),
)
_OF_OPENCV = ("telea", "navier_stokes")
_MOST_ITERATIONS = 50


def cost(
    names: tuple[str, ...] = NAMES,
    network: str = "resnet50",
    variants: int = 16,
    rounds: int = 5,
    batch_size: int = 4,
) -> None:
    """Prints what a variant costs under each removal, beside the plain network on whole images.

    Args:
      names: of removals.
      network: of the registry, with random weights.
      variants: masks of 16-pixel patches, half of them visible, 224 x 224.
      rounds: how often each removal and the plain network take turns.
      batch_size: variants computed together.
    """
    settings = {"network": network, "variants": variants, "rounds": rounds, "batch": batch_size}
    show(_costs(names, network, variants, rounds, batch_size), **settings)


def _costs(
    names: tuple[str, ...], network: str, variants: int, rounds: int, batch_size: int
) -> Iterator[dict[str, Any]]:
    classifier, image = random_classifier(network), photograph(224)
    masks = np.asarray(patches(image, variants, 0.5).masks(slice(0, variants)))
    plain = _run(lmjax.Predictor(classifier, "black"), image, np.ones_like(masks), batch_size)
    for name in names:
        if name in _OF_OPENCV and importlib.util.find_spec("cv2") is None:
            continue
        removal = lmjax.removals.make(name, key=jax.random.key(0))
        run = _run(lmjax.Predictor(classifier, removal), image, masks, batch_size)
        times = take_turns({"plain": plain, "removal": run}, rounds)
        seconds = {each: float(np.median(times[each].cpu)) for each in times}
        yield {
            "removal": name,
            "ms a variant": 1e3 * float(np.median(times["removal"].wall)),
            "CPU ms": 1e3 * seconds["removal"],
            "plain, CPU ms": 1e3 * seconds["plain"],
            "extra, CPU ms": 1e3 * (seconds["removal"] - seconds["plain"]),
            "time / plain": str(ratio(times["removal"].wall, times["plain"].wall)),
            "CPU time / plain": str(ratio(times["removal"].cpu, times["plain"].cpu)),
            "first call, s": (times["removal"].first or Usage(0, 0)).wall * variants,
        }


def _run(
    predictor: lmjax.Predictor, image: np.ndarray, masks: np.ndarray, batch_size: int
) -> Callable[[], Usage]:
    evaluator = lmjax.Evaluator(predictor, engine="dense", batch_size=batch_size)
    return lambda: measure(functools.partial(evaluator, image, masks), per=len(masks))


def tolerance(
    network: str = "tf_efficientnet_lite0",
    variants: int = 6,
    tolerances: tuple[float, ...] = (1e-1, 1e-2, 1e-3, TOLERANCE),
) -> None:
    """Prints how far solutions of a tolerance are from the exact one, and logits with them.

    Args:
      network: of the registry, with weights that are installed.
      variants: masks of each of four photographs, a fifth to four fifths of 16-pixel patches
        hidden.
      tolerances: of the solver.
    """
    settings = {"network": network, "variants": variants * len(PHOTOGRAPHS)}
    show(_errors(network, variants, tolerances), **settings)


def _errors(network: str, variants: int, tolerances: tuple[float, ...]) -> Iterator[dict[str, Any]]:
    classifier = lmjax.models.load(network)
    apply = jax.jit(lambda images: classifier.apply(classifier.normalise(images)))
    images = [classifier.preprocessing(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    shares = np.linspace(0.2, 0.8, variants)
    pairs = [
        (i, np.asarray(patches(i, 1, s).masks(slice(0, 1)))[0]) for i in images for s in shares
    ]
    exact = np.stack([direct(*pair) for pair in pairs])
    expected = np.asarray(apply(exact))
    for each in tolerances:
        fill = jax.jit(functools.partial(_harmonic, tolerance=each))
        painted = np.stack([np.asarray(fill(*pair)) for pair in pairs])
        logits = np.asarray(apply(painted))
        yield {
            "tolerance": f"{each:g}",
            "largest error of a pixel": float(np.abs(painted - exact).max()),
            "largest change of a logit": float(np.abs(logits - expected).max()),
            "mean change": float(np.abs(logits - expected).mean()),
            "changed classes": int((logits.argmax(axis=1) != expected.argmax(axis=1)).sum()),
            "range of logits": float(np.ptp(expected)),
        }


def _harmonic(image: jax.Array, mask: jax.Array, *, tolerance: float) -> jax.Array:
    known = jnp.where(mask[..., None], image, 0)
    mean = known.sum(axis=(0, 1)) / mask.sum()
    start = jnp.moveaxis(jnp.where(mask[..., None], known, mean), -1, 0)
    filled = solve(start, ~mask, tolerance=tolerance, max_iterations=_MOST_ITERATIONS)
    return jnp.moveaxis(filled, 0, -1)


def direct(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Returns the exact harmonic fill, by a direct solution of its sparse equations."""
    number = np.full(mask.shape, -1)
    number[~mask] = np.arange((~mask).sum())
    hidden = np.argwhere(~mask)
    matrix = sparse.lil_matrix((len(hidden), len(hidden)))
    right = np.zeros((len(hidden), image.shape[-1]))
    for i, j in np.ndindex(3, 3):
        if (i, j) == (1, 1):
            continue
        weight = 1 / 6 if i == 1 or j == 1 else 1 / 12
        near = hidden + np.array([i - 1, j - 1])
        inside = ((near >= 0) & (near < mask.shape)).all(axis=1)
        me, (rows, columns) = np.flatnonzero(inside), near[inside].T
        matrix[me, me] = matrix.diagonal()[me] + weight
        seen = mask[rows, columns]
        right[me[seen]] += weight * image[rows[seen], columns[seen]]
        matrix[me[~seen], number[rows[~seen], columns[~seen]]] = -weight
    filled = image.astype(np.float64)
    filled[~mask] = spsolve(matrix.tocsc(), right)
    return filled.astype(np.float32)


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"cost": cost, "tolerance": tolerance})
