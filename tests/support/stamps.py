"""A few stamps of the tests' own, under names that the table knows."""

import numpy as np
from PIL import Image

NAMES = ("animals/mammals/cats/tiger", "food/fruit/lemon", "plants/mushrooms/cep")


def disc(height, width, colour):
    """An ellipse with a soft edge, 4 pixels within a transparent border, RGBA."""
    y, x = np.mgrid[:height, :width]
    r = np.hypot((2 * y + 1) / height - 1, (2 * x + 1) / width - 1)
    pixels = np.zeros((height + 8, width + 8, 4), np.uint8)
    pixels[4:-4, 4:-4, :3] = colour
    pixels[4:-4, 4:-4, 3] = np.clip((1 - r) * 900, 0, 255)
    return pixels


def write(folder):
    """Writes the stamps; returns the folder."""
    shapes = ((40, 80), (60, 60), (90, 30))
    for name, shape, colour in zip(NAMES, shapes, ((200, 90, 0), (240, 220, 20), (120, 70, 30))):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(disc(*shape, colour)).save(path)
    return folder


def write_photographs(folder):
    """Writes two photographs, of different sizes; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    for name, shape in (("a.png", (90, 120, 3)), ("b.png", (150, 100, 3))):
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(folder / name)
    return folder
