"""Robustness of maps to the image, and their dependence on the class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max

import lmjax
from lmjax.metrics import cosine_similarity, local_lipschitz, max_sensitivity, random_logit

KEY = jax.random.key(3)
IMAGE = np.random.default_rng(0).random((6, 5, 3), np.float32)
WEIGHTS = np.random.default_rng(1).normal(size=(6, 5, 3)).astype(np.float32)


def explain(image):
    """A map that is not linear in the image."""
    return (WEIGHTS * image**2).sum(axis=-1)


def nearby(radius, count):
    """The images that a call explains, seen through its own function."""
    seen = []
    max_sensitivity(
        lambda image: seen.append(image) or explain(image),
        IMAGE,
        key=KEY,
        radius=radius,
        num_samples=count,
    )
    np.testing.assert_array_equal(seen[0], IMAGE)
    return np.stack(seen[1:])


def test_images_are_close_and_have_display_colours():
    images = nearby(0.3, 50)
    distance = np.abs(images - IMAGE)
    assert distance.max() <= 0.3 + 1e-6
    assert distance.max() > 0.29
    assert images.min() == 0
    assert images.max() == 1
    assert len(np.unique(images, axis=0)) == 50


def test_it_agrees_with_captum():
    images = torch.from_numpy(nearby(0.05, 8))

    def in_torch(batch):
        (images,) = batch if isinstance(batch, tuple) else (batch,)
        return ((torch.from_numpy(WEIGHTS) * images**2).sum(dim=-1),)

    wanted = sensitivity_max(
        in_torch,
        torch.from_numpy(IMAGE)[None],
        perturb_func=lambda batch: images,
        n_perturb_samples=8,
    )
    found = max_sensitivity(explain, IMAGE, key=KEY, radius=0.05, num_samples=8)
    assert found == pytest.approx(wanted.item(), rel=1e-5)
    assert found > 0.01


def test_the_lipschitz_ratio_of_a_linear_map_is_at_most_its_norm():
    matrix = np.random.default_rng(2).normal(size=(20, IMAGE.size))

    def linear(image):
        return (matrix @ image.ravel()).reshape(4, 5)

    found = local_lipschitz(linear, IMAGE, key=KEY, radius=0.1, num_samples=30)
    images = nearby(0.1, 30).astype(np.float64)
    steps = (images - IMAGE).reshape(30, -1)
    ratios = np.linalg.norm(steps @ matrix.T, axis=1) / np.linalg.norm(steps, axis=1)
    assert found == pytest.approx(ratios.max(), rel=1e-6)
    assert found <= np.linalg.norm(matrix, 2)


def test_a_constant_map_is_robust_and_a_map_of_zeros_has_no_relative_change():
    assert max_sensitivity(lambda image: np.ones((6, 5)), IMAGE, key=KEY) == 0
    assert local_lipschitz(lambda image: np.zeros((6, 5)), IMAGE, key=KEY) == 0
    assert np.isnan(max_sensitivity(lambda image: np.zeros((6, 5)), IMAGE, key=KEY))


def test_images_that_do_not_differ_say_nothing():
    """A hundred millionth of a colour is lost in float32."""
    assert np.isnan(local_lipschitz(explain, np.full((6, 5, 3), 0.5), key=KEY, radius=1e-9))
    nearly_black = np.zeros((1, 1, 1), np.float32)  # half of the images are cut off at 0
    found = local_lipschitz(lambda x: 2 * x[..., 0], nearly_black, key=KEY, num_samples=20)
    assert found == pytest.approx(2)


def test_the_other_class_is_drawn_from_all_others():
    asked = []

    def of_class(target):
        asked.append(target)
        return WEIGHTS[..., target]

    for seed in range(20):
        key = jax.random.key(seed)
        found = random_logit(of_class, 1, num_classes=3, key=key, similarity=cosine_similarity)
        assert found == pytest.approx(cosine_similarity(WEIGHTS[..., 1], WEIGHTS[..., asked[-1]]))
    assert set(asked[::2]) == {1}
    assert set(asked[1::2]) == {0, 2}
    assert random_logit(lambda target: WEIGHTS[..., 0], 0, num_classes=2, key=KEY) == 1


def test_an_attribution_goes_through():
    def mean(image, masks):
        return (jnp.where(masks[..., None], image, 0.0) ** 2).sum(axis=1)[:, :2, 0]

    squares = lmjax.segments.grid(IMAGE, size=2)
    found = max_sensitivity(
        lambda image: lmjax.attribution.leave_one_out(mean, image, squares, target=0).heatmap,
        IMAGE,
        key=KEY,
        num_samples=3,
    )
    assert 0 < found < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radius": 0}, "radius must be .*above 0"),
        ({"num_samples": 0}, "num_samples must be a whole number, 1 or more"),
        ({"image": IMAGE * 3}, r"display colours in \[0, 1\]"),
        ({"explain": lambda image: image * np.nan}, "explain's map holds NaN"),
        ({"explain": lambda image: image[: 5 + (image[0, 0, 0] > IMAGE[0, 0, 0])]}, "one shape"),
    ],
)
def test_bad_input_is_refused(options, message):
    given = {"explain": explain, "image": IMAGE, **options}
    with pytest.raises(ValueError, match=message):
        max_sensitivity(given.pop("explain"), given.pop("image"), key=KEY, **given)


def test_a_class_out_of_range_is_refused():
    with pytest.raises(ValueError, match="target must be a whole number from 0 to 2"):
        random_logit(lambda target: WEIGHTS[..., 0], 3, num_classes=3, key=KEY)


def test_maps_of_a_class_without_numbers_are_refused():
    with pytest.raises(ValueError, match="explain's map holds NaN"):
        random_logit(lambda target: WEIGHTS[..., 0] * np.nan, 0, num_classes=3, key=KEY)
