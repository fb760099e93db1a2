import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import sobol_indices

import lmjax
from lmjax.attribution import sobol
from lmjax.attribution.sobol import jansen, switched
from lmjax.evaluation import Predictor
from lmjax.masks.segments import even_grid
from tests.support.segment_networks import shares
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
H, W = 12, 9
IMAGE = RNG.random((H, W, 3)).astype(np.float32)
KEY = jax.random.key(3)
SEGMENTS = even_grid((H, W), (2, 3))  # 6 segments
S = 6


def ishigami(x):
    """Ishigami's function, whose Sobol indices are known, of the first 3 columns `[..., S]`."""
    a, b, c = (np.pi * (2 * x[..., i] - 1) for i in range(3))
    return jnp.sin(a) + 7 * jnp.sin(b) ** 2 + 0.1 * c**4 * jnp.sin(a)


def network(image, masks):
    value = ishigami(shares(SEGMENTS, masks))
    return jnp.stack([value, 2 - value], axis=1)


TOTAL = np.array([0.5576, 0.4424, 0.2437, 0, 0, 0])  # Sobol & Levitan 1999, of Ishigami's function


def test_soft_masks_give_the_known_indices():
    found = sobol(
        network,
        IMAGE,
        key=KEY,
        segments=SEGMENTS,
        soft=True,
        num_designs=1024,
        objective="logit",
        target=[0, 1],
    )
    np.testing.assert_allclose(found.scores, [TOTAL, TOTAL], atol=0.03)
    np.testing.assert_allclose(found.scores[:, 3:], 0, atol=1e-6)
    assert found.num_variants == 1024 * (S + 1) + 1
    assert (found.standard_error < 0.06).all()


def test_the_estimator_is_scipys():
    def function(x):  # [d, n], as SciPy has it
        return np.asarray(ishigami(np.moveaxis(x, 0, -1)))

    first, second = RNG.random((2, 3, 64))
    mixed = np.repeat(first[None], 3, axis=0)
    for i in range(3):
        mixed[i, i] = second[i]
    result = sobol_indices(
        func={
            "f_A": function(first)[None],
            "f_B": function(second)[None],
            "f_AB": function(np.moveaxis(mixed, 0, 1))[:, None],
        },
        n=64,
    )
    scores, _ = jansen(function(first), function(np.moveaxis(mixed, 0, 1)))
    # SciPy takes the variance over both sets of points, Xplique and we over the first.
    both = np.var([function(first), function(second)])
    np.testing.assert_allclose(
        scores, result.total_order * both / function(first).var(ddof=1), rtol=1e-6
    )


def exact_binary_indices(values):
    """Total-order indices of a function of S coins, from its values at all `[2] * S` points."""
    return np.array(
        [(np.diff(values, axis=i) ** 2).mean() / 4 / values.var() for i in range(values.ndim)]
    )


def test_binary_masks_give_the_indices_of_coin_flips():
    classifier = small_classifier((H, W, 3), num_classes=5)
    predictor = Predictor(classifier, lmjax.LayerMasking())
    found = sobol(
        predictor, IMAGE, key=KEY, segments=SEGMENTS, num_designs=2048, target=1, objective="logit"
    )
    points = np.array(list(np.ndindex((2,) * S)), bool)
    values = np.asarray(predictor(IMAGE, points[:, SEGMENTS]))[:, 1].reshape((2,) * S)
    np.testing.assert_allclose(found.scores, exact_binary_indices(values), atol=0.02)
    assert found.num_variants == 2**S + 1  # coinciding variants are evaluated once


def test_coinciding_variants_change_no_score():
    predictor = Predictor(small_classifier((H, W, 3)), lmjax.LayerMasking())
    found = sobol(predictor, IMAGE, key=KEY, target=1, segments=SEGMENTS, objective="logit")
    assert found.num_variants <= 2**S + 1
    keep = switched(S, 32, KEY)
    values = np.asarray(predictor(IMAGE, keep[:, SEGMENTS]), np.float64)[:, 1]
    points, *mixed = values.reshape(32, S + 1).T
    np.testing.assert_allclose(found.scores, jansen(points, np.array(mixed))[0] / 2, rtol=1e-4)


def test_many_segments_under_masks_are_each_switched_and_shown_apart():
    """Rounded Sobol points have 16 different columns among 32: most of these segments would tie."""
    keep = switched(64, 32, KEY).reshape(32, 65, 64)
    np.testing.assert_array_equal(
        keep[:, 1:] ^ keep[:, :1], np.broadcast_to(np.eye(64), (32, 64, 64))
    )
    points = keep[:, 0]
    np.testing.assert_array_equal(points.reshape(8, 4, 64).sum(axis=1), 2)
    assert abs(np.corrcoef(points.T) - np.eye(64)).max() < 0.9
    grid = even_grid((16, 16), 8)

    def reads_one(image, masks):
        shown = jnp.asarray(masks, jnp.float32)[:, 2, 3]  # of segment 9
        return jnp.stack([shown, -shown], axis=1)

    for seed in range(3):
        key, picture = jax.random.key(seed), np.zeros((16, 16, 3), np.float32)
        found = sobol(reads_one, picture, key=key, segments=grid, target=0, objective="logit")
        assert found.scores[grid[2, 3]] == pytest.approx(31 / 32)  # its variance, ddof 1, is 8 / 31
        assert np.count_nonzero(found.scores) == 1


def test_standard_errors_cover_the_indices():
    """Of independent points, 0.78 to 0.89 without the variance's own error; 0.95 is wanted."""
    weights = np.random.default_rng(1).random(12)
    expected = weights**2 / (weights**2).sum()
    covered = []
    for seed in range(300):
        points, others = np.random.default_rng(seed).random((2, 64, 12))
        outputs = points @ weights
        mixed = outputs + ((others - points) * weights).T
        scores, errors = jansen(outputs, mixed)
        covered.append(abs(scores - expected) < 2 * errors)
    assert 0.92 < np.mean(covered) < 0.97


def test_standard_errors_bound_the_spread_over_keys():
    options = {"segments": SEGMENTS, "soft": True, "objective": "logit", "num_designs": 64}
    runs = [sobol(network, IMAGE, key=jax.random.key(i), target=0, **options) for i in range(30)]
    spread = np.std([run.scores for run in runs], axis=0)[:3]
    claimed = np.mean([run.standard_error for run in runs], axis=0)[:3]
    assert (spread < 1.3 * claimed).all()
    assert (spread > claimed / 10).all()


def test_constant_answers_have_no_scores():
    found = sobol(lambda image, masks: jnp.ones((len(masks), 2)), IMAGE, key=KEY, grid=2)
    np.testing.assert_array_equal(found.scores, np.zeros(4))


def test_the_default_grid_is_even():
    found = sobol(lambda image, masks: jnp.ones((len(masks), 2)), IMAGE, key=KEY, num_designs=2)
    assert found.scores.shape == (64,)
    for axis, sides in ((0, [1, 2]), (1, [1, 2])):
        line = found.segments[:, 0] // 8 if axis == 0 else found.segments[0] % 8
        assert (np.diff(line) >= 0).all()
        assert set(np.bincount(line, minlength=8)) <= set(sides)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_designs": 1}, "num_designs must be a whole number, 2 or more"),
        ({"grid": 10}, "grid must be .* from 1 to 12 and 9 .* got 10"),
        ({"segments": SEGMENTS + 1}, "missing 0"),
        ({"segments": SEGMENTS.T}, "like the image"),
        ({"segments": np.arange(150 * 100).reshape(150, 100), "soft": True}, "at most 10,600"),
    ],
)
def test_bad_options_are_errors(options, message):
    image = IMAGE if "at most" not in message else np.zeros((150, 100, 3), np.float32)
    with pytest.raises(ValueError, match=message):
        sobol(network, image, key=KEY, **{"num_designs": 2, **options})
