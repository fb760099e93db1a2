"""Augmentations: what they hide, what takes its place, that they are pure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import removals
from lmjax.masks import segments
from lmjax.removals import Fill, LayerMasking, Painting
from lmjax.removals.registry import REGISTRY
from lmjax.training import TrainingConfig, augmentation
from lmjax.training.augmentation import Examples

SIZE, COUNT = 28, 64
MEAN = (0.5, 0.4, 0.3)


@pytest.fixture(scope="module")
def examples():
    """Images of one colour each, so that it tells which image a pixel comes from."""
    colours = (jnp.arange(COUNT) + 1) / (COUNT + 1)
    images = jnp.broadcast_to(colours[:, None, None, None], (COUNT, SIZE, SIZE, 3))
    objects = jax.random.bernoulli(jax.random.key(1), 0.3, (COUNT, SIZE, SIZE))
    return Examples(images, jnp.eye(COUNT), jnp.ones((COUNT, SIZE, SIZE), bool), objects)


@pytest.fixture(scope="module")
def hidden(examples):
    """What each kind hides, by kind, `[N, H, W]`."""

    @jax.jit
    def draw(key):
        kinds = augmentation.MASKING_KINDS
        return {kind: augmentation.hidden(kind, examples, key=key) for kind in kinds}

    return {kind: np.asarray(where) for kind, where in draw(jax.random.key(0)).items()}


def rectangle(where):
    """Rows and columns of a hidden rectangle, or None; fails where it is not one."""
    if not where.any():
        return None
    rows, columns = where.any(axis=1), where.any(axis=0)
    np.testing.assert_array_equal(where, rows[:, None] & columns[None])
    for side in (rows, columns):
        assert (np.diff(np.flatnonzero(side)) == 1).all()
    return rows.sum(), columns.sum()


def test_patches_are_whole_cells_and_so_many_as_a_fraction_says(hidden):
    cells = hidden["patches"].reshape(COUNT, 14, 2, 14, 2)
    assert (cells == cells[:, :, :1, :, :1]).all()
    counts = cells[:, :, 0, :, 0].sum(axis=(1, 2))
    assert set(counts) == {49, 98, 147}
    assert len({each.tobytes() for each in hidden["patches"]}) == COUNT


def test_cell_is_one_of_sixteen_in_half_of_the_images(hidden):
    cells = hidden["cell"].reshape(COUNT, 4, SIZE // 4, 4, SIZE // 4)
    assert (cells == cells[:, :, :1, :, :1]).all()
    cells = cells[:, :, 0, :, 0].reshape(COUNT, 16)
    assert set(cells.sum(axis=1)) == {0, 1}
    assert COUNT / 4 < cells.sum() < 3 * COUNT / 4
    assert cells.any(axis=0).sum() > 12


def test_cell_is_one_of_those_that_idsds_removes():
    shape = 30, 27  # not of whole cells
    labels = segments.cells(shape, 4)
    draw = jax.jit(lambda key: augmentation.cell(shape, key=key))
    for where in map(np.asarray, map(draw, jax.random.split(jax.random.key(1), 8))):
        assert not where.any() or (where == (labels == labels[where][0])).all()


def test_few_are_whole_cells_up_to_a_tenth(hidden):
    cells = hidden["few"].reshape(COUNT, 14, 2, 14, 2)
    assert (cells == cells[:, :, :1, :, :1]).all()
    counts = cells[:, :, 0, :, 0].sum(axis=(1, 2))
    assert counts.max() in range(15, 21)  # of 196
    assert counts.min() in range(5)
    assert len(set(counts)) > 10


def test_cutout_is_a_square_of_half_the_height_cut_off_at_the_border(hidden):
    sides = np.array([rectangle(where) for where in hidden["cutout"]])
    assert sides.max() == SIZE // 2
    assert sides.min() >= SIZE // 4  # its centre is inside
    assert (sides.min(axis=1) < SIZE // 2).any()


def test_erasing_keeps_to_its_areas_and_aspects_and_erases_half_of_the_images(hidden):
    sides = [each for each in map(rectangle, hidden["erasing"]) if each is not None]
    assert COUNT / 4 < len(sides) < 3 * COUNT / 4
    for height, width in sides:
        assert (height + 0.5) * (width + 0.5) >= 0.02 * SIZE**2
        assert (height - 0.5) * (width - 0.5) <= 0.4 * SIZE**2
        assert (height + 0.5) / (width - 0.5) >= 0.3
        assert (height - 0.5) / (width + 0.5) <= 1 / 0.3
    assert len(set(sides)) > len(sides) / 2


def test_objects_have_the_shape_of_another_images_object(hidden, examples):
    np.testing.assert_array_equal(hidden["objects"], np.roll(examples.objects, 1, axis=0))


@pytest.fixture(scope="module")
def mixed(examples):
    return jax.jit(lambda key: augmentation.cutmix(examples, key=key))(jax.random.key(3))


def test_cutmix_pastes_a_box_of_the_image_before_and_mixes_labels_by_its_area(mixed, examples):
    own, other = np.asarray(examples.images), np.roll(examples.images, 1, axis=0)
    pasted = (np.asarray(mixed.images) == other).all(axis=-1)
    np.testing.assert_array_equal(np.asarray(mixed.images), np.where(pasted[..., None], other, own))
    for each in pasted:
        rectangle(each)
    share = pasted.mean(axis=(1, 2))[:, None]
    expected = (1 - share) * np.eye(COUNT) + share * np.roll(np.eye(COUNT), 1, axis=0)
    np.testing.assert_allclose(mixed.targets, expected, atol=1e-6)
    objects = np.asarray(examples.objects)
    moved = np.where(pasted, np.roll(objects, 1, axis=0), objects)
    np.testing.assert_array_equal(mixed.objects, moved)
    assert 0.05 < share.mean() < 0.5  # 0.5 if no box were cut off at the border


def test_flip_mirrors_half_of_the_images_with_their_masks(examples):
    images = jax.random.uniform(jax.random.key(5), examples.images.shape)
    flipped = augmentation.flip(examples._replace(images=images), key=jax.random.key(2))
    mirrored = (np.asarray(flipped.images) == np.asarray(images)[:, :, ::-1]).all(axis=(1, 2, 3))
    assert COUNT / 4 < mirrored.sum() < 3 * COUNT / 4
    for own, found in ((images, flipped.images), (examples.objects, flipped.objects)):
        own, found = np.asarray(own), np.asarray(found)
        np.testing.assert_array_equal(found[mirrored], own[mirrored][:, :, ::-1])
        np.testing.assert_array_equal(found[~mirrored], own[~mirrored])


@pytest.mark.parametrize("fill", ["grey", "grey_smooth", "blur", "red"])
def test_fills_are_those_of_replace(fill, examples):
    few = jax.tree.map(lambda x: x[:3], examples)
    images = jax.random.uniform(jax.random.key(5), few.images.shape)
    found = augmentation.hide(
        few._replace(images=images), few.objects, fill, MEAN, jax.random.key(0)
    )
    replace = removals.make(fill)
    for image, where, picture in zip(images, few.objects, found.images):
        np.testing.assert_allclose(picture, replace.paint(image, ~where[None], MEAN)[0], atol=1e-6)
    assert found.masks is few.masks


def test_noise_is_drawn_for_each_image_and_only_where_it_is_hidden(examples):
    where = jnp.zeros((COUNT, SIZE, SIZE), bool).at[:, :10].set(True)
    found = augmentation.hide(examples, where, "uniform_noise", MEAN, jax.random.key(0)).images
    np.testing.assert_array_equal(found[:, 10:], examples.images[:, 10:])
    noise = np.asarray(found[:, :10]).reshape(COUNT, -1)
    assert len({row.tobytes() for row in noise}) == COUNT
    np.testing.assert_allclose(noise.mean(), 0.5, atol=0.01)


def test_layer_masking_leaves_images_and_adds_to_masks(examples, hidden):
    once = augmentation.hide(examples, hidden["patches"], "layer@2", MEAN, jax.random.key(0))
    twice = augmentation.hide(once, hidden["cutout"], "layer@2", MEAN, jax.random.key(0))
    assert twice.images is examples.images
    np.testing.assert_array_equal(twice.masks, ~hidden["patches"] & ~hidden["cutout"])


def test_augment_is_pure_and_goes_in_order(examples):
    few = jax.tree.map(lambda x: x[:4], examples)
    names = ("flip", "cutout:black", "objects:layer")

    def run(key):
        return augmentation.augment(few, names, MEAN, key=key)

    first, second = jax.jit(run)(jax.random.key(0)), run(jax.random.key(0))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second)):
        np.testing.assert_array_equal(a, b)
    other = jax.jit(run)(jax.random.key(1))
    assert (np.asarray(other.images) != np.asarray(first.images)).any()
    # Objects are flipped before they hide.
    np.testing.assert_array_equal(first.masks, ~np.roll(first.objects, 1, axis=0))


def test_a_fill_says_which_masking_the_network_has():
    own = LayerMasking(padding="none")
    assert augmentation.masking_of(("flip", "patches:grey"), own) is None
    assert augmentation.masking_of(("flip", "patches:layer@2"), own) == LayerMasking(depth=2)
    assert augmentation.masking_of(("patches:masking",), own) is own
    assert augmentation.needs_objects(("objects:grey",))
    assert not augmentation.needs_objects(("patches:grey",))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("squares:grey",), "got 'squares:grey'"),
        (("patches",), "patches:grey or patches:layer; got 'patches'"),
        (("flip:grey",), "got 'flip:grey'"),
        (("patches:purple",), "fill of augmentation 'patches:purple' must be one of layer"),
        (("patches:segment_mean",), "takes segments, which training images do not have"),
        (("patches:layer", "cutout:partial"), r"different ways \(layer, partial\)"),
    ],
)
def test_unknown_names_are_errors(names, message):
    with pytest.raises(ValueError, match=message):
        augmentation.parse(names)


def test_every_fill_that_is_offered_can_be_made():
    names = augmentation.fills()
    assert set(names) == set(removals.names()) - {"segment_mean"}
    for name in names:
        removal = removals.make(name, key=jax.random.key(0))
        assert isinstance(removal, Painting) == removals.paints(name)
        assert augmentation.parse((f"patches:{name}",))[0].fill == name


def test_the_american_spelling_is_recorded_as_the_other():
    assert TrainingConfig(augmentations=("patches:gray", "flip")).augmentations == (
        "patches:grey",
        "flip",
    )


def test_help_lists_the_removals_of_the_registry():
    written = TrainingConfig.__doc__.partition("segments, one of ")[2].split(".\n")[0]
    assert tuple(written.replace("\n", " ").split(", ")) == augmentation.fills()


@pytest.fixture
def registered():
    """A fill of one's own that paints the complement of the mean visible colour, and an average."""

    def complement(image, mask, key):
        mean = image.sum(axis=(0, 1)) / mask.sum()
        return jnp.broadcast_to(1 - mean, image.shape)

    removals.register("complement", lambda: Fill(complement), description="test")
    images = np.zeros((1, SIZE, SIZE, 3), np.float32)
    removals.register("average", lambda: removals.ReplaceAverage(images), description="test")
    yield
    REGISTRY.unregister("complement")
    REGISTRY.unregister("average")


def test_a_registered_removal_is_a_fill(registered, examples):
    few = jax.tree.map(lambda x: x[:3], examples)
    images = jax.random.uniform(jax.random.key(5), few.images.shape)
    few = few._replace(images=images)
    found = augmentation.augment(few, ("objects:complement",), MEAN, key=jax.random.key(0)).images
    where = np.roll(few.objects, 1, axis=0)
    for image, hidden, picture in zip(np.asarray(images), where, np.asarray(found)):
        np.testing.assert_array_equal(picture[~hidden], image[~hidden])
        expected = 1 - image[~hidden].mean(axis=0)
        np.testing.assert_allclose(
            picture[hidden], np.broadcast_to(expected, picture[hidden].shape), atol=1e-5
        )


def test_a_removal_that_paints_no_image_is_no_fill(registered):
    with pytest.raises(ValueError, match=r"average has no method paint\(image, masks, mean\)"):
        augmentation.parse(("patches:average",))
