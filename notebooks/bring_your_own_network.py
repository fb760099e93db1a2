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
# # Bring your own network
#
# Three networks that know nothing of masks, in Flax NNX, in Equinox and from timm, go through
# LIME, deletion, a study and training with masks. None of them is changed. From a clone of the
# repository, also on a hosted notebook: `%pip install . equinox timm scikit-learn`.

# %%
import tempfile
from typing import NamedTuple

import equinox as eqx
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
import timm
from flax import nnx
from IPython.display import display
from sklearn.datasets import load_digits

import lmjax
from lmjax.training import TrainingConfig, train

digits = load_digits()
images = jax.image.resize(digits.images / 16, (len(digits.images), 32, 32), "linear")
images = np.asarray(images, np.float32)[..., None]  # [N, H, W, C] in [0, 1]
labels = digits.target
names = tuple("0123456789")

plt.figure(figsize=(8, 1.2))
plt.imshow(np.hstack(images[1400:1408]), cmap="gray")
plt.axis("off")
plt.show()

# %% [markdown]
# ## Flax NNX
#
# A network and its training, as anybody writes them.


# %%
class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv1 = nnx.Conv(1, 16, (3, 3), padding=1, rngs=rngs)
        self.conv2 = nnx.Conv(16, 32, (3, 3), padding=1, rngs=rngs)
        self.conv3 = nnx.Conv(32, 32, (3, 3), padding=1, rngs=rngs)
        self.fc = nnx.Linear(32, 10, rngs=rngs)

    def __call__(self, x):
        x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
        x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = nnx.relu(self.conv3(x))
        return self.fc(x.mean(axis=(1, 2)))


graph, weights = nnx.split(Net(nnx.Rngs(0)))
optimiser = optax.adam(3e-3)


def apply(weights, x):
    return nnx.merge(graph, weights)(x)


@jax.jit
def step(weights, state, x, y):
    def loss(weights):
        logits = apply(weights, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, state = optimiser.update(jax.grad(loss)(weights), state)
    return optax.apply_updates(weights, updates), state


state, generator = optimiser.init(weights), np.random.default_rng(0)
for _ in range(15):
    for batch in generator.permutation(1400).reshape(-1, 50):
        weights, state = step(weights, state, images[batch], labels[batch])

right = apply(weights, images[1400:]).argmax(axis=-1) == labels[1400:]
print(f"accuracy on digits not trained on: {right.mean():.1%}")

# %% [markdown]
# It becomes a classifier in one line. `mean` and `std` say how the network wants its images:
# here as they are, from 0 to 1.

# %%
options = {"mean": (0.0,), "std": (1.0,), "class_names": names}
classifiers = {"NNX": lmjax.models.from_function(apply, weights, image_size=32, **options)}
print(classifiers["NNX"])

# %% [markdown]
# ## Equinox
#
# An Equinox model takes one image, channels first.


# %%
class Small(eqx.Module):
    layers: list
    head: eqx.nn.Linear

    def __init__(self, key):
        first, second, third = jax.random.split(key, 3)
        self.layers = [
            eqx.nn.Conv2d(1, 16, 3, 2, padding=1, key=first),
            eqx.nn.GroupNorm(4, 16),
            jax.nn.relu,
            eqx.nn.Conv2d(16, 32, 3, 2, padding=1, key=second),
            jax.nn.relu,
        ]
        self.head = eqx.nn.Linear(32, 10, key=third)

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(axis=(1, 2)))


def over_images(model, x):
    return jax.vmap(model)(x)


@eqx.filter_jit
def equinox_step(model, state, x, y):
    def loss(model):
        logits = over_images(model, x.transpose(0, 3, 1, 2))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    updates, state = optimiser.update(eqx.filter_grad(loss)(model), state)
    return eqx.apply_updates(model, updates), state


model = Small(jax.random.key(0))
state = optimiser.init(eqx.filter(model, eqx.is_array))
for _ in range(15):
    for batch in generator.permutation(1400).reshape(-1, 50):
        model, state = equinox_step(model, state, images[batch], labels[batch])

classifiers["Equinox"] = lmjax.models.from_function(
    over_images, model, layout="NCHW", image_size=32, **options
)
print(classifiers["Equinox"])

# %% [markdown]
# ## timm
#
# A small network of timm with random weights, so that nothing is downloaded. One with published
# weights is `lmjax.models.load("timm:resnest14d")`.

# %%
module = timm.create_model("test_byobnet", num_classes=10, in_chans=1).eval()
classifiers["timm"] = lmjax.models.from_torch(module, [1, 1, 32, 32], **options)
print(classifiers["timm"])

# %% [markdown]
# ## Training with masks
#
# `lmjax.training` trains such classifiers too: here the network of timm from random weights, and
# the others a little further, with random patches hidden by layer masking itself. Batch norms keep
# their statistics.


# %%
class Example(NamedTuple):
    image: np.ndarray
    label: int


class Digits:
    """The digits as a source of lmjax: uint8 images with labels."""

    class_names = names
    version = "sklearn digits at 32 x 32"

    def __init__(self, part):
        self.images = (255 * images[part]).round().astype(np.uint8)
        self.labels = labels[part]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return Example(self.images[i], int(self.labels[i]))


untrained = classifiers["NNX"]
folder = tempfile.mkdtemp()
for name, classifier in classifiers.items():
    config = TrainingConfig(
        epochs=6 if name == "timm" else 1,
        batch_size=50,
        images_per_epoch=1400,
        optimizer="adamw",
        learning_rate=0.003,
        augmentations=("patches:layer",),
        small_share=0.0,
    )
    out = f"{folder}/{name}"
    path = train(classifier, Digits(slice(1400)), config=config, output=out, progress=False)
    classifiers[name] = classifier.with_weights(path)

print("accuracy on digits not trained on:")
for name, classifier in classifiers.items():
    logits = classifier.logits(images[1400:])
    print(f"{name:<8} {np.mean(logits.argmax(-1) == labels[1400:]):.1%}")

# %% [markdown]
# ## What lies under a mask is never read

# %%
image, label = images[1400], labels[1400]
masks = np.arange(32)[None, :, None] + np.zeros((1, 32, 32)) < 16  # the upper half
poisoned = np.where(masks[0][..., None], image, np.nan)
for name, classifier in classifiers.items():
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    before, after = (lmjax.evaluate(predictor, x, masks) for x in (image, poisoned))
    print(
        f"{name:<8} equal with NaN in the lower half, bit for bit:", np.array_equal(before, after)
    )

# %% [markdown]
# ## LIME and deletion

# %%
segments = lmjax.segments.grid(image, size=8)
key = jax.random.key(0)
panels = []
for name, classifier in classifiers.items():
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    found = lmjax.attribution.lime(predictor, image, segments, key=key)
    curve = lmjax.metrics.deletion(predictor, image, found.heatmap, segments=segments)
    panels.append(lmjax.plots.Panel(f"{name}, deletion {curve.normalised_auc:.2f}", found.heatmap))

lmjax.plots.explanation(
    image,
    segments,
    panels,
    title=f"What speaks for “{label}”? LIME under layer masking",
    image_title="image",
    colour_label="weight of a segment",
)

# %% [markdown]
# ## A study
#
# How often do the networks keep their answer when random segments go? The first one before training
# with masks is there as well.

# %%
study = lmjax.studies.SegmentRemoval(
    removals=("layer", "black", "white"), orders=("random",), fractions=(0.25, 0.5), grid_size=8
)
rows = lmjax.studies.run(
    study,
    Digits(slice(1400, 1410)),
    models={"NNX before": untrained, **classifiers},
    output=f"{folder}/study",
    progress=False,
)
figure = next(iter(study.figures(study.tables(rows)).values()))
display(figure)

# %% [markdown]
# ## Accuracy when half of the image is missing
#
# On 30 digits, each under the same 16 masks that hide a random half of the segments.

# %%
keep = lmjax.masks.random_keep(16, 16, key=key, first_all_visible=False)
hidden = lmjax.Coalitions(segments, keep)
for name, classifier in {"NNX before": untrained, **classifiers}.items():
    accuracy = {}
    for removal in ("layer", "black", "white"):
        predictor = lmjax.Predictor(classifier, removal)
        right = [
            lmjax.evaluate(predictor, image, hidden).argmax(axis=-1) == label
            for image, label in zip(images[1400:1430], labels[1400:1430])
        ]
        accuracy[removal] = f"{np.mean(right):.1%}"
    print(f"{name:<12}", accuracy)

# %% [markdown]
# So networks of three libraries can be asked what they see when a part is missing, without a
# change, and those that have learnt the digits keep more of their accuracy under layer masking
# than in black or white.
