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
# # A study from beginning to end
#
# What does a network still recognise while an image disappears piece by piece, and how much of its
# answer comes from the way the pieces are removed? Asked of 48 images here; on the command line,
# `lmjax study removal --images 500` asks the same of 500. From a clone of the repository, also on a
# hosted notebook: `%pip install .`.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display

import lmjax
from lmjax.studies import statistics

source = lmjax.data.DigitScenes("test", length=48)
out = Path(tempfile.mkdtemp()) / "removal"

figure, axes = plt.subplots(1, 6, figsize=(10, 1.9))
for axis, scene in zip(axes, source):
    axis.imshow(scene.image)
    axis.set_title(scene.label)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## Settings
#
# A study is a frozen dataclass. What is not said is as the paper has it: 16 x 16 patches, removed
# in random order, and by their share of the object, most or least of it first.

# %%
study = lmjax.studies.SegmentRemoval(
    removals=("layer", "grey", "black"), fractions=(0, 0.25, 0.5, 0.75, 1)
)
print(study)

# %% [markdown]
# ## What it will cost
#
# Two images are tried, and nothing is written.

# %%
cost = lmjax.studies.estimate(study, source)
print(f"{cost.evaluations} evaluations of {cost.images} images")

# %% [markdown]
# ## A run, and the same run again
#
# Rows are stored batch by batch in `out`. A run that was stopped, or that is wanted for more
# images, goes on with what is there.

# %%
rows = lmjax.studies.run(study, source, images=16, output=out)
print(f"{rows.num_rows} rows of 16 images")
rows = lmjax.studies.run(study, source, output=out)
print(f"{rows.num_rows} rows of 48 images, in {len(list(out.glob('rows-*/*.parquet')))} files")

# %% [markdown]
# Every answer is a row. Here is one image, with half of its patches removed at random.

# %%
for row in rows.to_pylist():
    if (row["image"], row["order"], row["fraction"]) == (3, "random", 0.5):
        told = ("removal", "label", "prediction", "probability", "correct", "unchanged")
        print({name: row[name] for name in told})

# %% [markdown]
# ## Tables and figures
#
# Means over images, with bootstrap 95% intervals. Differences are paired: the same images on both
# sides. A folder gets all of it with `lmjax.studies.write(study, rows, out)`.

# %%
tables = study.tables(rows)
for row in tables["means"]:
    interval = f"[{row['accuracy_low']:.2f}, {row['accuracy_high']:.2f}]"
    print(f"{row['order']:<14} {row['removal']:<6} accuracy {row['accuracy']:.2f} {interval}")

# %%
(figure,) = study.figures(tables).values()
display(figure)

# %% [markdown]
# Where patches go at random, the network keeps far more of its accuracy under layer masking. Where
# the digit goes first, nothing is left to recognise under any removal; where it goes last, grey
# does as well.

# %%
for row in tables["differences"]:
    interval = f"[{row['accuracy_low']:+.2f}, {row['accuracy_high']:+.2f}]"
    print(f"{row['order']:<14} {row['removal']:<6} minus layer masking "
          f"{row['accuracy']:+.2f} {interval}")  # fmt: skip

# %% [markdown]
# ## A question of your own to the rows
#
# A network that is shown nothing should have no opinion. What does it call an image of which
# nothing is left?

# %%
names = lmjax.data.DigitScenes.class_names
for group in statistics.groups(rows, ("removal", "order", "fraction")):
    if (group.key["order"], group.key["fraction"]) == ("random", 1):
        counts = np.bincount(group.columns["prediction"], minlength=len(names))
        called = {names[i]: int(counts[i]) for i in np.flatnonzero(counts)}
        sure = group.columns["probability"].mean()
        print(f"{group.key['removal']:<6} {called}, with mean probability {sure:.2f}")

# %% [markdown]
# ## The shape of the hole
#
# The other side of it: exactly the object is removed. What is still recognised then is read off
# the hole, or left around it; a margin tells which.

# %%
shape = lmjax.studies.MaskShape(removals=("layer", "grey", "black"), margins=(0, 4), tight=True)
shape_rows = lmjax.studies.run(shape, source, output=out.with_name("shape"))
for row in shape.tables(shape_rows)["accuracies"]:
    print(f"margin {row['margin']}  {row['removal']:<6} object removed {row['object']:.2f}, "
          f"the same hole elsewhere {row['swapped']:.2f}")  # fmt: skip

# %%
scene, network = source[1], lmjax.models.load("resnet18_digits")
figure, axes = plt.subplots(1, 3, figsize=(8, 2.8))
image, hole = network.preprocessing(scene.image), network.preprocessing.for_mask(scene.tight_mask)
for axis, (title, mask) in zip(
    axes,
    {
        "the image": np.ones_like(hole),
        "object removed": ~hole,
        "mask swapped": ~np.roll(hole, (64, 64), axis=(0, 1)),
    }.items(),
):
    axis.imshow(np.where(mask[..., None], image, 0))
    axis.set_title(title)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## One page with all of it
#
# `lmjax study report DIR...` on the command line: settings, tables and figures of some runs, in one
# HTML file that needs no other.

# %%
page = lmjax.studies.report([out, out.with_name("shape")], out.with_name("report.html"))
print(f"{page.name}: {page.stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# So on these scenes the network keeps more of its accuracy under layer masking while patches go at
# random, and a black hole of the digit's shape tells it the digit, which other holes seldom do.
