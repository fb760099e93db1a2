"""`lmjax convert`: a checkpoint as a safetensors file."""

from collections.abc import Callable
from pathlib import Path

from tyro.conf import Positional


def build() -> Callable[..., None]:
    """Returns the command."""
    return convert


def convert(source: Positional[Path], target: Positional[Path], *, tag: str | None = None) -> None:
    """Converts a checkpoint, and prints what was recorded of its source.

    Args:
        source: the .pth, .pt, .ckpt or .safetensors file.
        target: the .safetensors file to write.
        tag: the published weights that the source is, if its file name does not tell.
    """
    from lmjax import models

    recorded = models.convert(source, target, tag=tag)
    print(f"wrote {target}")
    for name, value in recorded.items():
        print(f"  {name}: {value}")
