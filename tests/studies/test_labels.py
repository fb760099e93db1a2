"""Labels of a source that are, or are not, classes of a network."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

import lmjax
from lmjax import studies
from lmjax.data.imagenet.synsets import synsets
from lmjax.data.labels import check_classes
from tests.studies import fakes

IMAGENET = SimpleNamespace(class_names=tuple(f"thing {i}" for i in range(1000)))


def named(*names):
    return SimpleNamespace(class_names=names)


@pytest.mark.parametrize(
    ("source", "network"),
    [
        (named("cat", "dog"), named("cat", "dog")),
        (named("Great_White_Shark", "cat"), named("great white shark", "cat")),
        (named("a", "b", "c"), named("a", "b", "z")),
        (SimpleNamespace(class_names=synsets()), IMAGENET),
        (SimpleNamespace(class_names=None), IMAGENET),
        (SimpleNamespace(), IMAGENET),
        (named("cat", "dog"), SimpleNamespace()),
    ],
)
def test_classes_that_fit(source, network):
    check_classes(source, "net", network)


@pytest.mark.parametrize("network", [IMAGENET, named("cup", "cat", "person")])
def test_classes_of_folders_are_not_those_of_a_network_by_their_order(network):
    with pytest.raises(ValueError, match=r"not classes of net: class 0 of the source is 'cat' "):
        check_classes(named("cat", "cup", "person"), "net", network)


def test_a_folder_without_one_class_of_the_network_is_noticed():
    names = [f"class {i}" for i in range(10)]
    check_classes(named(*names[:9]), "net", named(*names))
    for left_out in range(9):
        source = named(*names[:left_out], *names[left_out + 1 :])
        message = f"class {left_out} of the source is 'class {left_out + 1}' .* of net 'class"
        with pytest.raises(ValueError, match=message if left_out > 4 else "not classes of net"):
            check_classes(source, "net", named(*names))


def test_names_that_classes_share_are_not_compared():
    cranes = named("crane", "cat", "dog", "crane bird")
    check_classes(named("crane", "cat", "dog", "crane"), "net", cranes)


def test_studies_ask_before_they_run():
    source: Any = fakes.Source(2)
    source.class_names = ("cat", "cup")
    network = lmjax.models.load("resnet18_digits")
    with pytest.raises(ValueError, match="labels of the source are not classes of net"):
        studies.estimate(fakes.Brightness(), source, models={"net": network})


def test_networks_with_one_logit_predict_no_class():
    """Their predictions would be unchanged and right, whatever is removed."""
    network = dataclasses.replace(fakes.network(), weights=fakes.network().weights[..., :1])
    study = studies.SegmentRemoval(removals=("black",), orders=("random",), grid_size=16)
    with pytest.raises(ValueError, match="predicted classes need two logits"):
        studies.estimate(study, fakes.Source(2), models={"net": network})
