"""Checks that calibrated removals go with the networks that they were fitted to."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax.models.checkpoints import weights_sha256
from lmjax.removals import registry

_SIZE = 224  # of images for networks whose preprocessing does not say


def check_calibrations(names: Iterable[str], networks: Mapping[str, Any]) -> None:
    """Raises ValueError for a calibration of another network.

    Args:
      names: of removals.
      networks: classifiers by name.
    """
    with_file = {name: registry.prototype(name) for name in names if registry.takes_file(name)}
    fitted = {name: getattr(made, "fitted", None) for name, made in with_file.items()}
    wanted = {name: each.weights_sha256 for name, each in fitted.items() if each is not None}
    for network, classifier in networks.items() if wanted else ():
        weights = weights_of(classifier)
        for name, sha256 in wanted.items():
            if weights != sha256:
                raise ValueError(
                    f"removal {name} was calibrated for another network than {network}; "
                    "`lmjax data calibration --model` makes one for it"
                )


def weights_of(classifier: Any) -> str:
    """Returns the sha256 over the weights of a classifier.

    One without `variables` has that of its arrays, where it is a pytree; one without arrays, such
    as a black box, that of its answers to two fixed images, rounded to four digits.
    """
    if hasattr(classifier, "variables"):
        return weights_sha256(classifier.variables)
    leaves = jax.tree.leaves(classifier)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array | np.ndarray)]
    return weights_sha256(arrays or _answers(classifier))


def _answers(classifier: Any) -> np.ndarray | None:
    """Returns a few numbers that depend on all logits of two images of noise; None without any."""
    size = getattr(classifier.preprocessing, "crop", None) or _SIZE
    rng = np.random.default_rng(0)
    try:
        images = rng.random((2, size, size, len(classifier.preprocessing.mean)), np.float32)
        logits = np.asarray(classifier.apply(classifier.normalise(jnp.asarray(images))), np.float64)
    except Exception:  # of the user's code: of images of another size, say
        return None
    norm = np.linalg.norm(logits)
    # Few numbers: one that rounding errors of another machine push over a boundary is rare.
    directions = rng.standard_normal((4, logits.size)) @ logits.ravel() / max(norm, 1e-30)
    return np.array([float(f"{x:.4g}") for x in (*directions, norm)])
