"""A package of somebody else adds a removal, a method and a network, and everything takes them."""

import json

import jax
import numpy as np
import pytest

import lmjax
from lmjax.cli.main import main
from lmjax.models import checkpoints, registry

NAME = "outsiders_package"
CODE = '''
from flax import linen as nn

import lmjax
from lmjax.masking import layers
from lmjax.models import NetworkInfo, Preprocessing
from lmjax.models.layers import Network, relu


def magenta():
    """Magenta in the place of hidden pixels."""
    return lmjax.Replace((1.0, 0.0, 1.0))


def alone(predictor, image, segments, *, target=None):
    """What each segment adds, shown alone."""
    return lmjax.attribution.leave_one_in(predictor, image, segments, target=target)


class Tiny(Network):
    """A convolution, a norm and a dense layer."""

    num_classes: int = 10

    @nn.compact
    def __call__(self, inputs):
        x = relu(self.norm(name="bn")(self.conv(8, 3, 2, name="conv")(self.begin(inputs))))
        return self.classify(layers.global_average_pool(x), "fc")


tiny = NetworkInfo(
    "outsiders_tiny",
    Tiny,
    Preprocessing(resize=32, crop=32, mean=(0.5,) * 3, std=(0.5,) * 3),
    tuple("0123456789"),
    "A network of one convolution.",
)
'''
ENTRY_POINTS = f"""
[lmjax.removals]
outsiders_magenta = {NAME}:magenta

[lmjax.methods]
outsiders_alone = {NAME}:alone

[lmjax.networks]
outsiders_tiny = {NAME}:tiny
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The package, found by its metadata alone; nothing of lmjax imports it."""
    (tmp_path / f"{NAME}.py").write_text(CODE)
    metadata = tmp_path / f"{NAME}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LMJAX_COMPILATION_CACHE", "0")
    module = registry.network("outsiders_tiny").build()
    rng = np.random.default_rng(0)
    abstract = checkpoints.abstract_variables(module)
    variables = jax.tree.map(lambda leaf: abs(rng.normal(size=leaf.shape)) + 0.1, abstract)
    checkpoints.save_safetensors("tiny.safetensors", checkpoints.to_state_dict(variables))
    yield tmp_path
    for each in (lmjax.removals.registry.REGISTRY, lmjax.attribution.methods._REGISTRY):
        for name in ("outsiders_magenta", "outsiders_alone"):
            each._entries.pop(name, None)
    registry._registry()._entries.pop("outsiders_tiny", None)


def test_what_others_add_goes_everywhere(package, capsys):
    assert "outsiders_magenta" in lmjax.removals.names()
    assert "outsiders_tiny" in lmjax.models.names()
    model = ["--model", "outsiders_tiny", "--weights", "tiny.safetensors"]
    asked = ["--method", "outsiders_alone", "lime", "--removal", "outsiders_magenta", "layer"]
    main(["explain", *model, *asked, "--num-samples", "40", "--segmenter", "grid"])
    record = json.loads((package / "explanation.json").read_text())
    assert {f"{m}/{r}" for m in asked[1:3] for r in asked[4:]} == set(record["results"])

    settings = ["--removals", "outsiders_magenta", "layer", "--orders", "random"]
    networks = ["--models", "outsiders_tiny=tiny.safetensors", "--images", "2", "--output", "study"]
    main(["study", "removal", *settings, *networks, "--fractions", "0", "0.5", "1"])
    _, table, errors = lmjax.studies.runner.open_run("study")
    assert not errors
    assert table.num_rows == 2 * 2 * 3
    assert set(table["removal"].to_pylist()) == {"outsiders_magenta", "layer"}

    sizes = ["--epochs", "1", "--images-per-epoch", "16", "--batch-size", "8"]
    where = ["--source", "digit-scenes,split=train", "--output", "training"]
    fill = ["--augmentations", "patches:outsiders_magenta"]
    main(["train", "network", "outsiders_tiny", *where, *sizes, *fill])
    assert (package / "training" / "outsiders_tiny.safetensors").is_file()
    classifier = lmjax.models.load("outsiders_tiny", weights="training")
    assert classifier.class_names == tuple("0123456789")
    capsys.readouterr()
