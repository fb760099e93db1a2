"""What the answers of a network depend on, for the records of runs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lmjax._utils.code import fingerprint, is_own
from lmjax._utils.summary import brief
from lmjax._utils.text import without_addresses
from lmjax.models.checkpoints import weights_sha256

_SIZE = 224  # of images for networks whose preprocessing does not say


def identify(classifier: Any) -> dict[str, str]:
    """Returns what the logits of a classifier depend on, other software and the device apart."""
    module, function = (getattr(classifier, name, None) for name in ("module", "function"))
    if module is not None:
        architecture = architecture_of(module)
    elif function is not None:  # a black box
        name = f"{getattr(function, '__module__', '')}.{brief(function)}"
        architecture = _with_code(f"{type(classifier).__qualname__}({name})", function)
    else:
        architecture = _with_code(type(classifier).__qualname__, type(classifier))
    return {
        "architecture": architecture,
        "weights_sha256": weights_of(classifier),
        "preprocessing": str(classifier.preprocessing),
        "dtype": np.dtype(getattr(module, "dtype", np.float32)).name,
    }


def architecture_of(module: Any) -> str:
    """Describes a Flax module: its settings, and a fingerprint of its code if it is the user's."""
    return _with_code(repr(module), type(module))


def _with_code(about: str, code: Any) -> str:
    about = " ".join(without_addresses(about).split())
    return f"{about} code {fingerprint(code)}" if is_own(code) else about


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
