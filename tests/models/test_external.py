"""Networks of PyTorch as classifiers: modules of one's own, and those of timm and torchvision."""

import sys
import urllib.error

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import lmjax
from lmjax.models import Preprocessing, checkpoints
from lmjax.models.networks.resnet import BasicBlock, ResNet
from tests.support.compilations import quick_jit
from tests.support.torch_reference import (
    build,
    random_network,
    state_dict,
    timm,
    to_torch,
    torchvision,
)

SIZE = 64
CROP = Preprocessing(resize=72, crop=SIZE)


@pytest.fixture(autouse=True, scope="module")
def _as_others_write():
    with jax.numpy_rank_promotion("allow"):
        yield


def images(count=3, channels=3):
    shape = count, SIZE, SIZE, channels
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def masks():
    squares = np.random.default_rng(1).random((3, 8, 8)) < 0.5
    squares[2] = True
    return np.kron(squares, np.ones((8, 8))) > 0


def logits(classifier, *given, masking=None):
    """One program is compiled sooner than all operations of a network, each alone."""
    return quick_jit(lambda c, *given: c.apply(*given, masking=masking))(classifier, *given)


def close(found, expected, bound=1e-6):
    np.testing.assert_allclose(found, expected, rtol=0, atol=bound * np.abs(expected).max())


@pytest.fixture(scope="module")
def original():
    """A small ResNet of timm, whose weights lmjax's own takes."""
    resnet = timm.models.resnet

    def make():
        module = resnet.ResNet(resnet.BasicBlock, (1, 1, 1), 10, channels=(64, 128, 256))
        module.layer4 = nn.Identity()
        return module

    return random_network(make, 0)


@pytest.fixture(scope="module")
def own(original):
    module = ResNet((1, 1, 1), BasicBlock, num_classes=10)
    target = checkpoints.abstract_variables(module)
    variables = checkpoints.to_variables(state_dict(original), target)
    return lmjax.models.Classifier(variables, module, CROP)


@pytest.fixture(scope="module")
def imported(original):
    return lmjax.models.from_torch(original, preprocessing=CROP)


@pytest.mark.parametrize("engine", ["dense", "visible", "shared"])
def test_a_resnet_is_lmjaxs_own(engine, own, imported):
    image = np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32)
    removal = lmjax.LayerMasking()
    found, expected = (
        lmjax.evaluate(lmjax.Predictor(each, removal), image, masks(), engine=engine)
        for each in (imported, own)
    )
    close(found, expected, 2e-6)


def test_variants_of_layer_masking_are_lmjaxs_own(own, imported):
    for ours, theirs in (
        (lmjax.LayerMasking(padding="none"),) * 2,
        (lmjax.PartialConvolution(),) * 2,
        (lmjax.LayerMasking(depth=2), lmjax.LayerMasking(depth="layer3")),
    ):
        expected = logits(own, images(), masks(), masking=ours)
        close(logits(imported, images(), masks(), masking=theirs), expected, 2e-6)
    assert np.abs(expected - logits(own, images(), masks())).max() > 1e-3


class Small(nn.Module):
    """A network of one's own, that takes any size."""

    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 5, 2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize(
    "example", [[1, 3, SIZE, SIZE], torch.zeros(2, 3, SIZE, SIZE), images().transpose(0, 3, 1, 2)]
)
def test_a_module_of_ones_own(example):
    module = Small().eval()
    classifier = lmjax.models.from_torch(module, example, class_names=list("abcd"))
    with torch.no_grad():
        expected = module(torch.from_numpy(images().transpose(0, 3, 1, 2))).numpy()
    close(classifier.apply(images()), expected, 1e-5)
    assert classifier.class_names == ("a", "b", "c", "d")
    assert classifier.preprocessing.crop == classifier.module.image_size == SIZE
    assert classifier.preprocessing.resize == SIZE * 8 // 7
    assert set(classifier.variables["params"]) == {key for key, _ in module.named_parameters()}
    assert set(classifier.variables["batch_stats"]) == {"norm.running_mean", "norm.running_var"}
    assert len(repr(classifier)) < 300


def test_other_numbers_of_channels():
    classifier = lmjax.models.from_torch(
        Small(1).eval(), [1, 1, SIZE, SIZE], mean=(0.5,), std=(0.2,)
    )
    assert classifier.apply(images(channels=1), masks()).shape == (3, 4)
    by_default = lmjax.models.from_torch(Small(1).eval(), mean=(0.5,), std=(0.2,))
    assert by_default.module.image_size == 224


def test_trained_weights_go_back_to_torch(tmp_path):
    from lmjax.data import DigitScenes
    from lmjax.training import TrainingConfig, train

    module = Small()
    module.head = nn.Linear(8, 10)
    classifier = lmjax.models.from_torch(module.eval(), [1, 3, SIZE, SIZE])
    config = TrainingConfig(epochs=1, images_per_epoch=8, batch_size=8, small_share=0.0)
    source = DigitScenes("train", length=8)
    path = train(classifier, source, config=config, output=tmp_path, progress=False)
    state = {key: torch.from_numpy(v) for key, v in checkpoints.read_state_dict(path).items()}
    module.load_state_dict(state, strict=False)
    with torch.no_grad():
        expected = module(torch.from_numpy(images().transpose(0, 3, 1, 2))).numpy()
    close(classifier.with_weights(path).apply(images()), expected, 1e-5)


@pytest.mark.parametrize("name", ["model", "module"])
def test_names_that_wrappers_have_too_may_be_the_networks_own(name, tmp_path):
    """Files that begin with `model.` throughout are often of a wrapped network; this one is not."""
    whole = nn.Module()
    setattr(whole, name, Small())
    whole.forward = getattr(whole, name).forward
    classifier = lmjax.models.from_torch(whole.eval(), [1, 3, SIZE, SIZE])
    assert all(key.startswith(f"{name}.") for key in classifier.variables["params"])
    path = tmp_path / "weights.safetensors"
    checkpoints.save_safetensors(path, checkpoints.to_state_dict(classifier.variables))
    again = classifier.with_weights(path)
    np.testing.assert_array_equal(again.apply(images()), classifier.apply(images()))


@pytest.mark.parametrize(
    ("make", "example", "options", "message"),
    [
        (Small, [1, 3, SIZE, 32], {}, r"example must be square images .*\[1, 3, 64, 32\]"),
        (Small, [3, SIZE, SIZE], {}, "example must be square images"),
        (Small, [1, 1, SIZE, SIZE], {}, "example has 1 channels, and the mean 3 numbers"),
        (Small, [1, 3, 32, 32], {"preprocessing": CROP}, "crops to 64 pixels.*example has 32"),
        (Small, [1, 3, SIZE, SIZE], {"class_names": "ab"}, "class_names has 2 names"),
        (nn.Identity, [1, 3, SIZE, SIZE], {}, r"must return logits \[N, K\]"),
        (lambda: Small().train(), [1, 3, SIZE, SIZE], {}, "call module.eval"),
    ],
)
def test_modules_that_do_not_fit_are_refused(make, example, options, message):
    module = make()
    if "train" not in message and "eval" not in message:
        module.eval()
    with pytest.raises(ValueError, match=message):
        lmjax.models.from_torch(module, example, **options)


def test_images_of_another_size_are_refused(imported):
    with pytest.raises(ValueError, match=r"images must be 64 x 64 pixels.*got 32 x 32"):
        imported.apply(images()[:, :32, :32])
    with pytest.raises(ValueError, match="images must be 64 x 64 pixels"):
        imported.apply(images()[:, :32, :32], masks()[:, :32, :32])


@pytest.fixture
def small_crops(monkeypatch):
    """timm states crops of 64 pixels, so that networks by name are quick."""
    stated = timm.data.resolve_model_data_config

    def small(*args, **options):
        return {**stated(*args, **options), "input_size": (3, SIZE, SIZE)}

    monkeypatch.setattr(timm.data, "resolve_model_data_config", small)


def test_a_crop_that_is_not_done_is_refused(monkeypatch, file, small_crops):
    stated = timm.data.resolve_model_data_config

    def squashed(*args, **options):
        return {**stated(*args, **options), "crop_mode": "squash"}

    monkeypatch.setattr(timm.data, "resolve_model_data_config", squashed)
    options = {"weights": file, "num_classes": 10}
    with pytest.raises(ValueError, match=r"fitted to its size by .squash.*give preprocessing="):
        lmjax.models.load("timm:test_resnet", **options)
    given = lmjax.models.load("timm:test_resnet", preprocessing=CROP, **options)
    assert given.preprocessing == CROP


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """Weights of a small network that timm has by name."""
    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    checkpoints.save_safetensors(path, state_dict(build("test_resnet", 0, num_classes=10)))
    return path


def test_networks_by_name(file, small_crops):
    masking = lmjax.LayerMasking(depth="layer3")
    classifier = lmjax.models.load(
        "timm:test_resnet", weights=file, num_classes=10, masking=masking
    )
    with torch.no_grad():
        expected = build("test_resnet", 0, num_classes=10)(to_torch(images())).numpy()
    close(logits(classifier, images()), expected, 1e-5)
    assert classifier.class_names is None
    stated = classifier.preprocessing
    assert (stated.crop, stated.mean) == (SIZE, (0.5, 0.5, 0.5))
    assert classifier.masking == masking


@pytest.mark.slow
def test_networks_of_torchvision_by_name(tmp_path):
    module = build("squeezenet1_1", 0)
    path = tmp_path / "squeezenet1_1.pth"
    torch.save(module.state_dict(), path)
    classifier = lmjax.models.load("torchvision:squeezenet1_1", weights=path)
    own = lmjax.models.load("squeezenet1_1", weights=path)
    assert classifier.class_names == own.class_names
    assert classifier.preprocessing == own.preprocessing
    large = np.random.default_rng(0).standard_normal((1, 224, 224, 3), np.float32)
    close(classifier.apply(large), own.apply(large), 1e-5)


def changed(file, tmp_path, **changes):
    state = {**checkpoints.read_state_dict(file), **changes}
    path = tmp_path / "other.safetensors"
    checkpoints.save_safetensors(path, {k: v for k, v in state.items() if v is not None})
    return path


def test_files_that_do_not_fit_name_all_keys(file, tmp_path):
    changes = {"conv1.0.weight": None, "conv0.weight": np.zeros(3), "fc.bias": np.zeros(7)}
    with pytest.raises(checkpoints.StateDictMismatch) as caught:
        lmjax.models.load(
            "timm:test_resnet", weights=changed(file, tmp_path, **changes), num_classes=10
        )
    message = str(caught.value)
    assert "other.safetensors for timm:test_resnet does not fit the network" in message
    assert "1 missing: conv1.0.weight; 1 surplus: conv0.weight; 1 misshapen: fc.bias [7]" in message
    with pytest.raises(checkpoints.StateDictMismatch, match=r"load it with num_classes=10"):
        lmjax.models.load("timm:test_resnet", weights=file)
    counter = {"bn1.num_batches_tracked": None, "layer1.0.bn1.num_batches_tracked": np.ones(1)}
    path = changed(file, tmp_path, **counter)
    lmjax.models.external._load_weights(
        build("test_resnet", 1, num_classes=10), path, "timm:test_resnet"
    )


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("timm:resnet17", {}, "timm has no network 'resnet17'; timm.list_models"),
        ("timm:", {}, "timm has no network ''"),
        ("timm:resnet18.nowhere", {"weights": "x.pth"}, "timm cannot make 'resnet18.nowhere'"),
        ("torchvision:resnet17", {}, "torchvision has no classifier 'resnet17'"),
        ("torchvision:fcn_resnet50", {}, "torchvision has no classifier 'fcn_resnet50'"),
        ("keras:resnet18", {}, "resnet18"),
        ("timm:resnet18", {"in_channels": 1}, "in_channels must be 3 for timm:resnet18"),
        ("timm:resnet18", {"num_classes": 7}, "num_classes is for weights in a file"),
        ("timm:resnet18", {"num_classes": 0, "weights": "x.pth"}, "num_classes must be a whole"),
        ("timm:resnet18", {"dtype": jnp.bfloat16}, "dtype must be float32 for timm:resnet18"),
        ("timm:test_byobnet", {"weights": "x.txt"}, "weights must be a file .safetensors"),
    ],
)
def test_names_and_options_that_do_not_fit_are_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        lmjax.models.load(name, **options)


def test_files_that_are_missing_are_named():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        lmjax.models.load("timm:test_byobnet", weights="nowhere.safetensors")


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_libraries_that_are_not_installed_are_named(library, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    message = f"networks of {library} need it installed: pip install torch"
    with pytest.raises(ImportError, match=message):
        lmjax.models.load(f"{library}:resnet18", weights="x.pth")


def test_weights_that_cannot_be_downloaded_can_be_given(monkeypatch):
    def fail(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(timm, "create_model", fail)
    monkeypatch.setattr(torchvision.models, "get_model", fail)
    for name in ("timm:resnet18", "torchvision:resnet18"):
        with pytest.raises(OSError, match=f"published weights of {name} cannot be.*--weights FILE"):
            lmjax.models.load(name)


@timm.models.register_model
def small_of_ones_own(pretrained, num_classes=1000, **_):
    """The network above, which timm then has by this name."""
    module = Small()
    module.head, module.pretrained_cfg = nn.Linear(8, num_classes), {}
    return module


def test_commands_take_such_names(small_crops, tmp_path, monkeypatch, capsys):
    from PIL import Image

    from lmjax.cli.main import main

    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)
    Image.fromarray(pixels).save("photo.png")
    Image.fromarray(pixels[::-1]).save("other.png")
    (tmp_path / "table.csv").write_text("image,label\nphoto.png,3\nother.png,7\n")
    weights = state_dict(small_of_ones_own(False, 10))
    checkpoints.save_safetensors("tiny.safetensors", weights)
    main(
        [
            *("explain", "photo.png", "--model", "timm:small_of_ones_own", "--engine", "dense"),
            *("--weights", "tiny.safetensors", "--num-classes", "10", "--n-segments", "4"),
            *("--method", "leave_one_out", "--removal", "layer", "grey", "--output", "drawn.png"),
        ]
    )
    assert (tmp_path / "drawn.png").is_file()
    weights = state_dict(small_of_ones_own(False))
    checkpoints.save_safetensors("tiny.safetensors", weights)
    main(
        [
            *("study", "removal", "--models", "timm:small_of_ones_own=tiny.safetensors"),
            *("--source", "csv:table.csv", "--images", "2", "--orders", "random"),
            *("--removals", "layer", "grey", "--fractions", "0.5"),
            *("--engine", "dense", "--grid-size", "16"),
        ]
    )
    assert "layer" in capsys.readouterr().out
