"""Draws one variant under every removal: what the network was shown, and what it answers.

Run it by `python docs/figures/removals.py docs/images/removals.png`.
"""

import math
import sys

import jax
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import lmjax

PHOTOGRAPH = "coffee"
PATCH = 28  # pixels, of 224


def draw(path: str) -> None:
    """Writes the figure."""
    from skimage import data

    classifier = lmjax.models.load("tf_efficientnet_lite0")
    image = np.asarray(classifier.preprocessing(getattr(data, PHOTOGRAPH)()))
    segments = lmjax.segments.grid(image, size=PATCH)
    keep = np.random.default_rng(0).random(segments.max() + 1) < 0.5
    mask = keep[segments]
    whole = jax.nn.softmax(classifier.logits(image[None])[0])
    target = int(whole.argmax())

    names = [name for name in lmjax.removals.names() if name not in ("token_dropping", "masking")]
    lines = math.ceil((len(names) + 1) / 5)
    figure, axes = plt.subplots(lines, 5, figsize=(9.5, 2.2 * lines), layout="constrained")
    rows, columns = np.indices(mask.shape) // 8
    checks = ((rows + columns) % 2 * 0.2 + 0.75)[..., None].repeat(3, axis=-1)
    panels = [("the whole image", image, whole)]
    for name in names:
        removal = lmjax.removals.make(name, key=jax.random.key(0), segments=segments)
        logits = lmjax.evaluate(lmjax.Predictor(classifier, removal), image, mask[None])
        shown = np.where(mask[..., None], image, checks)
        if lmjax.removals.paints(name):
            shown = np.asarray(removal.paint(image, mask[None], classifier.preprocessing.mean))[0]
        panels.append((name, shown, jax.nn.softmax(logits[0])))
    for ax in axes.flat:
        ax.set_axis_off()
    names = classifier.class_names
    for ax, (name, shown, probabilities) in zip(axes.flat, panels):
        ax.imshow(np.clip(shown, 0, 1))
        best = int(probabilities.argmax())
        answer = f"{names[best]} {probabilities[best]:.0%}"
        if best != target:
            answer += f"\n{names[target]} {probabilities[target]:.0%}"
        ax.set_title(f"{name}\n{answer}", fontsize=8)
    lmjax.plots.save(figure, path)
    Image.open(path).convert("RGB").quantize(256, method=2, dither=0).save(path, optimize=True)


if __name__ == "__main__":
    draw(sys.argv[1])
