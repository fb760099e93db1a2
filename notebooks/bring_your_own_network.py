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
# A network that is not one of ours, written in Flax NNX, is trained for a few seconds and explained
# while parts of the image are painted over. Then it is written again in `lmjax.models.layers`, so
# that it can also compute with the visible part alone.

# %%
import jax
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import linen as nn
from flax import nnx
from sklearn.datasets import load_digits

import lmjax
from lmjax.masking import Masked, layers
from lmjax.models import Classifier, Preprocessing
from lmjax.models.layers import Conv, relu

digits = load_digits()
images = jax.image.resize(digits.images / 16, (len(digits.images), 32, 32), "linear")
images = np.asarray(images, np.float32)[..., None]  # [N, H, W, C] in [0, 1]
labels = digits.target
train, test = slice(1400), slice(1400, None)

plt.figure(figsize=(8, 1.2))
plt.imshow(np.hstack(images[test][:8]), cmap="gray")
plt.axis("off")
plt.show()

# %% [markdown]
# ## A network of your own
#
# Nothing in it knows about masks.


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


def loss(weights, x, y):
    logits = nnx.merge(graph, weights)(x)
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


@jax.jit
def step(weights, state, x, y):
    updates, state = optimiser.update(jax.grad(loss)(weights, x, y), state)
    return optax.apply_updates(weights, updates), state


state, generator = optimiser.init(weights), np.random.default_rng(0)
for _ in range(15):
    for batch in generator.permutation(1400).reshape(-1, 50):
        weights, state = step(weights, state, images[train][batch], labels[train][batch])

logits = nnx.merge(graph, weights)(images[test])
print(f"accuracy on {len(logits)} digits: {(logits.argmax(axis=-1) == labels[test]).mean():.1%}")

# %% [markdown]
# ## Explained while parts are painted over
#
# All that lmjax asks for is a pure function from image and masks to logits: `Replace.paint` gives
# the pictures that the network gets to see. `Partial` makes the weights arguments of the compiled
# program, not constants in it.


# %%
def answers(weights, removal, image, masks):
    return nnx.merge(graph, weights)(removal.paint(image, masks))


image, label = images[test][0], labels[test][0]
segments = lmjax.segments.grid(image, size=8)
key = jax.random.key(0)
found = {}
for name in ("black", "white", "blur"):
    predictor = jax.tree_util.Partial(answers, weights, lmjax.Replace(name))
    found[name] = lmjax.attribution.kernelshap(predictor, image, segments, key=key)
    curve = lmjax.metrics.deletion(predictor, image, found[name].heatmap, segments=segments)
    print(f"{name:<6} {found[name].num_variants} variants, deletion {curve.normalised_auc:.2f}")

# %% [markdown]
# ## The same network in masked layers
#
# A mask cannot go through a network that does not know of it. In `lmjax.models.layers` every value
# is a pair of activations and mask, `Masked`; apart from that a network is written as always. Named
# as in the NNX network, its layers take those weights as they are.


# %%
class MaskedNet(nn.Module):
    masking: lmjax.LayerMasking = lmjax.LayerMasking()

    @nn.compact
    def __call__(self, inputs: Masked) -> jax.Array:
        x = layers.mask_input(inputs)
        for name, features in (("conv1", 16), ("conv2", 32)):
            x = relu(self.conv(features, name)(x))
            x = layers.max_pool(x, window=2, stride=2)
        x = relu(self.conv(32, "conv3")(x))
        return nn.Dense(10, name="fc")(layers.global_average_pool(x))

    def conv(self, features, name):
        return Conv(features, 3, use_bias=True, fill=self.masking.padding, name=name)


classifier = Classifier(
    variables={"params": nnx.to_pure_dict(weights)},
    module=MaskedNet(),
    preprocessing=Preprocessing(resize=None, crop=None, mean=(0.0,), std=(1.0,)),
    class_names=tuple("0123456789"),
)
same = classifier.apply(images[test])
print(f"largest difference of logits, nothing hidden: {np.abs(same - logits).max():.1e}")
print(f"largest logit: {np.abs(logits).max():.1f}")

# %% [markdown]
# ## Explained without painting
#
# What lies under a mask is never read.

# %%
predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
masks = np.arange(32)[None, :, None] + np.zeros((1, 32, 32)) < 16  # the upper half
poisoned = np.where(masks[0][..., None], image, np.nan)
before = lmjax.evaluate(predictor, image, masks)
after = lmjax.evaluate(predictor, poisoned, masks)
print("equal with NaN in the lower half, bit for bit:", np.array_equal(before, after))

found["layer masking"] = lmjax.attribution.kernelshap(predictor, image, segments, key=key)
lmjax.plots.explanation(
    image,
    segments,
    [lmjax.plots.Panel(name, each.heatmap) for name, each in found.items()],
    title=f"What speaks for “{label}”? KernelSHAP, {found['black'].num_variants} variants each",
    image_title="image",
    colour_label="Shapley value of a segment",
)

# %% [markdown]
# ## What does the network answer when half of the image is missing?
#
# Accuracy on 100 test digits, each under the same 16 masks that hide a random half of the segments.
# The weights are the same in every line, and have never seen anything hidden.

# %%
keep = lmjax.masks.random_keep(16, 16, key=key, first_all_visible=False)
hidden = lmjax.Coalitions(segments, keep)
removals = {name: lmjax.Replace(name) for name in ("black", "white", "blur")}
removals["layer masking"] = lmjax.LayerMasking()
for name, removal in removals.items():
    predictor = lmjax.Predictor(classifier, removal)
    right = [
        lmjax.evaluate(predictor, image, hidden).argmax(axis=-1) == label
        for image, label in zip(images[test][:100], labels[test][:100])
    ]
    print(f"{name:<14} {np.mean(right):.1%}")
