"""Vision transformers: strict porting of both layouts, parity, and token dropping."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import linen as nn

import lmjax
from lmjax.masking import Masked
from lmjax.masking.sparse.positions import Layout
from lmjax.models import Classifier, Preprocessing, checkpoints, load, registry
from lmjax.models.networks.vit import VisionTransformer
from lmjax.removals import LayerMasking, TokenDropping
from tests.support.compilations import quick_jit
from tests.support.networks import EVERY_TRANSFORMER, TRANSFORMERS
from tests.support.torch_reference import (
    build,
    parity,
    ported,
    published_parameters,
    random_images,
    randomised,
    state_dict,
    timm,
    to_torch,
    torchvision,
)

TOLERANCE = 1e-4
SIZE, PATCH, DEPTH, HEADS, WIDTH, CLASSES = 64, 16, 2, 2, 32, 5
MODULE = VisionTransformer(
    patch_size=PATCH, layers=DEPTH, heads=HEADS, width=WIDTH, image_size=SIZE, num_classes=CLASSES
)


def torchvisions():
    return torchvision.models.VisionTransformer(
        SIZE, PATCH, DEPTH, HEADS, WIDTH, 4 * WIDTH, num_classes=CLASSES
    )


def timms():
    return timm.models.VisionTransformer(
        SIZE, PATCH, depth=DEPTH, num_heads=HEADS, embed_dim=WIDTH, num_classes=CLASSES
    )


ORIGINALS = {"torchvision": torchvisions, "timm": timms}


@pytest.fixture(scope="module", params=ORIGINALS)
def original(request):
    """A small transformer of torchvision's or timm's making."""
    with torch.random.fork_rng():
        return randomised(ORIGINALS[request.param](), seed=0)


def ported_to(module, model):
    state = checkpoints.rename(state_dict(model), registry.network("vit_b_16").renamed)
    return checkpoints.to_variables(state, checkpoints.abstract_variables(module))


@pytest.fixture(scope="module")
def variables(original):
    return ported_to(MODULE, original)


@partial(quick_jit, static_argnames="module")
def logits(variables, images, masks, module=MODULE):
    return module.apply(variables, Masked(images, masks))


def on_tokens(model, image, kept):
    """torch's answer to the class token and the kept ones `[h, w]` of an image: nothing else."""
    chosen = [0, *(1 + np.flatnonzero(kept))]
    image = to_torch(image[None])
    with torch.inference_mode():
        if isinstance(model, torchvision.models.VisionTransformer):
            tokens = torch.cat([model.class_token, model._process_input(image)], dim=1)
            tokens = (tokens + model.encoder.pos_embedding)[:, chosen]
            return model.heads(model.encoder.ln(model.encoder.layers(tokens))[:, 0])[0].numpy()
        tokens = model._pos_embed(model.patch_embed(image))[:, chosen]
        return model.forward_head(model.norm(model.blocks(tokens)))[0].numpy()


def random_masks(count=4, seed=0):
    """Masks that cut through patches, beside nothing and everything; and the tokens they keep."""
    kept = np.random.default_rng(seed).random((count, SIZE // PATCH, SIZE // PATCH)) < 0.5
    kept[0], kept[1] = False, True
    masks = kept.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
    # Patches that are partly visible are dropped: one pixel of each of them is hidden.
    masks = masks | ~kept.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
    masks[:, 5::PATCH, 9::PATCH] &= kept
    masks[0] = False
    return masks, kept


def test_token_dropping_is_the_transformer_on_the_kept_tokens(original, variables):
    image = random_images((SIZE, SIZE, 3), seed=1)
    masks, kept = random_masks()
    images = np.broadcast_to(image, (len(masks), *image.shape))
    expected = np.stack([on_tokens(original, image, each) for each in kept])
    largest = np.abs(expected).max()
    found = np.asarray(logits(variables, images, masks))
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * largest)
    assert np.abs(found[1:] - found[0]).max(axis=1).min() > 1e-2 * largest  # images are seen
    # everything visible is the plain network, torch's
    with torch.inference_mode():
        plain = original(to_torch(image[None])).numpy()
    np.testing.assert_allclose(logits(variables, image[None], None), plain, atol=1e-5 * largest)
    np.testing.assert_allclose(found[1], plain[0], atol=1e-5 * largest)
    # what lies under dropped tokens is never read, bit for bit; nor hidden pixels alone
    dropped = ~kept.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
    for hidden, poison in ((dropped, np.nan), (~masks, np.inf)):
        poisoned = np.where(hidden[..., None], np.float32(poison), images)
        np.testing.assert_array_equal(logits(variables, poisoned, masks), found)
    # vmap with masks as data
    mapped = jax.vmap(lambda m: logits(variables, jnp.asarray(image)[None], m[None])[0])(masks)
    np.testing.assert_allclose(mapped, found, atol=1e-5 * largest)


def test_gradients_are_finite_and_zero_under_dropped_tokens(classifier):
    masks, kept = random_masks()
    image = random_images((SIZE, SIZE, 3), seed=1)
    images = np.where(masks[..., None], image, np.float32(np.nan))
    variables = classifier.variables

    @quick_jit
    def gradients(variables, images):
        def loss(variables, images):
            return MODULE.apply(variables, Masked(images, jnp.asarray(masks)))[:, 1].sum()

        return jax.grad(loss, argnums=(0, 1))(variables, images)

    by_weight, by_image = gradients(variables, jnp.asarray(images))
    chex.assert_tree_all_finite((by_weight, by_image))
    read = kept.repeat(PATCH, axis=1).repeat(PATCH, axis=2)
    assert not np.asarray(by_image)[~read].any()
    assert np.asarray(by_image)[read].any()
    chex.assert_trees_all_equal((by_weight, by_image), gradients(variables, jnp.nan_to_num(images)))


def test_stage_by_stage(original, variables):
    images = random_images((2, SIZE, SIZE, 3), seed=2)
    theirs = {}
    for name, module in original.named_modules():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: theirs.setdefault(name, output)
        )
    with torch.inference_mode():
        original(to_torch(images))
    theirs = {f"{name}.kernel": value for name, value in theirs.items()}
    theirs = checkpoints.rename(theirs, registry.network("vit_b_16").renamed)

    def keep(ours, call, args, kwargs, context):
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            value = output.x if isinstance(output, Masked) else output
            ours[".".join((*context.module.path, "kernel"))] = value
        return output

    @quick_jit
    def stages(variables, images):
        ours = {}
        with nn.intercept_methods(partial(keep, ours)):
            MODULE.apply(variables, Masked(images))
        return ours

    ours, compared = stages(variables, images), 0
    for name in ours.keys() & theirs.keys():
        value, expected = theirs[name], np.asarray(ours[name])
        value = value[0] if isinstance(value, tuple) else value  # of torch's attention
        value = value.numpy()
        if name == "conv_proj.kernel" and value.ndim == 4:
            value = value.transpose(0, 2, 3, 1)
        if value.size == expected.size:
            compared += 1
            value = value.reshape(expected.shape)
            assert np.abs(value - expected).max() <= TOLERANCE * np.abs(expected).max(), name
    assert compared == 6 * DEPTH + 3


@pytest.mark.parametrize("name", EVERY_TRANSFORMER)
def test_every_transformer_ports(name):
    """Strictly, and as large as it is published."""
    _, variables = ported(name, build(name, seed=0))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables))
    assert count == registry.network(name).parameters == published_parameters(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_logits_of_every_transformer(name):
    assert parity(name, size=(224, 224)).error <= TOLERANCE


def test_torch_takes_back_what_it_gave(classifier):
    back = torchvisions()
    tensors = checkpoints.to_state_dict(classifier.variables)
    back.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()}, strict=True)
    images = random_images((1, SIZE, SIZE, 3), seed=3)
    with torch.inference_mode():
        expected = back.eval()(to_torch(images)).numpy()
    found = logits(classifier.variables, images, None)
    np.testing.assert_allclose(found, expected, atol=TOLERANCE * np.abs(expected).max())


# -- the classifier around it


@pytest.fixture(scope="module")
def classifier():
    """A small one."""
    variables = ported_to(MODULE, randomised(torchvisions(), seed=0))
    return Classifier(jax.device_put(variables), MODULE, Preprocessing(SIZE, SIZE))


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32)


def test_masks_drop_tokens_by_default(classifier, picture):
    masks, _ = random_masks()
    images = np.broadcast_to(classifier.normalise(picture), (len(masks), *picture.shape))
    expected = logits(classifier.variables, images, masks)
    assert classifier.masking == TokenDropping()
    found = quick_jit(lambda c, *given: c.apply(*given))(classifier, images, masks)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    predictor = lmjax.Predictor(classifier, lmjax.TokenDropping())
    assert lmjax.Predictor(classifier).removal == predictor.removal
    for engine in ("dense", "auto"):
        found = lmjax.evaluate(predictor, picture, masks, batch_size=2, engine=engine)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="engine 'visible' needs"):
        lmjax.evaluate(predictor, picture, masks, engine="visible")


def test_what_does_not_fit_a_transformer(classifier, picture):
    masks = np.ones((1, SIZE, SIZE), bool)
    with pytest.raises(ValueError, match=r"TokenDropping\(\) in a transformer, got LayerMasking"):
        lmjax.Predictor(classifier, LayerMasking())(picture, masks)
    with pytest.raises(ValueError, match=r"in a transformer, got PartialConvolution"):
        MODULE.clone(masking=lmjax.PartialConvolution()).apply(classifier.variables, Masked(masks))
    with pytest.raises(ValueError, match="full-size activations only"):
        classifier.apply_on_visible(picture[None], masks, Layout(num_variants=1))
    with pytest.raises(ValueError, match=r"images must be 64 x 64 .*got 48 x 64"):
        classifier.apply(picture[None, :48])
    with pytest.raises(ValueError, match="a transformer cannot be cut"):
        classifier.cut()


def test_attributions_under_token_dropping(classifier, picture):
    segments = np.kron(np.arange(4).reshape(2, 2), np.ones((32, 32), int))
    evaluator = lmjax.Evaluator(lmjax.Predictor(classifier), batch_size=8)
    found = lmjax.attribution.leave_one_out(evaluator, picture, segments, target=1)
    masks = np.stack([segments >= 0, *(segments != i for i in range(4))])
    images = np.broadcast_to(classifier.normalise(picture), (5, *picture.shape))
    answers = jax.nn.softmax(logits(classifier.variables, images, masks))[:, 1]
    np.testing.assert_allclose(found.scores, answers[0] - answers[1:], atol=1e-5)
    curve = lmjax.metrics.deletion(evaluator, picture, found.heatmap, target=1)
    np.testing.assert_allclose(curve.values[0], answers[0], atol=1e-5)


# -- loading


def test_the_image_size_follows_the_preprocessing(tmp_path, monkeypatch):
    small = {"patch_size": PATCH, "layers": DEPTH, "heads": HEADS, "width": WIDTH}
    monkeypatch.setattr("lmjax.models.networks.vit.vit_b_16", partial(VisionTransformer, **small))
    weights = tmp_path / "small.safetensors"
    checkpoints.save_safetensors(weights, state_dict(timms()))
    options = {"weights": weights, "num_classes": CLASSES}
    with pytest.raises(ValueError, match=r"crop is 4 patches wide \(now 14\)"):
        load("vit_b_16", **options)
    with pytest.raises(ValueError, match="preprocessing must have a crop"):
        load("vit_b_16", **options, preprocessing=Preprocessing(None, None))
    with pytest.raises(ValueError, match=r"masking must be lmjax.TokenDropping"):
        load("vit_b_16", **options, masking=LayerMasking())
    found = load("vit_b_16", **options, preprocessing=Preprocessing(70, SIZE))
    assert found.module.image_size == SIZE
    images = np.zeros((1, SIZE, SIZE, 3), np.float32)
    assert jax.eval_shape(found.apply, images).shape == (1, CLASSES)


def test_older_files_of_torchvision(classifier):
    state = checkpoints.to_state_dict(classifier.variables)
    for new, old in ((".mlp.0.", ".mlp.linear_1."), (".mlp.3.", ".mlp.linear_2.")):
        state = {key.replace(new, old): value for key, value in state.items()}
    renamed = checkpoints.rename(state, registry.network("vit_b_16").renamed)
    target = checkpoints.abstract_variables(MODULE)
    chex.assert_trees_all_equal(checkpoints.to_variables(renamed, target), classifier.variables)
