"""Networks that know nothing of masks, under layer masking: the identities of its definition."""

import jax
import numpy as np
import pytest

import lmjax
from benchmarks.foreign import NOTHING, WHOLE, in_layout, masks, measure, noise
from lmjax.masking.transform import layer_mask
from tests.support.foreign_networks import NETWORKS

QUICK = [name for name, network in NETWORKS.items() if network.quick]
SMALL = [name for name in QUICK if NETWORKS[name].library in ("Equinox", "Flax NNX", "PyTorch")]


@pytest.fixture(autouse=True, scope="module")
def _as_others_write():
    """Other people's networks let NumPy's rules add axes, and warn."""
    with jax.numpy_rank_promotion("allow"):
        yield


def test_they_are_many():
    assert len(NETWORKS) >= 40
    assert len(QUICK) == 8


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, id=name.strip(), marks=() if network.quick else pytest.mark.slow)
        for name, network in NETWORKS.items()
    ],
)
def test_identities(name):
    network = NETWORKS[name]
    if network.library == "flaxmodels" and network.quick:  # takes longer to run than to compile
        network = network._replace(size=32)
    found = measure(network)
    assert found["everything visible"] < 1e-4
    assert found["another batch size"] < 1e-4
    assert found["hidden is not read"]
    assert found["nothing visible"]
    assert found["image is seen"] > 1e-3
    assert found["rings"] <= found["of"]


@pytest.fixture(scope="module", params=SMALL)
def quick(request):
    """A network, its function and parameters."""
    network = NETWORKS[request.param]
    return network, *network.make(network.size)


def test_vmap_over_masks_is_a_loop(quick):
    network, apply, params = quick
    masked = layer_mask(apply, layout=network.layout)
    image, shown = noise(network)[:1], masks(network.size)
    run = jax.jit(jax.vmap(lambda mask: masked(params, image, mask[None])[0]))
    together = jax.jit(masked)(params, np.repeat(image, len(shown), axis=0), shown)
    np.testing.assert_allclose(run(shown), together, rtol=0, atol=1e-4 * np.abs(together).max())
    np.testing.assert_array_equal(together[NOTHING], together[NOTHING + 1])


def test_gradients_are_finite_and_zero_under_the_mask(quick):
    network, apply, params = quick
    masked = layer_mask(apply, layout=network.layout)
    images, shown = noise(network), masks(network.size)

    @jax.jit
    @jax.grad
    def gradient(images):
        return (masked(params, images, shown) ** 2).sum()

    found = np.asarray(gradient(images))
    seen = np.broadcast_to(in_layout(network, shown[..., None]), found.shape)
    assert np.isfinite(found).all()
    assert not found[~seen].any()
    assert found[WHOLE].any()


def test_visible_positions_alone_give_the_same(quick):
    network, apply, params = quick
    classifier = lmjax.models.from_function(
        apply, params, layout=network.layout, image_size=network.size
    )
    image = np.random.default_rng(2).random((network.size, network.size, 3), np.float32)
    predictor = lmjax.Predictor(classifier, lmjax.LayerMasking())
    dense, visible = (
        lmjax.evaluate(predictor, image, masks(network.size), engine=engine)
        for engine in ("dense", "visible")
    )
    np.testing.assert_allclose(visible, dense, rtol=0, atol=1e-4 * np.abs(dense).max())
