"""Removals by name: those of lmjax, those that are registered, those of entry points."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import lmjax
from lmjax import removals
from lmjax.removals.registry import REGISTRY
from tests.support.optional import marked
from tests.support.small_classifier import small_classifier

RNG = np.random.default_rng(0)
IMAGE = RNG.random((8, 6, 3)).astype(np.float32)
MASKS = RNG.random((5, 8, 6)) < 0.5
SEGMENTS = np.arange(48).reshape(8, 6) // 16
FILLS = ("ring", "harmonic", "noisy_linear", "histogram", "biharmonic")
FILLS = (*FILLS, "telea", "navier_stokes", "samples")
INSIDE = ("layer", "no_padding", "partial", "token_dropping", "masking")


@pytest.mark.parametrize(
    "name", marked([*removals.names(), "gray", "layer@2", "no_padding@0", "partial@1"])
)
def test_every_name_makes_a_removal(name):
    removal = removals.make(name, key=jax.random.key(0), segments=SEGMENTS)
    image = np.full((8, 6, 3), 0.5, np.float32)
    logits = lmjax.Predictor(small_classifier(), removal)(image, np.ones((1, 8, 6), bool))
    assert logits.shape == (1, 4)


def test_depths_and_colours():
    assert removals.make("layer") == lmjax.LayerMasking()
    assert removals.make("layer@2") == lmjax.LayerMasking(depth=2)
    assert removals.make("no_padding@3") == lmjax.LayerMasking(padding="none", depth=3)
    assert removals.make("partial@1") == lmjax.PartialConvolution(depth=1)
    np.testing.assert_array_equal(removals.make("green").baseline, [0, 1, 0])
    assert removals.make("token_dropping") == lmjax.TokenDropping()
    assert removals.check_name("no_padding@3") == ("no_padding", 3)
    assert removals.check_name("black") == ("black", None)


def test_masking_is_the_networks_own():
    @dataclasses.dataclass
    class Network:
        masking: object

    for own in (lmjax.TokenDropping(), lmjax.LayerMasking(depth=2)):
        assert lmjax.Predictor(Network(own), removals.make("masking")).removal is own
        assert lmjax.Predictor(Network(own), "masking").removal is own


def test_american_spelling():
    assert removals.make("gray").baseline == "grey"
    assert removals.canonical("gray") == "grey"
    assert removals.canonical("gray_smooth") == "grey_smooth"
    assert removals.canonical("layer@2") == "layer@2"
    with pytest.raises(ValueError, match="'grey' comes with lmjax"):
        removals.register("gray", lambda: lmjax.Replace("black"), description="")


def test_titles_and_descriptions():
    assert removals.title("layer@2") == "layer masking, depth 2"
    assert removals.title("grey_smooth") == "grey smooth"
    assert removals.title("gray") == "grey"
    assert len({removals.description(name) for name in removals.names()}) == len(removals.names())
    assert removals.description("layer@2") == removals.description("layer")


def test_what_is_asked_of_names():
    names = removals.names()
    assert {name for name in names if not removals.paints(name)} == set(INSIDE)
    seeing_the_mask = {*INSIDE, *FILLS}
    assert {name for name in names if removals.soft_masks(name)} == set(names) - seeing_the_mask
    assert [name for name in names if removals.needs_segments(name)] == ["segment_mean"]
    random = ["gaussian_noise", "uniform_noise", "noisy_linear", "histogram", "samples"]
    assert [name for name in names if removals.needs_key(name)] == random


@pytest.mark.parametrize(
    ("name", "needs"), [("uniform_noise", "key"), ("segment_mean", "segments")]
)
def test_what_is_missing_is_an_error_that_says_how_to_give_it(name, needs):
    with pytest.raises(ValueError, match=rf"lmjax\.removals\.make\('{name}', {needs}="):
        removals.make(name)
    with pytest.raises(ValueError, match=rf"{name}' needs .*{needs}="):
        lmjax.Predictor(small_classifier(), name)


@pytest.mark.parametrize(
    ("own", "fits"),
    [
        (lmjax.LayerMasking(depth=1), {"layer", "layer@2", "no_padding", "partial"}),
        (lmjax.TokenDropping(), {"token_dropping"}),
    ],
)
def test_what_fits_a_network(own, fits):
    for name in (*INSIDE, "layer@2", "grey", "segment_mean"):
        if name in fits or name in ("masking", "grey", "segment_mean"):
            removals.check_fits(name, own)
        else:
            with pytest.raises(ValueError, match=f"removal {name} does not go through a .*; take "):
                removals.check_fits(name, own)


@pytest.mark.parametrize(
    "name",
    ["blak", "black@2", "masking@2", "token_dropping@2", "layer@", "layer@-1", "layer@1.5", ""],
)
def test_other_names_are_errors(name):
    with pytest.raises(ValueError, match="removal must be one of layer, "):
        removals.make(name)
    with pytest.raises(ValueError, match="fill must be one of layer, "):
        removals.check_name(name, argument="fill")


def test_errors_hint_at_the_name_that_was_meant():
    with pytest.raises(ValueError, match="got 'blak'; did you mean black"):
        removals.make("blak")
    with pytest.raises(ValueError, match=r"one of layer@2, no_padding@2, partial@2; got 'black@2'"):
        removals.make("black@2")


# -- of one's own


@dataclasses.dataclass(frozen=True)
class Dimmed(lmjax.Removal):
    """Hidden pixels are dimmed, `depth` times by half."""

    depth: int = 1

    def logits(self, classifier, image, masks):
        dimmed = image[None] * 0.5**self.depth
        images = jnp.where(masks[..., None], image[None], dimmed)
        return classifier.apply(classifier.normalise(images))


@pytest.fixture
def register():
    before = set(REGISTRY)
    yield removals.register
    for name in set(REGISTRY) - before:
        REGISTRY.unregister(name)


def dimmed_logits(classifier, factor):
    """Oracle: pixel by pixel."""
    images = np.repeat(IMAGE[None], len(MASKS), axis=0)
    images[~MASKS] *= factor
    mean, std = classifier.preprocessing
    weights = np.asarray(classifier.weights, np.float64)
    return np.tanh(np.einsum("nhwc,hwck->nk", (images - mean) / std, weights))


def test_a_registered_removal_is_one_like_any_other(register):
    register("dimmed", Dimmed, description="hidden pixels at half their brightness")
    assert removals.names()[-1] == "dimmed"
    assert removals.title("dimmed@2") == "dimmed, depth 2"
    assert removals.description("dimmed").startswith("hidden pixels")
    assert removals.paints("dimmed")
    assert not removals.soft_masks("dimmed")
    classifier = small_classifier()
    for name, factor in (("dimmed", 0.5), ("dimmed@2", 0.25)):
        logits = lmjax.evaluate(lmjax.Predictor(classifier, name), IMAGE, MASKS)
        np.testing.assert_allclose(logits, dimmed_logits(classifier, factor), atol=1e-5)


def test_it_is_given_what_its_signature_takes(register):
    given = {}

    def both(*, key, segments=None):
        given.update(key=key, segments=segments)
        return lmjax.Replace("black")

    register("both", both, description="")
    register("neither", lambda scale=1: given.update(scale=scale) or Dimmed(), description="")
    key = jax.random.key(3)
    removals.make("both", key=key, segments=SEGMENTS)
    assert given["key"] is key
    assert given["segments"] is SEGMENTS
    assert (removals.needs_key("both"), removals.needs_segments("both")) == (True, False)
    removals.make("neither", key=key, segments=SEGMENTS)
    assert given["scale"] == 1
    assert (removals.needs_key("neither"), removals.needs_segments("neither")) == (False, False)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("black", Dimmed, "'black' comes with lmjax"),
        ("two words", Dimmed, "removal name must be a word"),
        ("at@2", Dimmed, "removal name must be a word"),
        ("mine", Dimmed(), "make must be a function that makes the removal"),
        ("mine", lambda image: image, "make must be a function that makes the removal"),
    ],
)
def test_what_cannot_be_registered(register, name, make, message):
    with pytest.raises(ValueError, match=message):
        register(name, make, description="")


PACKAGE = '''
import lmjax


def hot_pink():
    """Hot pink, in the place of hidden pixels."""
    return lmjax.Replace((1.0, 0.4, 0.7))
'''


def test_packages_join_by_entry_points(tmp_path, monkeypatch):
    (tmp_path / "hot_pink_package.py").write_text(PACKAGE)
    metadata = tmp_path / "hot_pink_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: hot-pink-package\nVersion: 1.0\n"
    )
    entry_points = "[lmjax.removals]\nhot_pink = hot_pink_package:hot_pink\n"
    (metadata / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "hot_pink" in removals.names()
    assert "hot_pink_package" not in sys.modules
    predictor = lmjax.Predictor(small_classifier(), "hot_pink")
    expected = lmjax.Predictor(small_classifier(), lmjax.Replace((1.0, 0.4, 0.7)))
    np.testing.assert_array_equal(predictor(IMAGE, MASKS), expected(IMAGE, MASKS))
    assert removals.description("hot_pink") == "Hot pink, in the place of hidden pixels."
    REGISTRY.unregister("hot_pink")


# -- declared properties


@pytest.mark.parametrize(
    ("removal", "where", "soft_masks", "sparse"),
    [
        (lmjax.LayerMasking(), "layers", False, True),
        (lmjax.PartialConvolution(), "layers", False, True),
        (lmjax.TokenDropping(), "tokens", False, False),
        (lmjax.Replace("grey"), "input", True, False),
        (lmjax.Fill(lambda image, mask, key: image), "input", False, False),
        (lmjax.ReplaceAverage(IMAGE[None]), "input", False, False),
        (Dimmed(), "input", False, False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_removals_declare(removal, where, soft_masks, sparse):
    assert isinstance(removal, lmjax.Removal)
    assert (removal.where, removal.soft_masks, removal.sparse) == (where, soft_masks, sparse)
    predictor = lmjax.Predictor(small_classifier(), removal)
    assert predictor.soft_masks == soft_masks
    assert predictor.engines == ("dense",)  # of this classifier, which knows no other
    again = jax.tree.unflatten(jax.tree.structure(predictor), jax.tree.leaves(predictor))
    assert again.soft_masks == soft_masks


def test_what_paints_is_told_by_protocol():
    assert isinstance(lmjax.Replace("grey"), removals.Painting)
    assert isinstance(lmjax.Fill(lambda image, mask, key: image), removals.Painting)
    for removal in (lmjax.LayerMasking(), lmjax.ReplaceAverage(IMAGE[None]), Dimmed()):
        assert not isinstance(removal, removals.Painting)
    assert not isinstance("grey", lmjax.Removal)
