import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lmjax import removals
from lmjax.evaluation import Predictor, evaluate
from lmjax.evaluation.predictor import PredictorLike
from lmjax.models import Classifier, Preprocessing
from lmjax.models.checkpoints import abstract_variables
from lmjax.models.networks.resnet import BasicBlock, ResNet
from lmjax.removals.masking import LayerMasking, PartialConvolution
from lmjax.removals.replace import Replace
from tests.support.compilations import quick_jit
from tests.support.on_rows import run
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
IMAGE = RNG.random((8, 6, 3)).astype(np.float32)
MASKS = RNG.random((5, 8, 6)) < 0.5
REMOVALS = [LayerMasking(), PartialConvolution(depth=1), Replace("grey"), Replace((0.1, 0.2, 0.3))]


@dataclasses.dataclass(frozen=True)
class Zeros:
    """A user's own removal: a frozen dataclass, no pytree."""

    scale: float = 1.0

    def logits(self, classifier, image, masks):
        return self.scale * classifier.apply(jnp.where(masks[..., None], image[None], 0))


@pytest.mark.parametrize("removal", [*REMOVALS, Zeros(2.0)], ids=repr)
def test_it_is_the_removals_logits_also_under_jit_and_vmap(removal):
    predictor = Predictor(small_classifier(), removal)
    expected = removal.logits(predictor.classifier, jnp.asarray(IMAGE), jnp.asarray(MASKS))
    np.testing.assert_array_equal(predictor(IMAGE, MASKS), expected)
    jitted = jax.jit(lambda p, image, masks: p(image, masks))(predictor, IMAGE, MASKS)
    np.testing.assert_allclose(jitted, expected, atol=1e-6)
    images = jnp.stack([jnp.asarray(IMAGE), jnp.asarray(IMAGE) / 2])
    mapped = jax.vmap(predictor, in_axes=(0, None))(images, jnp.asarray(MASKS))
    np.testing.assert_allclose(mapped[0], expected, atol=1e-6)
    np.testing.assert_allclose(mapped[1], predictor(IMAGE / 2, MASKS), atol=1e-6)


@pytest.mark.parametrize("removal", REMOVALS, ids=repr)
def test_one_mask_and_vmap_over_masks(removal):
    predictor = Predictor(small_classifier(), removal)
    expected = predictor(IMAGE, MASKS)
    np.testing.assert_allclose(predictor(IMAGE, MASKS[2]), expected[2], atol=1e-6)
    mapped = jax.vmap(predictor, in_axes=(None, 0))(jnp.asarray(IMAGE), jnp.asarray(MASKS))
    np.testing.assert_allclose(mapped, expected, atol=1e-6)


def test_the_classifiers_own_masking_is_the_default():
    masking = LayerMasking(padding="none", depth=1)
    module = ResNet((1,), BasicBlock, num_classes=2, width=4, masking=masking)
    classifier = Classifier(abstract_variables(module), module, Preprocessing())
    assert Predictor(classifier).removal == masking
    assert Predictor(classifier, LayerMasking()).removal == LayerMasking()


def test_a_removal_that_is_none_is_an_error():
    for removal in (0.5, LayerMasking):
        with pytest.raises(ValueError, match=r"removal must be a name, .*logits"):
            Predictor(small_classifier(), removal)
    with pytest.raises(
        ValueError, match=r"removal must be one of layer, .*got 'graey'; did you mean grey"
    ):
        Predictor(small_classifier(), "graey")


@pytest.mark.parametrize("name", ["grey", "gray", "layer@1", "white"])
def test_removals_by_name(name):
    predictor = Predictor(small_classifier(), name)
    expected = Predictor(small_classifier(), removals.make(name))
    np.testing.assert_array_equal(predictor(IMAGE, MASKS), expected(IMAGE, MASKS))
    assert not isinstance(predictor.removal, str)


def test_a_removal_that_declares_nothing_has_the_defaults():
    predictor = Predictor(small_classifier(), Zeros())
    assert not predictor.soft_masks
    assert predictor.engines == ("dense",)


@pytest.mark.parametrize(
    ("name", "new"), [("takes_soft_masks", "soft_masks"), ("knows_visible", "engines")]
)
def test_old_names_say_the_new_ones(name, new):
    with pytest.raises(AttributeError, match=rf"Predictor\.{name} is gone; use Predictor\.{new}"):
        getattr(Predictor(small_classifier()), name)


def test_it_is_a_predictor_by_protocol_and_so_is_a_function():
    assert isinstance(Predictor(small_classifier()), PredictorLike)
    assert isinstance(lambda image, masks: masks, PredictorLike)
    assert not isinstance("grey", PredictorLike)


def test_repr_is_short(resnet):
    text = repr(Predictor(resnet, "grey"))
    assert text.startswith("Predictor(Classifier(ResNet, ")
    assert text.endswith("Replace('grey'))")
    image = np.zeros((224, 224, 3), np.float32)
    for classifier in (small_classifier((32, 32, 3)), resnet):
        for removal in (None, Replace(image), "layer@2", Zeros()):
            assert len(repr(Predictor(classifier, removal))) < 300


@pytest.mark.parametrize("removal", REMOVALS, ids=repr)
def test_engines_are_those_that_removal_and_classifier_both_declare(resnet, removal):
    engines = ("dense", "visible", "shared") if removal.sparse else ("dense",)
    assert Predictor(resnet, removal).engines == engines
    assert Predictor(small_classifier(), removal).engines == ("dense",)


def test_removals_inside_the_network_take_an_image_for_each_variant(resnet):
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.random((3, 16, 20, 3)), jnp.float32)
    masks = jnp.asarray(rng.random((3, 16, 20)) < 0.5)
    predictor = Predictor(resnet, LayerMasking(padding="none", depth=0))
    answer = quick_jit(predictor)
    one_by_one = [answer(image, mask[None])[0] for image, mask in zip(images, masks)]

    visible = run(lambda pixels: predictor.on_visible(*pixels), images, masks)
    np.testing.assert_allclose(visible, jnp.stack(one_by_one), rtol=1e-5, atol=1e-5)
    together = quick_jit(predictor.removal.logits)(resnet, images, masks)
    np.testing.assert_allclose(together, jnp.stack(one_by_one), rtol=1e-5, atol=1e-5)


def test_layer_masking_is_the_default_and_reaches_the_classifier():
    predictor = Predictor(small_classifier())
    predictor(IMAGE, MASKS)
    assert list(predictor.classifier.traces) == [LayerMasking()]


def test_weights_and_baselines_are_leaves_and_settings_are_static():
    classifier = small_classifier()
    assert len(jax.tree.leaves(Predictor(classifier, LayerMasking()))) == 1
    assert len(jax.tree.leaves(Predictor(classifier, Replace((0.1, 0.2, 0.3))))) == 2
    one, same, other = (
        jax.tree.structure(Predictor(classifier, LayerMasking(depth=depth))) for depth in (1, 1, 2)
    )
    assert one == same
    assert one != other


def test_new_weights_do_not_compile_again():
    run = jax.jit(lambda p: p(IMAGE, MASKS))
    predictor = Predictor(small_classifier())
    doubled = jax.tree.map(lambda leaf: 2 * leaf, predictor)
    first, second = run(predictor), run(doubled)
    assert len(predictor.classifier.traces) == 1
    assert abs(first - second).max() > 0.01


def test_gradients_reach_weights_and_image_and_skip_hidden_pixels():
    def total(predictor, image):
        return predictor(image, MASKS[:1]).sum()

    predictor = Predictor(small_classifier())
    weights, image = jax.grad(total, argnums=(0, 1))(predictor, jnp.asarray(IMAGE))
    assert abs(weights.classifier.weights).max() > 0
    assert (np.asarray(image)[~MASKS[0]] == 0).all()
    assert (np.asarray(image)[MASKS[0]] != 0).any()


def test_a_variant_that_hides_everything_is_allowed():
    logits = Predictor(small_classifier())(IMAGE, np.zeros((1, 8, 6)))
    np.testing.assert_array_equal(logits, np.zeros((1, 4)))


def test_soft_masks_are_for_replace_alone():
    soft = np.full((1, 8, 6), 0.5, np.float32)
    assert Predictor(small_classifier(), Replace("black"))(IMAGE, soft).shape == (1, 4)
    with pytest.raises(ValueError, match=r"only 0 \(hidden\) and 1 \(visible\), got 0\.5"):
        Predictor(small_classifier())(IMAGE, soft)


@pytest.mark.parametrize(
    ("image", "masks", "message"),
    [
        (IMAGE[..., 0], MASKS, r"image must be \[H, W, C\]"),
        ((255 * IMAGE).astype(np.uint8), MASKS, "floats"),
        (IMAGE, MASKS[:, :4], r"masks must be \[N, 8, 6\]"),
        (IMAGE, 255 * MASKS, "got 255"),
    ],
)
def test_bad_input_is_an_error(image, masks, message):
    with pytest.raises(ValueError, match=message):
        Predictor(small_classifier())(image, masks)


def test_shapes_are_checked_under_jit():
    with pytest.raises(ValueError, match=r"masks must be \[N, 8, 6\]"):
        jax.jit(Predictor(small_classifier()))(IMAGE, MASKS[:, :4])


@pytest.fixture(scope="module")
def resnet():
    module = ResNet((1, 1), BasicBlock, num_classes=3, width=4)
    rng = np.random.default_rng(0)
    shapes = abstract_variables(module)
    variables = {
        "params": jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), shapes["params"]
        ),
        "batch_stats": jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes["batch_stats"]),
    }
    return Classifier(variables, module, Preprocessing(resize=None, crop=None))


@pytest.mark.parametrize("removal", REMOVALS, ids=repr)
def test_a_real_network_never_reads_what_is_hidden(resnet, removal):
    rng = np.random.default_rng(1)
    image, masks = rng.random((16, 20, 3)).astype(np.float32), rng.random((3, 16, 20)) < 0.5
    masks[:, 4:12, 4:16] = False
    dirty = image.copy()
    dirty[5, 5], dirty[6, 6] = np.nan, np.inf
    clean = evaluate(Predictor(resnet, removal), image, masks)
    assert np.isfinite(clean).all()
    assert abs(clean[0] - clean[1]).max() > 1e-6
    np.testing.assert_array_equal(evaluate(Predictor(resnet, removal), dirty, masks), clean)


def test_a_name_is_no_classifier():
    with pytest.raises(ValueError, match=r"not its name; lmjax.models.load\('resnet18'\) loads"):
        Predictor("resnet18", "grey")
