"""Draws what goes through the network, layer by layer: whole, under layer masking, painted black.

python docs/figures/layers.py docs/images/layers.png
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import lmjax
from lmjax.masking import Masked

BLOCKS = ("layer1.1", "layer2.1", "layer3.1", "layer4.1")
ROWS = {"the whole image": None, "layer masking": "layer", "painted black": "black"}


def activations(classifier: Any, image: np.ndarray, mask: np.ndarray | None) -> list[Masked]:
    """What comes out of the blocks; logits last."""
    inputs = Masked(classifier.normalise(jnp.asarray(image)[None]))
    if mask is not None:
        inputs = Masked(inputs.x, jnp.asarray(mask)[None])
    logits, state = classifier.module.apply(
        classifier.variables,
        inputs,
        capture_intermediates=lambda module, _: module.name in BLOCKS,
        mutable=["intermediates"],
    )
    found = state["intermediates"]
    return [*(found[block]["__call__"][0] for block in BLOCKS), Masked(logits)]


def picture(found: Masked) -> np.ndarray:
    """Mean magnitude over the channels `[h, w]`, NaN where nothing is known."""
    magnitude = np.abs(np.asarray(found.x[0])).mean(axis=-1)
    return magnitude if found.mask is None else np.where(found.mask[0], magnitude, np.nan)


def draw(path: str) -> None:
    """Writes the figure."""
    classifier = lmjax.models.load("resnet18_digits")
    scene = lmjax.data.DigitScenes("test")[0]
    image = classifier.preprocessing(scene.image)
    rows, columns = np.argwhere(scene.object_mask).mean(axis=0)
    y, x = np.indices(scene.object_mask.shape)
    mask = np.hypot(y - rows, x - (columns + 44)) > 28  # a disc beside the digit
    black = image * mask[..., None]

    given = {
        "the whole image": (image, None),
        "layer masking": (image, mask),
        "painted black": (black, None),
    }
    found = {name: activations(classifier, *each) for name, each in given.items()}
    seen = found["layer masking"]

    figure, axes = plt.subplots(3, 5, figsize=(9.5, 6.2), layout="constrained")
    checks = (np.indices(mask.shape).sum(axis=0) // 6 % 2 * 0.2 + 0.75)[..., None].repeat(
        3, axis=-1
    )
    shown = (image, np.where(mask[..., None], image, checks), black)
    for line, (name, layers), first in zip(axes, found.items(), shown):
        probability = jax.nn.softmax(layers[-1].x[0])
        line[0].imshow(first)
        line[0].set_xlabel(
            f"8: {probability[scene.label]:.0%}; {int(probability.argmax())} is predicted"
        )
        line[0].set_ylabel(
            name, color=lmjax.plots.removal_colour(ROWS[name]) if ROWS[name] else "black"
        )
        for i, ax in enumerate(line[1:]):
            whole = found["the whole image"][i]
            ax.imshow(checks, extent=(-0.5, whole.x.shape[2] - 0.5, whole.x.shape[1] - 0.5, -0.5))
            ax.imshow(picture(layers[i]), cmap="viridis", vmin=0, vmax=picture(whole).max())
            if layers is not found["the whole image"]:
                known = np.asarray(seen[i].mask[0])
                off = np.linalg.norm((layers[i].x - whole.x)[0][known])
                ax.set_xlabel(f"off by {off / np.linalg.norm(whole.x[0][known]):.0%}")
    for ax, title in zip(axes[0], ("what is given", *(f"after {block}" for block in BLOCKS))):
        ax.set_title(title, fontsize=10)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    lmjax.plots.save(figure, path)
    Image.open(path).convert("RGB").quantize(256, method=2, dither=0).save(path, optimize=True)


if __name__ == "__main__":
    draw(sys.argv[1])
