"""`lmjax train`: which images it trains on, and which it measures."""

import pytest

from lmjax.cli.main import main

SCENES = "digit_scenes/{}/0/1"


@pytest.fixture
def train(monkeypatch):
    """Runs a command; returns the versions of the source and of the test that it trains with."""

    def train(*arguments):
        asked = []

        def stand_in(_, source, *, test, **__):
            asked.append((source.version, test and test.version))

        monkeypatch.setattr("lmjax.cli.train.train", stand_in)
        main(["train", *arguments])
        return asked[0]

    return train


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ((), ("train", "test")),
        (("--source", "digit-scenes"), ("train", "test")),
        (("--source", "digit-scenes,split=train"), ("train", "test")),
        (("--source", "digit-scenes,split=test"), ("test", "test")),
        (("--source", "digit-scenes", "--test", "digit-scenes"), ("train", "test")),
        (("--source", "digit-scenes", "--test", "digit-scenes,split=train"), ("train", "train")),
    ],
)
def test_digit_scenes_are_of_the_training_split_and_tested_on_the_other(train, source, expected):
    assert train("digit-scenes", *source) == tuple(map(SCENES.format, expected))


def test_any_network_trains_on_the_training_split_and_is_measured_on_the_test_split(train):
    network = ("network", "resnet18_digits", "--source", "digit-scenes")
    assert train(*network) == (SCENES.format("train"), None)
    tested = SCENES.format("train"), SCENES.format("test")
    assert train(*network, "--test", "digit-scenes") == tested


def test_a_source_without_splits_is_not_its_own_test(train, tmp_path):
    from PIL import Image

    (tmp_path / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "cat" / "a.png")
    version, test = train("digit-scenes", "--source", f"folder:{tmp_path}")
    assert version.startswith("folder/")
    assert test is None
