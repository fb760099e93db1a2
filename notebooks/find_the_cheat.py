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
# # Find the cheat
#
# A network that is right for the wrong reason looks fine until the reason is gone. This one was
# trained on digit scenes where a small tag lies beside the digit, and in 95 of 100 scenes the tag
# has the colour of the digit's class. Do explanations show that it goes by the tag? And on how many
# scenes, under which removal?
#
# `SCENES=300 python notebooks/find_the_cheat.py` asks it of 300 scenes rather than 16. From a
# clone of the repository, also on a hosted notebook: `%pip install .`.

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import lmjax

number = int(os.environ.get("SCENES", 16))
network = lmjax.models.load("resnet18_digits", weights="cheat")
as_trained = lmjax.data.DigitScenes("test", spurious=0.95, cue="colour", reverse=False)
against = lmjax.data.DigitScenes("test", spurious=0.95, cue="colour")
without = lmjax.data.DigitScenes("test")

figure, axes = plt.subplots(2, 7, figsize=(10, 3.3))
for row, source in zip(axes, (as_trained, against)):
    for axis, scene in zip(row, source):
        axis.imshow(scene.image)
        axis.set_title(f"{scene.label}, tag {scene.cue.points_at}", size="small")
        axis.axis("off")
plt.show()

# %% [markdown]
# Above, the tags point at the digit's class, as in training. Below, at the class after it. Nothing
# else differs. Why a tag, and not the photograph (`spurious=0.95` alone)? A tag is small and its
# place is known to the pixel, so that an explanation can be checked; a photograph is everywhere but
# on the digit.
#
# ## Fine, until the tags lie
#
# Digits that it has never seen, on photographs of which it has never seen a quarter:

# %%
classify = jax.jit(lambda network, images: network.apply(network.normalise(images)).argmax(axis=-1))
for name, source in {"as trained": as_trained, "no tags": without, "reversed": against}.items():
    scenes = [source[i] for i in range(300)]
    images = np.stack([network.preprocessing(scene.image) for scene in scenes])
    answers = np.concatenate([classify(network, images[i : i + 50]) for i in range(0, 300, 50)])
    accuracy = np.mean(answers == [scene.label for scene in scenes])
    print(f"{name:<11} accuracy {accuracy:.2f}")

# %% [markdown]
# ## Where does it look?
#
# A scene on which it follows the tag: its answer is the class that the tag points at, and another
# one without the tag. That is known here because every scene exists with and without; in earnest,
# there is only the picture and what can be hidden of it.
#
# Occlusion: windows of 32 pixels every 16, so that each tag is whole under one of them. Red: the
# answer gets less likely when this is hidden.

# %%
removals = {
    "layer masking": lmjax.LayerMasking(),
    "grey": lmjax.Replace("grey"),
    "black": lmjax.Replace("black"),
    "blur": lmjax.Replace("blur"),
}
cheated = {"as trained": [], "reversed": []}
for name, reverse in {"as trained": False, "reversed": True}.items():
    tagged = lmjax.data.DigitScenes("test", spurious=1, cue="colour", reverse=reverse)
    looked_at = 0
    while len(cheated[name]) < number:
        scene, plain = tagged[looked_at], without[looked_at]
        pair = np.stack([network.preprocessing(each.image) for each in (scene, plain)])
        answer, alone = np.asarray(classify(network, pair))
        if answer == scene.cue.points_at != alone:
            cheated[name].append(scene)
        looked_at += 1
    print(f"{name:<11} {number} of the first {looked_at} scenes follow the tag")

# %%
maps = {}
for title, removal in removals.items():
    predictor = lmjax.Predictor(network, removal)
    for scene in (*cheated["as trained"], *cheated["reversed"]):
        image = network.preprocessing(scene.image)
        found = lmjax.attribution.occlusion(predictor, image, size=32, stride=16)
        maps[scene.id, title] = found.heatmap

shown = [*cheated["as trained"][:2], *cheated["reversed"][:3]]
figure, axes = plt.subplots(len(shown), 5, figsize=(9, 1.9 * len(shown)))
for row, scene in zip(axes, shown):
    row[0].imshow(scene.image)
    row[0].set_title(f"{scene.label}, tag {scene.cue.points_at}")
    for axis, title in zip(row[1:], removals):
        heatmap = maps[scene.id, title]
        limit = np.abs(heatmap).max()
        axis.imshow(scene.image.mean(axis=-1), cmap="gray", alpha=0.4)
        axis.imshow(heatmap, cmap="RdBu_r", vmin=-limit, vmax=limit, alpha=0.7)
        axis.contour(scene.cue.mask, levels=[0.5], colors="black", linewidths=1.2)
        axis.set_title(title)
    for axis in row:
        axis.axis("off")
figure.tight_layout()
plt.show()

# %% [markdown]
# ## On how many scenes?
#
# A map exposes the cheat if its highest pixels lie on the tag (or within 8 pixels of it, half the
# tag's side; the pointing game). The same for the digit, and for pixels drawn at random: chance.

# %%
scores = {}
for name, scenes in cheated.items():
    nowhere = np.zeros(scenes[0].cue.mask.shape)
    chance = [lmjax.metrics.pointing_game(nowhere, s.cue.mask, tolerance=8) for s in scenes]
    print(f"{name}: {len(scenes)} scenes, chance {np.mean(chance):.2f}")
    for title in removals:
        found = [
            [
                lmjax.metrics.pointing_game(maps[scene.id, title], mask, tolerance=8)
                for mask in (scene.cue.mask, scene.object_mask)
            ]
            for scene in scenes
        ]
        mean = lmjax.metrics.bootstrap_mean(found, key=jax.random.key(0))
        (tag, digit), (low, _), (high, _) = mean.mean, mean.low, mean.high
        print(f"  {title:<13} on the tag {tag:.2f} [{low:.2f}, {high:.2f}]"
              f"   on the digit {digit:.2f}")  # fmt: skip
        scores[name, title] = np.array(found)[:, 0]

# %% [markdown]
# The same scenes for all removals, so differences are paired:

# %%
for (name, title), values in scores.items():
    if title != "layer masking":
        ours = np.subtract(scores[name, "layer masking"], values)
        gain = lmjax.metrics.bootstrap_mean(ours, key=jax.random.key(0))
        print(f"{name:<11} layer masking minus {title:<13} "
              f"{gain.mean:+.2f} [{gain.low:+.2f}, {gain.high:+.2f}]")  # fmt: skip

# %% [markdown]
# Every removal exposes this cheat: maps are highest on the tag far more often than by chance, and
# seldom on the digit. Layer masking does it less often here than painting. One window is little of
# the image, so paint does little harm, and the maps of layer masking spread a little wider around
# the tag. A network that goes by a tag alone is an easy case; what removals do where much of an
# image is hidden at once is in [the results](../docs/results/cheat.md).
