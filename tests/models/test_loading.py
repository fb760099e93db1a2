"""From a name and weights to a classifier; from a checkpoint to safetensors."""

import hashlib
import http.server
import re
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from lmjax.models import checkpoints, registry
from lmjax.models.download import DownloadError
from lmjax.models.loading import convert, load, load_spec
from lmjax.models.preprocessing import Preprocessing
from lmjax.removals import LayerMasking
from tests.support.torch_reference import build, random_images, state_dict, to_torch


@pytest.fixture(scope="module")
def model():
    return build("resnet18", seed=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model):
    """ResNet-18 as .pth and .safetensors, and one for ten classes."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(model.state_dict(), folder / "resnet18.pth")
    convert(folder / "resnet18.pth", folder / "resnet18.safetensors")
    ten = build("resnet18", seed=1, num_classes=10)
    torch.save(ten.state_dict(), folder / "ten.pth")
    return folder


@pytest.fixture
def published(folder, monkeypatch):
    """The registry, with the fixture's ResNet-18 as IMAGENET1K_V1 of a publisher `test`."""
    body = (folder / "resnet18.pth").read_bytes()
    digits = hashlib.sha256(body).hexdigest()[:8]
    preprocessing = Preprocessing(77, 66, "bicubic")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}/resnet18-{digits}.pth"
        source = registry.WeightSource("test/resnet18.V1", url, digits, "MIT", preprocessing)
        table = {source.tag: source, **registry._sources()}
        monkeypatch.setattr(registry, "_sources", lambda: table)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield source
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("file", ["resnet18.pth", "resnet18.safetensors"])
def test_logits_of_a_file_are_torchs(folder, model, file):
    classifier = load("resnet18", weights=folder / file)
    images = random_images((2, 64, 50, 3), seed=0)
    with torch.inference_mode():
        expected = model(to_torch(images)).numpy()
    logits = jax.jit(lambda c, x: c.apply(x))(classifier, images)
    np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max())
    assert classifier.preprocessing == Preprocessing()
    assert classifier.class_names == registry.class_names("imagenet")
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(classifier))


def test_options_reach_the_network(folder):
    masking = LayerMasking(padding="none", depth=2)
    names = "abcdefghij"
    classifier = load(
        "resnet18",
        weights=str(folder / "ten.pth"),
        num_classes=10,
        masking=masking,
        class_names=names,
        dtype=jnp.bfloat16,
    )
    assert classifier.module.masking == masking
    assert classifier.module.dtype == jnp.bfloat16
    assert classifier.class_names == tuple(names)
    images = random_images((1, 32, 32, 3), seed=0)
    assert jax.eval_shape(classifier.apply, images).shape == (1, 10)
    assert classifier.variables["params"]["fc"]["kernel"].dtype == jnp.float32
    assert load("resnet18", weights=folder / "ten.pth", num_classes=10).class_names is None


def test_half_precision_resnet50(tmp_path):
    model = build("resnet50", seed=0).half()
    torch.save(model.state_dict(), tmp_path / "half.pth")
    variables = load("resnet50", weights=tmp_path / "half.pth").variables
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    kernel = variables["params"]["layer4.2"]["conv2"]["kernel"]
    expected = model.layer4[2].conv2.weight.float().detach().numpy()
    np.testing.assert_array_equal(kernel, expected.transpose(2, 3, 1, 0))


def test_other_number_of_channels(tmp_path):
    model = build("resnet18", seed=0, num_classes=2)
    model.conv1 = torch.nn.Conv2d(1, 64, 7, bias=False)
    torch.save(model.state_dict(), tmp_path / "grey.pth")
    options = {"weights": tmp_path / "grey.pth", "num_classes": 2}
    with pytest.raises(ValueError, match=r"load it with in_channels=1 \(now 3\)"):
        load("resnet18", **options)
    with pytest.raises(ValueError, match=r"in_channels is 1, but .* mean has 3 numbers"):
        load("resnet18", **options, in_channels=1)
    grey = Preprocessing(mean=(0.5,), std=(0.5,))
    classifier = load("resnet18", **options, in_channels=1, preprocessing=grey)
    images = random_images((1, 40, 40, 1), seed=0)
    assert jax.eval_shape(classifier.apply, images).shape == (1, 2)


def test_checkpoint_of_another_class_count(folder):
    with pytest.raises(ValueError, match=r"ten.pth .*load it with num_classes=10 \(now 1000\)"):
        load("resnet18", weights=folder / "ten.pth")


def test_commands_load_as_many_classes_as_a_checkpoint_has(folder):
    classifier = load_spec(f"resnet18={folder / 'ten.pth'}")
    images = random_images((1, 40, 40, 3), seed=0)
    assert jax.eval_shape(classifier.apply, images).shape == (1, 10)
    with pytest.raises(checkpoints.StateDictMismatch, match="It fits resnet18: load it"):
        load_spec(f"resnet34={folder / 'ten.pth'}")


@pytest.mark.parametrize("file", ["resnet18.pth", "ten.pth"])
def test_checkpoint_of_another_network(folder, file):
    with pytest.raises(checkpoints.StateDictMismatch, match="It fits resnet18: load it") as error:
        load("resnet34", weights=folder / file)
    assert "layer1.2.conv1.weight" in error.value.missing


@pytest.mark.parametrize("num_classes", [7, 1000])
def test_checkpoint_of_another_family(tmp_path, num_classes):
    model = build("squeezenet1_1", seed=0, num_classes=num_classes)
    path = tmp_path / "weights.safetensors"
    checkpoints.save_safetensors(path, state_dict(model))
    with pytest.raises(checkpoints.StateDictMismatch, match="It fits squeezenet1_1: load it"):
        load("squeezenet1_0", weights=path, num_classes=num_classes)


def test_published_keys_that_are_called_otherwise_here(tmp_path):
    state = state_dict(build("densenet121", seed=0))
    published = {
        re.sub(r"(denselayer\d+\.\w+)([12])\.", r"\1.\2.", key): value
        for key, value in state.items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in published
    torch.save({k: torch.from_numpy(v) for k, v in published.items()}, tmp_path / "densenet.pth")
    variables = load("densenet121", weights=tmp_path / "densenet.pth").variables
    for key, value in checkpoints.to_state_dict(variables).items():
        np.testing.assert_array_equal(value, state[key])


def test_classifiers_that_only_training_uses_are_left_out(tmp_path):
    model = build("googlenet", seed=0, aux_logits=True)
    torch.save(model.state_dict(), tmp_path / "googlenet.pth")
    assert any(key.startswith("aux1.") for key in model.state_dict())
    classifier = load("googlenet", weights=tmp_path / "googlenet.pth")
    assert classifier.preprocessing.mean == (0.5, 0.5, 0.5)


def test_checkpoint_of_no_network_of_the_registry(tmp_path):
    weights = {"features.0.weight": np.zeros((64, 3, 11, 11), np.float32)}
    checkpoints.save_safetensors(tmp_path / "other.safetensors", weights)
    with pytest.raises(checkpoints.StateDictMismatch, match=r"1 surplus: features.0.weight$"):
        load("resnet18", weights=tmp_path / "other.safetensors")


def test_names_must_fit(folder):
    with pytest.raises(ValueError, match="class_names has 2 names for 1000 classes"):
        load("resnet18", weights=folder / "resnet18.pth", class_names=("cat", "dog"))


def test_no_weights_come_with_most_networks():
    with pytest.raises(
        ValueError, match=r"no weights of resnet50 .*torchvision/resnet50.IMAGENET1K_V1"
    ):
        load("resnet50")


@pytest.mark.parametrize("weights", ["missing.pth", "IMAGENET1K_V9"])
def test_neither_file_nor_tag(weights):
    with pytest.raises(FileNotFoundError, match=f"'{weights}' is neither .*IMAGENET1K_V1"):
        load("resnet18", weights=weights)


def test_folder_of_a_training(tmp_path):
    bundled = registry.network("resnet18_digits").bundled
    (tmp_path / "resnet18_digits.safetensors").write_bytes(bundled.read_bytes())
    found = load("resnet18_digits", weights=tmp_path)
    chex.assert_trees_all_equal(found.variables, load("resnet18_digits").variables)
    with pytest.raises(ValueError, match=r"is a folder without resnet18\.safetensors"):
        load("resnet18", weights=tmp_path)


def test_tag_of_another_network():
    with pytest.raises(ValueError, match="are those of resnet50, not of resnet18"):
        load("resnet18", weights="torchvision/resnet50.IMAGENET1K_V1")


@pytest.mark.parametrize("tag", ["test/resnet18.V1", "V1"])
def test_tag_is_downloaded_into_the_cache(published, folder, tmp_path, monkeypatch, tag):
    monkeypatch.setenv("LMJAX_CACHE", str(tmp_path))
    classifier = load("resnet18", weights=tag)
    assert classifier.preprocessing == published.preprocessing
    kept = tmp_path / published.filename
    assert list(tmp_path.iterdir()) == [kept]
    assert kept.read_bytes() == (folder / "resnet18.pth").read_bytes()


def test_without_a_network_the_error_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setenv("LMJAX_CACHE", str(tmp_path))

    def no_network(*args, **options):
        raise OSError("no route to host")

    monkeypatch.setattr("socket.create_connection", no_network)
    with pytest.raises(DownloadError) as error:
        load("resnet50", weights="IMAGENET1K_V2")
    message = str(error.value)
    assert "https://download.pytorch.org/models/resnet50-11ad3fa6.pth" in message
    assert f"put it at {tmp_path / 'resnet50-11ad3fa6.pth'} (sha256 11ad3fa6...)" in message


def test_preprocessing_of_a_file(published, folder, tmp_path):
    original = folder / "resnet18.pth"
    same_name = tmp_path / published.filename
    same_name.symlink_to(original)
    tagged = tmp_path / "tagged.safetensors"
    convert(same_name, tagged)  # recognised by name and hash
    told = tmp_path / "told.safetensors"
    convert(original, told, tag="test/resnet18.V1")
    for path in (same_name, tagged, told):
        assert load("resnet18", weights=path).preprocessing == published.preprocessing
    own = Preprocessing(50, 40)
    assert load("resnet18", weights=tagged, preprocessing=own).preprocessing == own


def test_convert_records_the_source(published, folder, tmp_path):
    source = folder / "resnet18.pth"
    targets = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for target in targets:
        recorded = convert(source, target, tag="test/resnet18.V1")
        assert checkpoints.read_metadata(target) == recorded
    assert recorded["source"] == "resnet18.pth"
    assert recorded["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert recorded["tag"] == "test/resnet18.V1"
    assert recorded["lmjax"]
    assert targets[0].read_bytes() == targets[1].read_bytes()
    expected = checkpoints.read_state_dict(source)
    converted = checkpoints.read_state_dict(targets[0])
    assert converted.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(converted[key], value)


def test_convert_replaces_only_what_it_wrote(folder, tmp_path):
    target = tmp_path / "trained.safetensors"
    checkpoints.save_safetensors(target, {"a": np.ones(2)}, metadata={"network": "resnet18"})
    before = target.read_bytes()
    with pytest.raises(ValueError, match="exists and is not a converted checkpoint"):
        convert(folder / "resnet18.pth", target)
    with pytest.raises(ValueError, match="is the source itself"):
        convert(target, target)
    assert target.read_bytes() == before
    target.unlink()
    for _ in range(2):
        assert "sha256" in convert(folder / "resnet18.pth", target)


def test_convert_checks_before_it_writes(published, folder, tmp_path):
    source, target = folder / "resnet18.pth", tmp_path / "weights.safetensors"
    damaged = tmp_path / "damaged.pth"
    damaged.write_bytes(source.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        convert(damaged, target)
    with pytest.raises(ValueError, match=r"ten.pth is not the file of test/resnet18.V1"):
        convert(folder / "ten.pth", target, tag="test/resnet18.V1")
    with pytest.raises(ValueError, match=r"ten.pth does not fit .*num_classes=10"):
        convert(folder / "ten.pth", target, tag="timm/resnet18.a1_in1k")
    with pytest.raises(ValueError, match="no tag 'V1'"):
        convert(source, target, tag="V1")
    with pytest.raises(ValueError, match=r"must end in \.safetensors"):
        convert(source, tmp_path / "weights.pth")
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        convert(source, tmp_path / "missing" / "weights.safetensors")
    with pytest.raises(FileNotFoundError, match=r"nowhere.pth"):
        convert(tmp_path / "nowhere.pth", target)
    assert list(tmp_path.iterdir()) == [damaged]


def test_bundled_weights():
    classifier = load("resnet18_digits")
    assert classifier.class_names == tuple("0123456789")
    images = random_images((1, 128, 128, 3), seed=0)
    assert jax.eval_shape(classifier.apply, images).shape == (1, 10)
