"""A network of one's own, registered by name: loaded, explained, trained, shown."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import linen as nn

import lmjax
from lmjax.masking import layers
from lmjax.models import NetworkInfo, Preprocessing, checkpoints, registry
from lmjax.models.layers import Network, relu
from lmjax.training import TrainingConfig

PREPROCESSING = Preprocessing(resize=24, crop=24, mean=(0.5,) * 3, std=(0.5,) * 3)
IMAGE = np.random.default_rng(0).random((24, 24, 3)).astype(np.float32)


class Tiny(Network):
    """A convolution, a norm and a dense layer."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, inputs):
        x = relu(self.norm(name="bn")(self.conv(8, 3, 2, name="conv")(self.begin(inputs))))
        return self.classify(layers.global_average_pool(x), "fc")


class OfOneSize(Tiny):
    """A network for images of one size."""

    image_size: int = 16


@pytest.fixture
def register():
    before = set(registry.names())
    yield lmjax.models.register
    for name in set(registry.names()) - before:
        registry._registry().unregister(name)


@pytest.fixture
def weights(tmp_path):
    module = Tiny()
    target = checkpoints.abstract_variables(module)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: abs(rng.normal(size=leaf.shape)) + 0.1, target)
    path = tmp_path / "tiny.safetensors"
    checkpoints.save_safetensors(path, checkpoints.to_state_dict(variables))
    return path


def logits_in_numpy(path, image):
    """Oracle: the network of a state dict, position by position."""
    state = checkpoints.read_state_dict(path)
    padded = np.pad((image - 0.5) / 0.5, ((1, 1), (1, 1), (0, 0)))
    kernel = state["conv.weight"].transpose(2, 3, 1, 0)
    x = np.empty((12, 12, 8))
    for i, j in np.ndindex(12, 12):
        window = padded[2 * i : 2 * i + 3, 2 * j : 2 * j + 3]
        x[i, j] = np.einsum("ijc,ijco->o", window, kernel)
    scale = state["bn.weight"] / np.sqrt(state["bn.running_var"] + 1e-5)
    x = np.maximum((x - state["bn.running_mean"]) * scale + state["bn.bias"], 0)
    return x.mean(axis=(0, 1)) @ state["fc.weight"].T + state["fc.bias"]


def test_it_is_loaded_by_name(register, weights):
    register("tiny", Tiny, description="a tiny network", preprocessing=PREPROCESSING)
    assert lmjax.models.names()[-1] == "tiny"
    assert lmjax.models.description("tiny") == "a tiny network"
    classifier = lmjax.models.load("tiny", weights=weights)
    logits = lmjax.Predictor(classifier, "grey")(IMAGE, np.ones((1, 24, 24), bool))[0]
    np.testing.assert_allclose(logits, logits_in_numpy(weights, IMAGE), rtol=1e-4)
    assert classifier.class_names is None
    assert classifier.preprocessing == PREPROCESSING
    with pytest.raises(ValueError, match=r"no weights of tiny come with the package.*\(none\)"):
        lmjax.models.load("tiny")


def test_facts_are_read_off_the_module(register):
    register("tiny", Tiny, description="")
    register("sized", OfOneSize, description="")
    facts = registry.network("tiny")
    counted = 3 * 3 * 3 * 8 + 2 * 8 + 8 * 3 + 3
    assert (facts.num_parameters, facts.num_classes) == (counted, 3)
    assert (facts.where, facts.fixed_size) == ("layers", False)
    assert facts.engines == ("dense", "visible", "shared")
    assert registry.network("sized").fixed_size
    for name in ("resnet18", "vit_b_32"):
        facts = registry.network(name)
        is_transformer = name.startswith("vit")
        assert facts.fixed_size == is_transformer
        assert facts.where == ("tokens" if is_transformer else "layers")
        assert facts.num_classes == 1000
        counted = dataclasses.replace(facts, parameters=None).num_parameters
        assert counted == facts.parameters == facts.num_parameters


def test_weights_and_class_names_of_its_own(register, weights):
    names = ("cat", "dog", "bird")
    options = {"preprocessing": PREPROCESSING, "class_names": list(names), "weights": weights}
    register("tiny", Tiny, description="", **options)
    classifier = lmjax.models.load("tiny")
    assert classifier.class_names == names
    masked = lmjax.models.load("tiny", masking=lmjax.LayerMasking(depth=0))
    assert masked.masking.depth == 0
    engines = {}
    masks = np.random.default_rng(1).random((8, 24, 24)) < 0.5
    for engine in ("dense", "visible"):
        predictor = lmjax.Predictor(classifier)
        engines[engine] = lmjax.evaluate(predictor, IMAGE, masks, engine=engine)
    np.testing.assert_allclose(engines["visible"], engines["dense"], rtol=1e-4, atol=1e-5)


def test_a_network_of_one_size_is_built_for_its_crop(register, weights):
    register("sized", OfOneSize, description="", preprocessing=PREPROCESSING, weights=weights)
    assert lmjax.models.load("sized").module.image_size == 24
    with pytest.raises(ValueError, match="must have a crop: sized takes images of one size"):
        lmjax.models.load("sized", preprocessing=Preprocessing(resize=None, crop=None))


def test_it_is_trained_by_name(register, tmp_path):
    register("tiny", Tiny, description="", preprocessing=PREPROCESSING)

    @dataclasses.dataclass
    class Example:
        id: str
        image: np.ndarray
        label: int
        object_mask: None = None

    class Colours:
        version = "colours-1"

        def __len__(self):
            return 32

        def __getitem__(self, i):
            label = i % 3
            image = np.random.default_rng(i).integers(0, 60, (24, 24, 3), np.uint8)
            image[..., label] += 150
            return Example(str(i), image, label)

    config = TrainingConfig(
        epochs=15,
        batch_size=16,
        learning_rate=0.2,
        augmentations=("patches:gray", "cutout:no_padding"),
    )

    class OtherColours(Colours):
        version = "colours-2"

        def __getitem__(self, i):
            return super().__getitem__(i + len(self))

    options = {"config": config, "test": OtherColours(), "num_classes": 3, "progress": False}
    path = lmjax.training.train("tiny", Colours(), output=tmp_path / "run", **options)
    assert path.name == "tiny.safetensors"
    metadata = checkpoints.read_metadata(path)
    assert metadata["settings"]["augmentations"] == ["patches:grey", "cutout:no_padding"]
    assert metadata["test_accuracy"] > 0.9
    assert lmjax.models.load("tiny", weights=path.parent).module.num_classes == 3


def test_checkpoints_of_another_network_are_still_recognised(register, weights):
    register("tiny", Tiny, description="")
    with pytest.raises(checkpoints.StateDictMismatch, match=r"conv\.weight"):
        lmjax.models.load("resnet18", weights=weights)


@pytest.mark.parametrize(
    ("name", "build", "message"),
    [
        ("resnet50", Tiny, "'resnet50' comes with lmjax"),
        ("a=b", Tiny, "network name must be a word"),
        ("tiny", "Tiny", "build must be a function"),
    ],
)
def test_what_cannot_be_registered(register, name, build, message):
    with pytest.raises(ValueError, match=message):
        register(name, build, description="")


def test_other_modules_are_refused(register, weights):
    register("dense", lambda **options: nn.Dense(3), description="no Network")
    with pytest.raises(ValueError, match=r"'dense' must be .*layers\.Network.*Dense"):
        lmjax.models.load("dense", weights=weights)


PACKAGE = '''
from lmjax.models import NetworkInfo, Preprocessing
from tests.models.test_own_network import Tiny


def plain(**options):
    """A network, by its constructor."""
    return Tiny(**options)


told = NetworkInfo("told", Tiny, Preprocessing(crop=24), ("a", "b", "c"), "a network, by its facts")
'''


def test_packages_join_by_entry_points(tmp_path, monkeypatch):
    (tmp_path / "tiny_package.py").write_text(PACKAGE)
    metadata = tmp_path / "tiny_package-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-package\nVersion: 1.0\n")
    entry_points = "[lmjax.networks]\nplain = tiny_package:plain\ntold = tiny_package:told\n"
    (metadata / "entry_points.txt").write_text(entry_points)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"plain", "told"} <= set(lmjax.models.names())
    assert registry.network("plain").num_classes == 3
    assert lmjax.models.description("plain") == "A network, by its constructor."
    assert isinstance(registry.network("told"), NetworkInfo)
    assert registry.network("told").class_names == ("a", "b", "c")
    assert lmjax.models.description("told") == "a network, by its facts"
    for name in ("plain", "told"):
        registry._registry().unregister(name)
