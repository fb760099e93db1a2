"""Randomised weights: whether a map depends on what the network has learnt."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.extend import core as jex
from jax.typing import ArrayLike

from lmjax._utils.checks import check_choice, check_function, check_whole
from lmjax._utils.jaxprs import inner_jaxprs
from lmjax._utils.keys import check_key
from lmjax._utils.summary import brief
from lmjax.metrics.agreement import spearman
from lmjax.metrics.ranked_regions import map_of

ORDERS = ("top_down", "bottom_up", "independent")

Explain = Callable[[Any], ArrayLike]
Draw = Callable[[jax.Array, jax.Array], jax.Array]
Similarity = Callable[[np.ndarray, np.ndarray], float]

_SIZE = 224  # of images for networks that take any


@dataclasses.dataclass(frozen=True, eq=False)
class Randomisation:
    """How similar maps stay to the network's own while layers are randomised.

    Attributes:
      layers: their names, in the order in which they were randomised.
      similarity: float64 `[L]`, of the map after each of them to the map before all.
    """

    layers: tuple[str, ...]
    similarity: np.ndarray

    @property
    def mean(self) -> float:
        """The mean over layers."""
        return float(self.similarity.mean())


def mprt(
    explain: Explain,
    classifier: Any,
    *,
    key: jax.Array,
    order: str = "top_down",
    layer_of: Callable[[str], str | None] | None = None,
    draw: Draw | None = None,
    similarity: Similarity = spearman,
) -> Randomisation:
    """Compares a map with those of the same network with random weights, layer by layer.

    The model parameter randomisation test: a map that does not depend on the weights does not
    explain the network; lower is better.

    Cost: an explanation for each layer, and one.

    Example:
      >>> def explain(classifier):
      ...     predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
      ...     return lmjax.attribution.gradient(predictor, image, target=1).heatmap
      >>> found = lmjax.metrics.mprt(explain, classifier, key=key)
      >>> len(found.layers) == len(found.similarity)
      True

    Args:
      explain: classifier -> heatmap. Fix its target and key, or their change counts too.
      classifier: of `lmjax.models`, also of a function or of torch. Its `batch_stats` stay.
      key: random key. Each array's draw depends on it and on the array alone, not on the order.
      order: "top_down" randomises from the last layer to the first, and all stay random;
        "bottom_up" from the first to the last; "independent" each layer alone.
      layer_of: name of an array, such as "layer1.0.conv1.kernel" -> name of the layer that it is
        randomised with; None leaves it as it is. By default, in lmjax's networks a layer is a
        block, the first part of the name; in others a module, all but the last part.
      draw: (key, array) -> random array of the same shape. By default normal numbers with the mean
        and the standard deviation of the array's own entries.
      similarity: of two maps, such as `lmjax.metrics.ssim`.

    Returns:
      A `Randomisation`, of L layers for L + 1 calls of `explain`.

    Raises:
      ValueError: options out of range, a classifier without weights by name, maps with NaN or of
        different shapes, and all that `explain` and `similarity` raise.

    References:
      Adebayo et al. 2018, "Sanity checks for saliency maps" (arXiv 1810.03292), section 3.1:
      cascading and independent randomisation. There weights are drawn as before training.
    """
    check_choice("order", order, ORDERS)
    check_function("explain", explain, "(classifier) -> heatmap")
    check_function("similarity", similarity, "(map, map) -> number")
    network = _Weights(classifier, check_key(key), draw)
    layers = network.layers(layer_of)
    own = map_of(explain, classifier)
    names = list(layers) if order == "bottom_up" else list(layers)[::-1]
    similarities, randomised = [], []
    for name in names:
        randomised = list(layers[name]) + ([] if order == "independent" else randomised)
        other = map_of(explain, network.randomised(randomised))
        similarities.append(float(similarity(own, other)))
    return Randomisation(tuple(names), np.array(similarities))


def efficient_mprt(
    explain: Explain,
    classifier: Any,
    *,
    key: jax.Array,
    num_bins: int = 100,
    draw: Draw | None = None,
) -> float:
    """Computes by how much a map becomes more complex when all weights are random.

    The rise of the entropy of the map's histogram, as a share of the entropy for the network as it
    is; higher is better. It needs two maps where `mprt` needs one for each layer, and no similarity
    of maps.

    Cost: two explanations.

    Example:
      >>> explain = lambda classifier: lmjax.attribution.gradient(
      ...     lmjax.Predictor(classifier, "grey"), image, target=1
      ... ).heatmap
      >>> np.isfinite(lmjax.metrics.efficient_mprt(explain, classifier, key=key)).item()
      True

    Args:
      explain, classifier, key, draw: as in `mprt`.
      num_bins: of the histogram between the smallest and the largest score of each map, 2 or more.

    Returns:
      The rise, -1 or more: above 0 where the random network's map is more complex; NaN where the
      network's own map is constant.

    Raises:
      ValueError: as `mprt`.

    References:
      Hedstroem et al. 2024, "Sanity checks revisited" (arXiv 2401.06465), the efficient MPRT; with
      100 bins as in Quantus.
    """
    num_bins = check_whole("num_bins", num_bins, least=2)
    check_function("explain", explain, "(classifier) -> heatmap")
    network = _Weights(classifier, check_key(key), draw)
    own = _histogram_entropy(map_of(explain, classifier), num_bins)
    other = _histogram_entropy(map_of(explain, network.randomised(network.used)), num_bins)
    return (other - own) / own if own > 0 else float("nan")


class _Weights:
    """The arrays of a classifier, and random ones in their place.

    Attributes:
      used: numbers of the arrays, in the order in which the network uses them.
    """

    def __init__(self, classifier: Any, key: jax.Array, draw: Draw | None):
        variables = getattr(classifier, "variables", None)
        if not dataclasses.is_dataclass(classifier) or not isinstance(variables, dict):
            raise ValueError(
                "classifier must be one of lmjax.models, whose weights have names; got "
                f"{type(classifier).__name__}"
            )
        paths, self._structure = jax.tree_util.tree_flatten_with_path(variables.get("params", {}))
        if not paths:
            raise ValueError("classifier must have weights; its variables['params'] are empty")
        if draw is not None:
            check_function("draw", draw, "(key, array) -> array")
        self._classifier: Any = classifier
        self._key, self._draw = key, draw or _like
        self._names = [tuple(str(part.key) for part in path) for path, _ in paths]
        self._arrays = [array for _, array in paths]
        self.used = _in_order_of_use(classifier)

    def layers(self, layer_of: Callable[[str], str | None] | None) -> dict[str, list[int]]:
        """Returns the arrays of each layer, in the order in which the network uses them."""
        if layer_of is not None:
            check_function("layer_of", layer_of, "name -> layer")
        found: dict[str, list[int]] = {}
        for i in self.used:
            path = self._names[i]
            layer = _layer(path) if layer_of is None else layer_of(".".join(path))
            if layer is not None:
                found.setdefault(layer, []).append(i)
        if not found:
            raise ValueError("layer_of gives None for all arrays, so there is nothing to randomise")
        return found

    def randomised(self, chosen: list[int]) -> Any:
        """Returns the classifier with some arrays drawn at random."""
        arrays = list(self._arrays)
        for i in chosen:
            drawn = self._draw(jax.random.fold_in(self._key, i), arrays[i])
            shape = np.shape(arrays[i])
            if np.shape(drawn) != shape:
                name = ".".join(self._names[i])
                raise ValueError(f"draw must keep the shape {shape} of {name}, got {brief(drawn)}")
            arrays[i] = drawn
        params = jax.tree.unflatten(self._structure, arrays)
        variables = {**self._classifier.variables, "params": params}
        return dataclasses.replace(self._classifier, variables=variables)


def _layer(path: tuple[str, ...]) -> str:
    """Returns a block of a network in layers, or a module of one whose names are flat."""
    first, *rest = path
    return first if rest else first.rpartition(".")[0] or first


def _like(key: jax.Array, array: jax.Array) -> jax.Array:
    """Draws normal numbers with an array's mean and standard deviation."""
    return array.mean() + array.std() * jax.random.normal(key, array.shape, array.dtype)


def _in_order_of_use(classifier: Any) -> list[int]:
    """Returns the numbers of the arrays in the order in which the plain network reads them."""
    preprocessing = classifier.preprocessing
    size = preprocessing.crop or _SIZE
    images = jax.ShapeDtypeStruct((2, size, size, len(preprocessing.mean)), np.float32)

    def apply(params: Any, images: jax.Array) -> jax.Array:
        variables = {**classifier.variables, "params": params}
        return dataclasses.replace(classifier, variables=variables).apply(images)

    params = classifier.variables["params"]
    jaxpr = jax.make_jaxpr(apply)(params, images).jaxpr
    numbers = {v: i for i, v in enumerate(jaxpr.invars[: len(jax.tree.leaves(params))])}
    return list(dict.fromkeys(_uses(jaxpr, numbers)))


def _uses(jaxpr: jex.Jaxpr, numbers: dict[Any, int]) -> Iterator[int]:
    """Yields the numbers of the variables that equations read, those of inner functions too."""
    for equation in jaxpr.eqns:
        given = [None if isinstance(v, jex.Literal) else numbers.get(v) for v in equation.invars]
        inner = _function_of(equation)
        if inner is None:
            yield from (i for i in given if i is not None)
        else:
            pairs = zip(inner.invars, given, strict=True)
            yield from _uses(inner, {v: i for v, i in pairs if i is not None})


def _function_of(equation: jex.JaxprEqn) -> jex.Jaxpr | None:
    """Returns the function that an equation calls with its own operands, if it does."""
    count = len(equation.invars)
    return next((each for each in inner_jaxprs(equation) if len(each.invars) == count), None)


def _histogram_entropy(heatmap: np.ndarray, num_bins: int) -> float:
    """Returns the entropy of a map's histogram, in nats."""
    counts, _ = np.histogram(heatmap, bins=num_bins)
    shares = counts[counts > 0] / counts.sum()
    return float(abs(shares @ np.log(shares)))
