"""Colours of removals, the same in all figures, and of heatmaps."""

import colorsys
import hashlib

from matplotlib import colormaps
from matplotlib.colors import to_hex, to_rgb

SIGNED = "RdBu_r"  # blue: evidence against the class; red: evidence for it
UNSIGNED = "Reds"
# Paints have their own colours.
_REMOVALS = {
    "layer": "#e8710a",
    "masking": "#e8710a",
    "token_dropping": "#a84300",
    "no_padding": "#d63384",
    "partial": "#9a8b00",
    "black": "#000000",
    "white": "#b8b39a",
    "grey": "#808080",
    "grey_smooth": "#5b7083",
    "image_mean": "#7a4a21",
    "segment_mean": "#b08d57",
    "blur": "#1597a5",
    "rise_blur": "#0b5566",
    "gaussian_noise": "#7b4fb5",
    "uniform_noise": "#c08fdc",
    "ring": "#f2b705",
    "harmonic": "#7cb518",
    "noisy_linear": "#2f6b3c",
    "histogram": "#f29ac0",
    "biharmonic": "#00c2a0",
    "telea": "#4b1d6f",
    "navier_stokes": "#7fb3f0",
    "samples": "#8c1c2b",
    "red": "#d62728",
    "green": "#2ca02c",
    "blue": "#2352d8",
}
_EMPHASISED = ("layer", "token_dropping", "masking")
OTHERS = ("#1f3f66", "#c0563a", "#4f8f6f", "#8a6bb8", "#b59b3a", "#5aa3c9", "#7d3c50", "#6f6f6f")


def removal_colour(name: str) -> str:
    """Returns the colour of a removal, the same in all figures and all processes.

    Args:
      name: of the removal (`lmjax.removals.names()`), also with a depth, whose colour is lighter.
        Removals of other packages have colours that follow from their names.
    """
    base, _, depth = name.partition("@")
    if depth and base in ("calibrated", "samples"):  # one for each file
        return _own_colour(name)
    colour = _REMOVALS.get(base) or _own_colour(base)
    if not depth:
        return colour
    blocks = int(depth) if depth.isdecimal() else 0
    white = max(0.68 - 0.07 * blocks, 0.05)
    red, green, blue = (part * (1 - white) + white for part in to_rgb(colour))
    return to_hex((red, green, blue))


def colour_table(*, signed: bool) -> list[str]:
    """Returns the 256 colours of heatmaps, from the lowest value to the highest.

    Args:
      signed: whether values below 0 have colours of their own.
    """
    colours = colormaps[SIGNED if signed else UNSIGNED]
    return [to_hex(colours(i)) for i in range(256)]


def is_emphasised(removal: str | None) -> bool:
    """Returns whether figures put a removal first, on top and in thicker lines.

    They do so with a network's own masking, through all layers.
    """
    return removal in _EMPHASISED


def _own_colour(name: str) -> str:
    """Returns a colour, neither pale nor dark, whose hue is a hash of a name."""
    hue = int(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) / 2**32
    return to_hex(colorsys.hls_to_rgb(hue, 0.42, 0.6))
