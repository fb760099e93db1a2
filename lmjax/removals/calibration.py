"""Calibrated: a removal whose logits go through an affine map, fitted on held images."""

import dataclasses
import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lmjax._utils import array_file
from lmjax._utils.checks import check_number, check_numbers, check_whole
from lmjax._utils.summary import brief
from lmjax.removals.registry import OWN, canonical, make, needs_key, needs_segments, takes_file
from lmjax.removals.removal import Removal, check_removal, declared

_MAX_ITERATIONS = 1000
_GRADIENT = 1e-6  # at which the fit ends, of the largest component
_CLOSE = 1e-4  # at which the loss is near its minimum, where a fit ends otherwise
KIND = "calibration"


class Fitted(NamedTuple):
    """What a calibration was fitted on.

    Attributes:
      removal: name of the removal.
      seed: of the removal's key, where it needs one.
      weights_sha256: of the network (`lmjax.models.checkpoints.weights_sha256`).
      source: `version` of the images' source.
      images, variants: how many of its images, and how many variants of each.
      hashes: of the images, so that none of them is judged.
    """

    removal: str
    seed: int
    weights_sha256: str
    source: str
    images: int
    variants: int
    hashes: tuple[str, ...] = ()


@jax.tree_util.register_pytree_node_class
@dataclasses.dataclass(frozen=True, eq=False)
class Calibrated(Removal):
    """Corrects the logits of another removal by an affine map; `calibrated` fits it.

    Where nothing is hidden, logits are left as they are: the class to keep is that of the whole
    image. It is where the other removal is, takes the masks that it takes, and runs in its engines.
    A pytree: the map's arrays are leaves.

    Attributes:
      removal: the other removal.
      matrix: `[K, K]`; corrected logits are `matrix @ logits + bias`.
      bias: `[K]`.
      fitted: what it was fitted on, where a file holds it.
    """

    removal: Any
    matrix: jax.Array
    bias: jax.Array
    fitted: Fitted | None = None

    def logits(self, classifier: Any, image: jax.Array, masks: jax.Array) -> jax.Array:
        """Returns corrected logits `[N, K]`; arguments as in those of the other removal."""
        return self._corrected(self.removal.logits(classifier, image, masks), masks)

    def logits_on_visible(
        self, classifier: Any, image: jax.Array, masks: jax.Array, layout: Any
    ) -> jax.Array:
        """Returns the same logits, computed on visible positions only."""
        logits = self.removal.logits_on_visible(classifier, image, masks, layout)
        return self._corrected(logits, masks)

    @property
    def where(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where the other removal withholds features."""
        return declared(self.removal, "where")

    @property
    def soft_masks(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the other removal takes soft masks."""
        return declared(self.removal, "soft_masks")

    @property
    def sparse(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Whether the other removal has `logits_on_visible`."""
        return declared(self.removal, "sparse")

    @property
    def reads_hidden(self) -> bool:
        """Whether the other removal reads hidden pixels."""
        return declared(self.removal, "reads_hidden")

    def _corrected(self, logits: jax.Array, masks: jax.Array) -> jax.Array:
        if logits.shape[-1] != len(self.bias):
            raise ValueError(
                f"logits must be of {len(self.bias)} classes, as those of the fit; got "
                f"{logits.shape[-1]}"
            )
        mapped = jnp.matmul(logits, self.matrix.T, precision="highest") + self.bias[None]
        whole = (jnp.asarray(masks) == 1).all(axis=(1, 2))
        return jnp.where(whole[:, None], logits, mapped)

    def save(self, path: str | os.PathLike) -> None:
        """Writes the map for the removal `"calibrated@PATH"`.

        Args:
          path: ends in `.npz`; a file of a calibration is replaced, and no other.

        Raises:
          ValueError: a calibration without `fitted`, another suffix, or a file that holds something
            else.
          OSError: the file cannot be written.
        """
        if self.fitted is None:
            raise ValueError(
                "fitted must say what the map was fitted on, got None; "
                "lmjax.studies.fit_calibration and `lmjax data calibration` note it"
            )
        arrays = {"matrix": self.matrix, "bias": self.bias}
        array_file.write(path, KIND, self.fitted._asdict(), arrays)

    def __repr__(self) -> str:
        return f"Calibrated({brief(self.removal)}, {len(self.bias)} classes)"

    def tree_flatten(self) -> tuple:
        # A removal of plain settings is one opaque leaf to JAX: it belongs to the static part.
        static = jax.tree_util.all_leaves([self.removal])
        leaves = None if static else self.removal, self.matrix, self.bias
        return leaves, (self.removal if static else None, self.fitted)

    @classmethod
    def tree_unflatten(cls, static: tuple, leaves: tuple) -> "Calibrated":
        calibrated = object.__new__(cls)  # no checks: leaves may be tracers or placeholders
        removal, matrix, bias = leaves
        object.__setattr__(calibrated, "removal", removal if static[0] is None else static[0])
        object.__setattr__(calibrated, "matrix", matrix)
        object.__setattr__(calibrated, "bias", bias)
        object.__setattr__(calibrated, "fitted", static[1])
        return calibrated


def uncalibrated(removal: Any) -> Any:
    """Returns the removal that decides what a network is given: without its calibrations."""
    while isinstance(removal, Calibrated):
        removal = removal.removal
    return removal


def check_inner(name: str) -> str:
    """Returns the name of a removal that can be calibrated by name, as records spell it.

    Raises:
      ValueError: the network's own masking, and those that need segments or a file.
    """
    name = canonical(name)
    if name == OWN:
        raise ValueError(f"removal must not be {OWN!r}, each network's own; name that, as in layer")
    if needs_segments(name) or takes_file(name):
        raise ValueError(
            f"removal must need neither segments nor a file to be calibrated by name; got {name}"
        )
    return name


def read_calibrated(path: str | os.PathLike) -> Calibrated:
    """Reads a calibration that `Calibrated.save` has written.

    Raises:
      ValueError: another file.
      OSError: the file cannot be read.
    """
    header, arrays = array_file.read(path, KIND)
    try:
        hashes = tuple(map(str, header.get("hashes", ())))  # files before 0.3 have none
        fitted = Fitted(**{n: header[n] for n in Fitted._fields if n != "hashes"}, hashes=hashes)
        matrix, bias = arrays["matrix"], arrays["bias"]
        if bias.ndim != 1 or matrix.shape != 2 * bias.shape:
            raise ValueError(f"matrix of shape {matrix.shape}, bias of shape {bias.shape}")
        if not (np.isfinite(matrix).all() and np.isfinite(bias).all()):
            raise ValueError("NaN or infinity in the map")
        check_whole("seed", fitted.seed, least=0)
    except (KeyError, TypeError, ValueError) as error:
        raise array_file.damaged(path, KIND, error) from error
    removal = make_seeded(fitted.removal, fitted.seed)
    return Calibrated(removal, jnp.asarray(matrix), jnp.asarray(bias), fitted)


def make_seeded(name: str, seed: int) -> Any:
    """Makes a removal that can be calibrated by name, with a key where it needs one."""
    name = check_inner(name)
    return make(name, key=jax.random.key(seed) if needs_key(name) else None)


def calibrated(
    removal: Any, logits: np.ndarray, classes: np.ndarray, *, ridge: float = 1e-3
) -> Calibrated:
    """Fits an affine map of a removal's logits, so that masked images keep their class.

    The fit minimises the cross-entropy between the softmax of the mapped logits and the classes of
    the whole images, by L-BFGS. It follows the abstract and published summaries of MCal: matrix
    scaling of the frozen network's logits. That one map serves all masks, so that masks of several
    sizes belong in the fit, and the ridge are this function's definition.

    `lmjax.evaluation.calibrate` evaluates a predictor on images and masks and calls this.

    Args:
      removal: the removal that gave the logits, or the name of one.
      logits: `[N, K]` of masked variants, of images that are not those to be judged.
      classes: `[N]` ints, the class that the network predicts for the whole image of each.
      ridge: weight of half the squared distance of the map from the identity, added to the mean
        cross-entropy. It makes the minimum unique, and finite where the classes can be separated.

    Raises:
      ValueError: something that is not a removal, arrays that do not match or are not finite, a
        ridge that is not above 0, or logits so large that the minimum is not found.

    References:
      Sridhar, Xue & Wong 2026, "Missingness Bias Calibration in Feature Attribution Explanations"
      (arXiv 2603.04831).
    """
    if isinstance(removal, str) and removal == OWN:
        raise ValueError(f"removal must not be {OWN!r}, each network's own; name that, as in layer")
    removal = check_removal(make(removal) if isinstance(removal, str) else removal)
    logits = check_numbers("logits", logits).astype(np.float32)
    classes = np.asarray(classes)
    if logits.ndim != 2 or classes.shape != logits.shape[:1] or len(logits) == 0:
        raise ValueError(
            "logits must be [N, K] and classes [N], of at least one variant; got shapes "
            f"{logits.shape} and {classes.shape}"
        )
    if not np.isfinite(logits).all():
        raise ValueError("logits holds NaN or infinity; fit on variants with finite answers")
    if classes.dtype.kind not in "iu" or classes.min() < 0 or classes.max() >= logits.shape[1]:
        raise ValueError(
            f"classes must hold ints from 0 to {logits.shape[1] - 1}, got {classes.dtype} from "
            f"{classes.min()} to {classes.max()}; take whole_logits.argmax(axis=1)"
        )
    ridge = check_number("ridge", ridge, above=0)
    matrix, bias, slope, steps = _fit(jnp.asarray(logits), jnp.asarray(classes), ridge)
    if not slope <= _CLOSE:
        raise ValueError(
            f"no calibration of logits was found: after {steps} steps the slope of the loss is "
            f"{float(slope):.1g} and should be at most {_CLOSE:g}; take a ridge above {ridge:g}. "
            f"Logits as large as {float(np.abs(logits).max()):.1g} may be too large for float32"
        )
    return Calibrated(removal, matrix, bias)


@jax.jit
def _fit(logits: jax.Array, classes: jax.Array, ridge: float) -> tuple[jax.Array, ...]:
    """Returns matrix, bias, the largest slope of the loss before the last step, and all steps."""
    num_classes = logits.shape[1]

    def loss(change):  # from the identity
        matrix, bias = change
        mapped = logits + jnp.matmul(logits, matrix.T, precision="highest") + bias[None]
        entropy = optax.softmax_cross_entropy_with_integer_labels(mapped, classes).mean()
        return entropy + ridge / 2 * (jnp.sum(matrix**2) + jnp.sum(bias**2))

    optimizer, gradients = optax.lbfgs(), optax.value_and_grad_from_state(loss)

    def step(state: Any) -> Any:
        change, memory, _, count = state
        value, gradient = gradients(change, state=memory)
        updates, memory = optimizer.update(
            gradient, memory, change, value=value, grad=gradient, value_fn=loss
        )
        change = optax.apply_updates(change, updates)
        slope = jnp.max(jnp.array([jnp.abs(each).max() for each in jax.tree.leaves(gradient)]))
        return change, memory, slope, count + 1

    def going_on(state):
        return (state[2] > _GRADIENT) & (state[3] < _MAX_ITERATIONS)

    start = jnp.zeros((num_classes, num_classes)), jnp.zeros(num_classes)
    change: Any
    change, _, slope, steps = jax.lax.while_loop(
        going_on, step, (start, optimizer.init(start), jnp.inf, 0)
    )
    return jnp.eye(num_classes) + change[0], change[1], slope, steps
