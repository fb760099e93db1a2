# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: what does the network see when part of the image is missing?
#
# A digit on a photograph, the network that comes with lmjax, and three ways to take a part away.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import lmjax

classifier = lmjax.models.load("resnet18_digits")
scene = lmjax.data.DigitScenes("test")[0]
image = classifier.preprocessing(scene.image)

plt.figure(figsize=(3, 3))
plt.imshow(image)
plt.title(f"a {scene.label} on {scene.photograph}")
plt.axis("off")
plt.show()

# %% [markdown]
# ## Everything, the object alone, everything but the object
#
# A mask is 1 where the image stays visible. Under layer masking nothing is painted over: the
# network computes with the visible pixels alone.

# %%
masks = np.stack([np.ones_like(scene.object_mask), scene.object_mask, ~scene.object_mask])
removals = {
    "layer masking": lmjax.LayerMasking(),
    "grey": lmjax.Replace("grey"),
    "black": lmjax.Replace("black"),
}
print(f"probability of {scene.label}:     everything   object   the rest")
for name, removal in removals.items():
    logits = lmjax.evaluate(lmjax.Predictor(classifier, removal), image, masks)
    everything, alone, rest = np.asarray(jax.nn.softmax(logits))[:, scene.label]
    print(f"{name:<22} {everything:>12.3f} {alone:>8.3f} {rest:>10.3f}")

# %% [markdown]
# ## Nothing under the mask is read
#
# Put NaN there: no output bit changes.

# %%
predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
half = masks[1][None]
poisoned = np.where(scene.object_mask[..., None], image, np.nan)
before = lmjax.evaluate(predictor, image, half)
after = lmjax.evaluate(predictor, poisoned, half)
print("equal, bit for bit:", np.array_equal(before, after))

# %% [markdown]
# ## LIME, 1000 variants
#
# The same coalitions of segments under each removal; the green line is the object.

# %%
segments = lmjax.segments.slic(image, n_segments=50)
panels = []
for name, removal in removals.items():
    attribution = lmjax.attribution.lime(
        lmjax.Predictor(classifier, removal), image, segments, key=jax.random.key(0)
    )
    found = lmjax.metrics.relevance_rank_accuracy(attribution.heatmap, scene.object_mask)
    title = f"{name}\nR² {attribution.r2:.2f}, object found {found:.0%}"
    panels.append(lmjax.plots.Panel(title, attribution.heatmap))

lmjax.plots.explanation(
    image,
    segments,
    panels,
    title=f"What speaks for “{attribution.target}”?",
    image_title="image",
    colour_label="effect of a segment on the probability",
    object_mask=scene.object_mask,
)
