"""Graphs of PyTorch modules, run by JAX; nothing here needs torch."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from lmjax.models.pytorch.ops import find


@dataclasses.dataclass(frozen=True)
class Ref:
    """The value of that name, in the place of an argument."""

    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One operation of a graph.

    Attributes:
      name: the name of its value.
      operation: the operation's name in the table.
      args, kwargs: its arguments, with a `Ref` in the place of each computed value.
      path: the dotted path of the module that calls it, empty for the outermost module.
    """

    name: str
    operation: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    path: str

    def run(self, values: Mapping[str, Any]) -> Any:
        """Returns the operation's value."""
        function = find(self.operation, self.path)
        args, kwargs = substituted((self.args, self.kwargs), values)
        with jax.named_scope(self.path) if self.path else contextlib.nullcontext():
            return function(*args, **kwargs)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TorchGraph:
    """A PyTorch module as a pure function: `graph(params, images)`.

    Graphs are equal only to themselves and hashable, so that they may be static arguments of `jit`
    and static fields of pytrees.

    Attributes:
      module: the name of the module's class.
      shape: `(C, H, W)` of the images that it takes.
      params: the parameters' names in the graph -> their keys in the state dict.
      images: the images' name in the graph.
      steps: the operations, in order.
      output: what the module returns, with a `Ref` in the place of each array.
      batched: whether the graph takes any number of images; else it takes one, and is mapped over
        them.
    """

    module: str
    shape: tuple[int, ...]
    params: Mapping[str, str]
    images: str
    steps: tuple[Step, ...]
    output: Any
    batched: bool

    def __call__(self, params: Mapping[str, jax.Array], images: jax.Array) -> Any:
        """Returns what the module returns in evaluation mode.

        Args:
          params: state dict's keys -> float32 arrays, as `import_module` gives them.
          images: `[N, C, H, W]`, float32, with the module's own normalisation already done.

        Raises:
          ValueError: images of another shape than imported for, or parameters that are missing.
        """
        self._check(params, images)
        images = jax.numpy.asarray(images)
        if self.batched:
            return self._run(params, images)
        return jax.vmap(lambda image: _without_batch(self._run(params, image[None])))(images)

    def _check(self, params: Mapping[str, Any], images: Any) -> None:
        if np.ndim(images) != 4 or tuple(np.shape(images)[1:]) != self.shape:
            raise ValueError(
                f"images have shape {tuple(np.shape(images))}; this {self.module} was imported for "
                f"[N, {', '.join(map(str, self.shape))}]: give it such images, channels first, or "
                "import the module again with an example of the other size"
            )
        missing = sorted(set(self.params.values()) - set(params))
        if missing:
            raise ValueError(
                f"params lack {', '.join(missing[:5])}{' and others' * (len(missing) > 5)}; must "
                "have every key that import_module returned"
            )

    def _run(self, params: Mapping[str, Any], images: jax.Array) -> Any:
        values: dict[str, Any] = {name: params[key] for name, key in self.params.items()}
        values[self.images] = images
        for step in self.steps:
            values[step.name] = step.run(values)
        return substituted(self.output, values)

    def __repr__(self) -> str:
        size = ", ".join(map(str, self.shape))
        return f"TorchGraph({self.module}, [N, {size}], {len(self.steps)} operations)"


def substituted(tree: Any, values: Mapping[str, Any]) -> Any:
    """Returns a structure of tuples, lists and dicts with values in the place of references."""
    return mapped(lambda leaf: values[leaf.name] if isinstance(leaf, Ref) else leaf, tree)


def mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Returns a structure of tuples, lists, slices and dicts with a function of each leaf."""
    if isinstance(tree, dict):
        return {key: mapped(function, value) for key, value in tree.items()}
    if isinstance(tree, tuple | list):
        parts = [mapped(function, value) for value in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    return function(tree)


def _without_batch(output: Any) -> Any:
    """Returns the output for one image without its axis of images."""
    return jax.tree.map(lambda value: value[0], output)
