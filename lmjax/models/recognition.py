"""Which networks of the registry a state dict fits: by its keys and shapes, without any weights."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from lmjax.models import checkpoints, registry
from lmjax.models.registry import NetworkInfo

_NOT_COUNTED = ("running_mean", "running_var", "num_batches_tracked")
_OF_MODULES = ("parent", "name")


class Fit(NamedTuple):
    """A network whose keys and shapes are those of a state dict.

    Attributes:
      network: its name, for `lmjax.models.load`.
      num_classes: of the state dict.
      settings: by name, those of the network and of its preprocessing in which it differs from the
        other networks that fit. Their answers differ, although the state dict fits them all without
        an error.
      tags: of its published weights.
    """

    network: str
    num_classes: int
    settings: dict[str, Any]
    tags: tuple[str, ...]


def recognise(weights: str | os.PathLike) -> tuple[Fit, ...]:
    """Finds the networks of the registry that a file of weights fits.

    Example:
      >>> [fit.network for fit in lmjax.models.recognise("efficientnet-lite0-57934424.pth")]
      ['tf_efficientnet_lite0']

    Parameters are counted first, so that few networks are traced; no weights are made. Networks of
    images with other than 3 channels, and transformers for images of another size than their
    default, are not found.

    Args:
      weights: a file that `lmjax.models.load` reads.

    Returns:
      The networks, in the order of the registry; none where no network fits.

    Raises:
      ValueError: no checkpoint, or a damaged one.
      FileNotFoundError: no such file.
    """
    found = [*fits(checkpoints.read_state_dict(weights))]
    settings = _differences([name for name, _ in found])
    return tuple(
        Fit(name, num_classes, settings[name], registry.tags(name)) for name, num_classes in found
    )


def published_as(sha256: str) -> tuple[str, str] | None:
    """Returns the network of a published file of this hash, and the file's tag or package."""
    for name in registry.names():
        installed = registry.network(name).installed
        if installed is not None and installed.sha256 == sha256:
            return name, f"the package {installed.package}"
    for tag in registry.tags():
        source = registry.find_source(tag)
        if source is not None and source.sha256 and sha256.startswith(source.sha256):
            return source.network, source.tag
    return None


def fits(state_dict: Mapping[str, np.ndarray]) -> Iterator[tuple[str, int]]:
    """Yields the name of each network that a state dict fits, and its number of classes.

    Args:
      state_dict: torch's keys -> arrays, as in a published file or as here.
    """
    for name in registry.names():
        network = registry.network(name)
        if network.parameters is None:
            continue
        renamed = checkpoints.rename(state_dict, network.renamed)
        for num_classes in _possible_classes(renamed, network, network.parameters):
            target = checkpoints.abstract_variables(network.build(num_classes=num_classes))
            with contextlib.suppress(checkpoints.StateDictMismatch):
                checkpoints.fitting(renamed, checkpoints.shapes(target), source=name)
                yield name, num_classes


def _possible_classes(
    state_dict: Mapping[str, np.ndarray], network: NetworkInfo, parameters: int
) -> list[int]:
    """Returns the numbers of classes with which a network has as many parameters."""
    surplus = _count_parameters(state_dict) - parameters
    sizes = {value.shape for key, value in state_dict.items() if key.endswith("weight")}
    return sorted(
        {
            size[0]
            for size in sizes
            if size and size[0] > 0
            if surplus == (size[0] - network.num_classes) * (math.prod(size[1:]) + 1)
        }
    )


def _count_parameters(state_dict: Mapping[str, np.ndarray]) -> int:
    return sum(value.size for key, value in state_dict.items() if not key.endswith(_NOT_COUNTED))


def _differences(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Returns, for each network, the settings that not all of them share."""
    of_each = {name: _settings(registry.network(name)) for name in names}
    first = next(iter(of_each.values()), {})
    shared = {
        key
        for key in first
        if all(repr(settings.get(key)) == repr(first[key]) for settings in of_each.values())
    }
    return {
        name: {key: value for key, value in settings.items() if key not in shared}
        for name, settings in of_each.items()
    }


def _settings(network: NetworkInfo) -> dict[str, Any]:
    """Returns the settings of a network's module and of its preprocessing by name."""
    return {
        field.name: getattr(each, field.name)
        for each in (network.build(), network.preprocessing)
        for field in dataclasses.fields(each)
        if field.name not in _OF_MODULES
    }
