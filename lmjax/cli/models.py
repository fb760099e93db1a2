"""`lmjax models`: the networks that lmjax knows by name."""

from collections.abc import Callable

from lmjax.cli.terminal import say
from lmjax.models import registry

_LINE = "{:<22}{:>12}  {:>9}  {:>7}  {}"


def build() -> Callable[..., None]:
    """Returns the command."""
    return models


def models(*, tags: bool = False) -> None:
    """Prints the networks, with the engines that each supports (help(lmjax.Evaluator)).

    Args:
        tags: list the weight tags of each network too.
    """
    say(_LINE.format("network", "parameters", "pixels", "weights", "engines"))
    for name in registry.names():
        network, weights = registry.network(name), registry.tags(name)
        size = network.preprocessing.crop
        pixels, engines = f"{size} x {size}", ", ".join(network.engines)
        say(_LINE.format(name, f"{network.num_parameters:,}", pixels, len(weights), engines))
        for tag in weights if tags else ():
            say(f"  {tag}")
