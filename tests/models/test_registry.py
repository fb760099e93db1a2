"""The registry's facts, against torchvision's own tables and timm's published ones."""

import math
import subprocess
import sys

import pytest

from lmjax.models import registry
from lmjax.models.preprocessing import Preprocessing
from tests.support.networks import NAMES, TRANSFORMERS
from tests.support.torch_reference import timm, torchvision

TIMMS = [tag.split("/")[1].split(".")[0] for tag in registry.tags() if tag.startswith("timm/")]
WHOLE_FAMILIES = ("resne", "alexnet", "vgg", "squeezenet", "densenet", "mobilenet", "googlenet")


def test_families_are_torchvisions_whole_ones_and_the_digits():
    listed = torchvision.models.list_models(torchvision.models)
    whole = {name for name in listed if name.startswith(WHOLE_FAMILIES) or "_resne" in name}
    assert whole <= set(NAMES)
    everything = {*listed, *timm.list_models(), "resnet18_digits"}
    assert set(registry.names()) == {*NAMES, *TRANSFORMERS, "resnet18_digits"} <= everything


@pytest.mark.parametrize("name", [n for n in registry.names() if hasattr(torchvision.models, n)])
def test_every_torchvision_tag(name):
    weights = torchvision.models.get_model_weights(name)
    theirs = {
        f"torchvision/{name}.{weight.name}": weight
        for weight in weights
        if weight.name != "IMAGENET1K_FEATURES"  # part of a network
    }
    assert set(theirs) == {t for t in registry.tags(name) if t.startswith("torchvision/")}
    for tag, weight in theirs.items():
        source, transform = registry.find_source(tag), weight.transforms()
        assert source.url == weight.url
        assert source.filename == weight.url.split("/")[-1]
        assert source.filename.endswith(f"-{source.sha256}.pth")
        assert len(source.class_names) == 1000
        assert source.class_names == tuple(weight.meta["categories"])
        # torchvision's GoogLeNet normalises what it is given once more
        statistics = (transform.mean, transform.std)
        if name == "googlenet":
            statistics = ((0.5,) * 3, (0.5,) * 3)
        assert source.preprocessing == Preprocessing(
            resize=transform.resize_size[0],
            crop=transform.crop_size[0],
            interpolation=transform.interpolation.value,
            antialias=transform.antialias,
            mean=statistics[0],
            std=statistics[1],
        )


@pytest.mark.parametrize(
    ("tag", "licence", "settings"),
    [  # from the model cards on the hub: input size and crop_pct give crop and resize
        ("timm/resnet50.a1_in1k", "Apache-2.0", (235, 224, "bicubic")),  # 224, 0.95
        ("timm/resnet50.a1h_in1k", "Apache-2.0", (195, 176, "bicubic")),  # 176, 0.9
        ("timm/resnet50.tv2_in1k", "BSD-3-Clause", (201, 176, "bilinear")),  # 176, 0.875
        ("timm/resnet101.a3_in1k", "Apache-2.0", (168, 160, "bicubic")),  # 160, 0.95
        ("timm/resnet18.fb_swsl_ig1b_ft_in1k", "CC-BY-NC-4.0", (256, 224, "bilinear")),
    ],
)
def test_timm_tags(tag, licence, settings):
    source = registry.find_source(tag)
    assert source.preprocessing == Preprocessing(*settings)
    assert source.licence == licence
    assert source.url == f"https://huggingface.co/{tag}/resolve/main/model.safetensors"
    assert source.filename == tag.split("/")[1] + ".safetensors"
    assert source.sha256 is None


@pytest.mark.parametrize("name", list(dict.fromkeys(TIMMS)))
def test_every_timm_tag_of_1000_classes(name):
    configurations = [
        timm.models.get_pretrained_cfg(tag) for tag in timm.list_pretrained(f"{name}.*")
    ]
    theirs = {each.hf_hub_id: each for each in configurations if each.num_classes == 1000}
    assert set(theirs) == {tag for tag in registry.tags(name) if tag.startswith("timm/")}
    for tag, each in theirs.items():
        source, data = (
            registry.find_source(tag),
            timm.data.resolve_data_config(pretrained_cfg=each.to_dict()),
        )
        crop = data["input_size"][1]
        assert source.licence.lower() == each.license
        assert (data["crop_mode"], data["input_size"]) == ("center", (3, crop, crop))
        assert source.preprocessing == Preprocessing(
            resize=math.floor(crop / data["crop_pct"]),
            crop=crop,
            interpolation=data["interpolation"],
            mean=data["mean"],
            std=data["std"],
        )
        assert source.url == f"https://huggingface.co/{tag}/resolve/main/model.safetensors"


def test_timm_statistics_that_are_not_imagenets():
    preprocessing = registry.find_source("ra4_e3600_r224_in1k", name="resnet34").preprocessing
    half = (0.5, 0.5, 0.5)
    assert preprocessing == Preprocessing(248, 224, "bicubic", mean=half, std=half)


def test_every_tag_is_well_formed():
    sources = [registry.find_source(tag) for tag in registry.tags()]
    assert len(sources) > 80
    assert len({source.filename for source in sources}) == len(sources)
    for source in sources:
        assert source.network in (*NAMES, *TRANSFORMERS)
        assert source.tag in registry.tags(source.network)
        assert registry.find_file(source.filename) == source
        assert source.url.startswith("https://")
        assert source.filename.startswith(source.network)
        assert source.licence in ("Apache-2.0", "BSD-3-Clause", "CC-BY-NC-4.0")
        assert source.preprocessing.resize >= source.preprocessing.crop


def test_short_tags():
    def tag(short, name):
        source = registry.find_source(short, name=name)
        return source and source.tag

    assert tag("IMAGENET1K_V2", "resnet50") == "torchvision/resnet50.IMAGENET1K_V2"
    assert tag("a1_in1k", "resnet50") == "timm/resnet50.a1_in1k"
    assert tag("torchvision/resnet50.IMAGENET1K_V2", "resnet50").endswith("resnet50.IMAGENET1K_V2")
    assert tag("IMAGENET1K_V2", "resnet18") is None  # there is none
    assert tag("IMAGENET1K_V2", None) is None
    assert tag("weights.pth", "resnet50") is None


def test_class_names():
    names = registry.class_names("imagenet")
    assert len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
    assert registry.class_names("digits") == tuple("0123456789")
    with pytest.raises(ValueError, match="'cifar'"):
        registry.class_names("cifar")


def test_default_preprocessing_is_that_of_torchvisions_first_weights():
    assert registry.network("resnet50").preprocessing == Preprocessing(256, 224, "bilinear")
    assert registry.network("resnext101_64x4d").preprocessing == Preprocessing(232, 224, "bilinear")
    assert registry.network("resnet18_digits").preprocessing.crop == 128


@pytest.mark.parametrize(
    ("name", "guess"), [("resnet5", "resnet50"), ("ResNet18", "resnet18"), ("wide_resnet50", "_2")]
)
def test_unknown_network_gets_a_guess(name, guess):
    with pytest.raises(
        ValueError, match=rf"network must be one of .*; got '{name}'; did you mean .*{guess}"
    ):
        registry.network(name)


def test_unknown_network_lists_what_there_is():
    with pytest.raises(
        ValueError, match=r"must be one of resnet18, .* resnet18_digits; got 'transformer'"
    ):
        registry.tags("transformer")


def test_reading_the_registry_is_light():
    code = (
        "import sys, lmjax.models as m; m.names(), m.tags('resnet50');"
        "heavy = {'jax', 'flax', 'torch', 'safetensors', 'tqdm'} & sys.modules.keys();"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_resolve():
    import lmjax.models

    for name in lmjax.models.__all__:
        assert getattr(lmjax.models, name).__doc__
    assert "load" in dir(lmjax.models)
    with pytest.raises(AttributeError, match="no attribute 'loda'"):
        _ = lmjax.models.loda
