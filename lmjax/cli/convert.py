"""`lmjax convert`: a checkpoint as a safetensors file."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from lmjax.cli.terminal import say, say_written

if TYPE_CHECKING:
    from lmjax.models import Fit

_MOST_TAGS = 3


def build() -> Callable[..., None]:
    """Returns the command."""
    return convert


def convert(
    source: Positional[Path],
    target: Positional[Path],
    *,
    tag: str | None = None,
    ema: bool = True,
) -> None:
    """Converts a checkpoint, and prints what was recorded of its source and which networks it fits.

    Args:
        source: the .pth, .pt, .ckpt or .safetensors file.
        target: the .safetensors file to write.
        tag: the published weights that the source is, if its file name does not tell.
        ema: take a moving average of the weights where the file has one, as timm does.
    """
    from lmjax import models

    recorded = models.convert(source, target, tag=tag, ema=ema)
    say_written(target)
    for name, value in recorded.items():
        say(f"  {name}: {value}")
    if "tag" not in recorded:
        say(describe_fits(models.recognise(target), recorded["sha256"], target))


def describe_fits(fits: "Sequence[Fit]", sha256: str, weights: Path) -> str:
    """Returns lines that say which networks weights fit, how these differ, and which to take.

    Args:
        fits: the networks.
        sha256: of the weights' source.
        weights: the file.
    """
    from lmjax.models import registry
    from lmjax.models.recognition import published_as

    if not fits:
        return (
            "fits no network of lmjax (`lmjax models` lists them); timm:NAME and torchvision:NAME "
            "are networks of these libraries"
        )
    published = published_as(sha256)
    lines = [f"fits {_count(len(fits))}, with {fits[0].num_classes} classes:"]
    lines += [f"  {fit.network}{_about(fit)}" for fit in fits]
    if published is not None:
        lines.append(f"by its sha256 it is the file of {published[1]}, a {published[0]}")
    elif len(fits) > 1:
        lines.append(
            "keys and shapes do not say which: take the one that the weights were trained as; "
            "--tag records which published weights they are"
        )
    name = published[0] if published else fits[0].network
    if published or len(fits) == 1:
        usual = registry.network(name).num_classes == fits[0].num_classes
        classes = "" if usual else f", num_classes={fits[0].num_classes}"
        lines.append(f'load it: lmjax.models.load("{name}", weights="{weights}"{classes})')
    return "\n".join(lines)


def _count(number: int) -> str:
    return "one network" if number == 1 else f"{number} networks"


def _written(value: Any) -> str:
    """Returns a setting's value, its numbers in three digits."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_written, value))})"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _about(fit: "Fit") -> str:
    """Returns what tells a network from the others that fit, and the tags of its weights."""
    settings = ", ".join(f"{name}={_written(value)}" for name, value in fit.settings.items())
    more = len(fit.tags) - _MOST_TAGS
    tags = f"tags {', '.join(fit.tags[:_MOST_TAGS])}" if fit.tags else ""
    tags += f" and {more} more" if more > 0 else ""
    about = "; ".join(filter(None, (settings, tags)))
    return f": {about}" if about else ""
