"""Variants of many images: the same answers as image by image."""

import functools

import jax
import numpy as np
import pytest

import lmjax
from lmjax.evaluation import Predictor, evaluate
from lmjax.masks import ImageCoalitions
from lmjax.masks.pooled import PooledMasks
from lmjax.removals.replace import Replace
from tests.evaluation.test_engines import SIZE, random_masks, random_predictor
from tests.support import compilations
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
M, N, H, W = 5, 40, 8, 6
IMAGES = RNG.random((M, H, W, 3)).astype(np.float32)
MASKS = RNG.random((N, H, W)) < 0.5
IMAGE_OF = RNG.integers(M, size=N)
SEGMENTS = np.stack([RNG.permutation(H * W).reshape(H, W) % (3 + i) for i in range(M)])
KEEP = RNG.random((N, SEGMENTS.max() + 1)) < 0.5


def evaluate_images(predictor, images, masks, *, image_of, **options):
    return lmjax.Evaluator(predictor, **options).images(images, masks, image_of=image_of)


evaluate_all = functools.partial(evaluate_images, image_of=IMAGE_OF)


def one_by_one(predictor, masks):
    masks[:, 0, 0] = True  # evaluate wants a visible pixel
    return np.stack([evaluate(predictor, IMAGES[i], m[None])[0] for i, m in zip(IMAGE_OF, masks)])


@pytest.mark.parametrize("batch_size", [None, 1, 7, 64])
def test_masks_of_many_images_equal_evaluate_image_by_image(batch_size):
    predictor, masks = Predictor(small_classifier()), MASKS.copy()
    expected = one_by_one(predictor, masks)
    logits = evaluate_all(predictor, IMAGES, masks, batch_size=batch_size)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_coalitions_are_painted_from_each_images_own_segments():
    predictor = Predictor(small_classifier(), Replace("grey"))
    masks = np.stack([keep[SEGMENTS[i]] for i, keep in zip(IMAGE_OF, KEEP)])
    logits = evaluate_all(predictor, IMAGES, ImageCoalitions(SEGMENTS, KEEP))
    np.testing.assert_array_equal(logits, evaluate_all(predictor, IMAGES, masks))
    assert len(np.unique(logits[:, 0])) > N // 2


@pytest.mark.parametrize("kind", ["masks", "coalitions", "pooled"])
def test_nan_is_refused_where_a_variant_of_its_image_shows_it(kind):
    """Elsewhere it is never read: hidden in all variants of image 2, shown in those of others."""
    predictor = Predictor(small_classifier(), Replace("grey"))
    images, image_of = IMAGES.copy(), np.sort(IMAGE_OF)
    segments = np.stack([np.arange(H * W).reshape(H, W) % 4] * M)
    keep = RNG.random((N, 4)) < 0.5
    keep[image_of == 2, 3], keep[image_of == 1, 3], keep[:, 0] = False, True, True
    given = {
        "masks": np.stack([each[segments[0]] for each in keep]),
        "coalitions": ImageCoalitions(segments, keep),
        "pooled": PooledMasks(
            [lmjax.Coalitions(segments[i], keep[image_of == i]) for i in range(M)]
        ),
    }[kind]
    expected = evaluate_images(predictor, images, given, image_of=image_of)
    images[2, segments[2] == 3] = np.nan
    found = evaluate_images(predictor, images, given, image_of=image_of)
    np.testing.assert_array_equal(found, expected)
    images[1, segments[1] == 3] = np.inf
    with pytest.raises(ValueError, match=r"images\[1\] holds NaN or infinity in 12 visible pixels"):
        evaluate_images(predictor, images, given, image_of=image_of)


@pytest.mark.parametrize("padding", ["neighbor", "none"])
def test_a_network_under_layer_masking(padding):
    predictor = random_predictor("basic", lmjax.LayerMasking(padding=padding))
    images = RNG.random((3, 32, 32, 3)).astype(np.float32)
    masks = np.repeat(np.repeat(RNG.random((6, 4, 4)) < 0.5, 8, axis=1), 8, axis=2)
    masks[-1] = False
    image_of = [0, 1, 2, 0, 1, 2]
    logits = evaluate_images(predictor, images, masks, image_of=image_of)
    scale = np.abs(logits).max()
    for i, mask, row in zip(image_of, masks[:-1], logits):
        alone = evaluate(predictor, images[i], mask[None])[0]
        np.testing.assert_allclose(row, alone, atol=1e-5 * scale)
    bias = predictor.classifier.variables["params"]["fc"]["bias"]
    np.testing.assert_allclose(logits[-1], bias, atol=1e-6)


def test_images_may_be_any_pytree():
    def predictor(image, masks):
        noise = jax.random.uniform(image["key"], (1, 2))
        return image["picture"].sum() * masks.sum() + noise

    keys = jax.random.split(jax.random.key(0), M)
    logits = evaluate_all(predictor, {"picture": IMAGES, "key": keys}, MASKS)
    expected = [
        IMAGES[i].sum() * mask.sum() + np.asarray(jax.random.uniform(keys[i], (2,)))
        for i, mask in zip(IMAGE_OF, MASKS)
    ]
    np.testing.assert_allclose(logits, expected, rtol=1e-4)


def test_a_variant_does_not_depend_on_its_company():
    predictor = Predictor(small_classifier())
    together = evaluate_all(predictor, IMAGES, MASKS, batch_size=8)
    rows = np.flatnonzero(IMAGE_OF == 2)
    alone = evaluate_images(
        predictor, IMAGES[2:3], MASKS[rows], image_of=np.zeros(len(rows), int), batch_size=8
    )
    np.testing.assert_allclose(together[rows], alone, rtol=1e-6, atol=1e-7)


def test_compiles_once_whatever_the_numbers_of_images_and_variants():
    predictor = Predictor(small_classifier(seed=1))
    evaluate_all(predictor, IMAGES, MASKS, batch_size=4)
    predictor = Predictor(small_classifier(seed=1).__class__(**vars(predictor.classifier)))
    with compilations.counted() as compiled:
        few = IMAGE_OF < 4
        evaluate_images(
            predictor, IMAGES[[0, 1, 2, 3, 3]], MASKS[few], image_of=IMAGE_OF[few], batch_size=4
        )
    assert not compiled


@pytest.mark.parametrize(
    ("masks", "image_of", "message"),
    [
        (MASKS, IMAGE_OF + 1, "image_of must be from 0 to 4"),
        (MASKS, IMAGE_OF[:3], "image_of must be ints"),
        (MASKS * 2, IMAGE_OF, "masks must hold only 0"),
        (MASKS[:0], IMAGE_OF[:0], "at least one variant"),
        (ImageCoalitions(SEGMENTS[:2], KEEP), IMAGE_OF, "leading axis"),
    ],
    ids=["no such image", "lengths", "values", "empty", "segments"],
)
def test_what_does_not_fit_is_an_error(masks, image_of, message):
    with pytest.raises(ValueError, match=message):
        evaluate_images(Predictor(small_classifier()), IMAGES, masks, image_of=image_of)


def test_a_list_of_images_is_an_error_that_says_how_to_stack_it():
    with pytest.raises(ValueError, match=r"list of 5 images; pass np\.stack\(images\)"):
        evaluate_images(Predictor(small_classifier()), list(IMAGES), MASKS, image_of=IMAGE_OF)


@pytest.mark.parametrize(
    ("segments", "keep", "message"),
    [
        (SEGMENTS[0], KEEP, "segments must be ints"),
        (SEGMENTS, KEEP.astype(int), "keep must be bool"),
        (SEGMENTS, KEEP[:, :2], "labels from 0 to 1"),
    ],
    ids=["segments", "dtype", "columns"],
)
def test_coalitions_check_their_shapes(segments, keep, message):
    with pytest.raises(ValueError, match=message):
        ImageCoalitions(segments, keep)


@pytest.mark.parametrize("kind", ["masks", "coalitions"])
def test_variants_of_several_images_are_one_pool_in_every_engine(kind):
    predictor = random_predictor("basic", lmjax.LayerMasking())
    rng = np.random.default_rng(0)
    images = rng.random((3, *SIZE, 3)).astype(np.float32)
    maps = np.stack(
        [np.arange(SIZE[0] * SIZE[1]).reshape(SIZE) // (400 + 100 * i) for i in range(3)]
    )
    coalitions = ImageCoalitions(maps, rng.random((30, maps.max() + 1)) < 0.5)
    given = {"masks": random_masks(30), "coalitions": coalitions}[kind]
    run = functools.partial(evaluate_images, image_of=rng.integers(0, 3, 30))
    expected = run(predictor, images, given, engine="dense")
    for engine in ("visible", "shared"):
        found = run(predictor, images, given, engine=engine)
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("engine", ["visible", "shared"])
def test_hidden_pixels_of_several_images_are_not_read(engine):
    predictor, masks = random_predictor("basic", lmjax.LayerMasking()), random_masks(24)
    masks &= np.arange(SIZE[1]) < 20
    images = np.random.default_rng(0).random((2, *SIZE, 3)).astype(np.float32)
    poisoned = np.where(masks.any(axis=0)[..., None], images, np.float32(np.nan))
    image_of = np.arange(24) % 2
    expected = evaluate_images(predictor, images, masks, image_of=image_of, engine=engine)
    found = evaluate_images(predictor, poisoned, masks, image_of=image_of, engine=engine)
    np.testing.assert_array_equal(found, expected)
