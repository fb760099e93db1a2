"""`lmjax models`: the networks that lmjax knows by name."""

from collections.abc import Callable

from lmjax.cli.terminal import say
from lmjax.models import registry


def build() -> Callable[..., None]:
    """Returns the command."""
    return models


def models(*, tags: bool = False) -> None:
    """Prints the networks, with the engines that each supports (docs/speed.md).

    Args:
        tags: list the weight tags of each network too.
    """
    for name in registry.names():
        network, weights = registry.network(name), registry.tags(name)
        size = network.preprocessing.crop
        say(
            f"{name:<20}{network.num_parameters:>12,}{size:>6} x {size}{len(weights):>4} weights  "
            f"{', '.join(network.engines)}"
        )
        for tag in weights if tags else ():
            say(f"  {tag}")
