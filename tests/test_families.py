"""Attribution, metrics, the explain command and studies, on a network of every family."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

import lmjax
from lmjax.models import Classifier, Preprocessing, checkpoints
from lmjax.models.networks.vit import VisionTransformer
from lmjax.studies import FeatureLinearity, MaskShape
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from tests.studies import fakes
from tests.support.compilations import quick_jit
from tests.support.networks import SMALLEST
from tests.support.torch_reference import build, ported, to_torch

SIZE = 64
SEEN = Preprocessing(resize=SIZE, crop=SIZE)
TRANSFORMER = "vit"
# A family whose last layer is a convolution, and one that drops tokens.
QUICK = "squeezenet1_1", TRANSFORMER
FAMILIES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in (*SMALLEST, TRANSFORMER)
]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Unsure(Classifier):
    """What a network answers, less what it always does, in a third of how much images change it.

    Random networks prefer some class whatever they see, and are sure of it.
    """

    usual: jax.Array = 0.0
    change: jax.Array = 1.0

    def _run(self, inputs, masking):
        return (super()._run(inputs, masking) - self.usual) / self.change


def rounding(classifier) -> float:
    """How exact probabilities are: logits are to some 2e-7 of the largest."""
    if not isinstance(classifier, Unsure):
        return 1e-5
    return 1e-5 + 5e-7 * float(jnp.abs(classifier.usual).max() / classifier.change)


def small_transformer() -> Classifier:
    module = VisionTransformer(
        patch_size=16, layers=2, heads=2, width=32, image_size=SIZE, num_classes=9
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(scale=0.3, size=leaf.shape), leaf.dtype),
        checkpoints.abstract_variables(module),
    )
    return Classifier(variables, module, SEEN)


@pytest.fixture(scope="module", params=FAMILIES)
def classifier(request):
    """A random network that sees 64 x 64 pixels."""
    if request.param == TRANSFORMER:
        return small_transformer()
    original = build(request.param, seed=3)
    module, variables = ported(request.param, original)
    variables = jax.tree.map(jnp.asarray, variables)
    colours = np.random.default_rng(0).normal(size=(4, 4, 4, 3))
    images = np.kron(colours, np.ones((1, SIZE // 4, SIZE // 4, 1))).astype(np.float32)
    with torch.no_grad():  # whose logits are those of the network here
        logits = original(to_torch(images)).numpy()
    usual = logits.mean(axis=0, keepdims=True)
    return Unsure(variables, module, SEEN, usual=usual, change=(logits - usual).std() / 3)


@quick_jit
def probabilities(classifier, image, masks):
    """`[N, K]` of an image in [0, 1] under its masks, by the network itself."""
    images = jnp.broadcast_to(classifier.normalise(image), (len(masks), *image.shape))
    return jax.nn.softmax(classifier.apply(images, masks))


def test_explain_and_metrics(classifier, tmp_path):
    transformer = classifier.masking == lmjax.TokenDropping()
    options = {
        "model": classifier,
        "segmenter": "grid",
        "removal": ("masking",),
        "batch_size": 17,
        "output": tmp_path / "a.png",
    }
    gradients = "gradient" if transformer else "gradcam"
    explanation = lmjax.explain(method=["leave_one_out", gradients], **options)
    assert (tmp_path / "a.png").stat().st_size > 0

    found = explanation.results["leave_one_out", "masking"].attribution
    image, segments = explanation.image.pixels, explanation.segments
    removed = segments != np.arange(segments.max() + 1)[:, None, None]
    masks = np.concatenate([np.ones((1, SIZE, SIZE), bool), removed])
    whole, *without = np.asarray(probabilities(classifier, image, masks))[:, found.target]
    tolerance = rounding(classifier)
    np.testing.assert_allclose(found.scores, whole - np.array(without), atol=tolerance)
    assert np.ptp(found.scores) > 5 * tolerance  # segments are seen
    curve = lmjax.metrics.deletion(
        lmjax.Evaluator(lmjax.Predictor(classifier), batch_size=17),
        image,
        found.scores,
        target=found.target,
        segments=segments,
    )
    expected = [whole, without[found.scores.argmax()]]
    np.testing.assert_allclose(curve.values[:2], expected, atol=tolerance)

    if transformer:
        with pytest.raises(ValueError, match=r"a transformer cannot be cut.*Grad-CAM takes conv"):
            lmjax.explain(method=["gradcam"], **options)
    heatmap = explanation.results[gradients, "whole"].attribution.heatmap
    assert np.isfinite(heatmap).all()
    assert heatmap.min() >= 0


def test_studies_of_convolutional_networks_and_transformers(classifier):
    networks = {"this": classifier, "transformer": small_transformer()}
    batch = ImageBatch([read_sample(fakes.Source(2), 1)], networks, key=jax.random.key(0))
    study = MaskShape(removals=("masking",), margins=(0,))
    study.check(networks)
    rows = fakes.pick(study.rows(batch), hole="object")
    assert [row["network"] for row in rows] == list(networks)
    for row in rows:
        network = row["network"]
        image, hidden = batch.images(network)[0], batch.object_masks(network)
        (expected,) = np.asarray(probabilities(networks[network], image, ~hidden))
        tolerance = rounding(networks[network])
        assert row["probability"] == pytest.approx(expected.max(), abs=tolerance)
        assert expected[row["prediction"]] >= expected.max() - tolerance

    # What goes into the last layer
    for row in FeatureLinearity(removals=("masking",), sizes=(32,)).rows(batch):
        assert np.isfinite([row["cosine"], row["effect_distance"]]).all()
        assert min(row["norm"], row["norm_together"]) > 0
