import dataclasses

import pytest

import lmjax
from lmjax._utils.registry import Registry
from lmjax._utils.renamed import old_names, renamed
from lmjax.cli import main as cli
from lmjax.explanation import ExplanationConfig
from lmjax.studies import LimeQuality
from lmjax.studies.settings import from_settings


@renamed(amount="number")
@dataclasses.dataclass(frozen=True)
class Settings:
    number: int = 1


@renamed(old="new")
def identity(*, new=0):
    return new


def test_a_function_takes_the_old_name_with_a_warning():
    with pytest.warns(DeprecationWarning, match="old= is now new=") as warned:
        assert identity(old=3) == 3
    assert warned[0].filename == __file__
    with pytest.raises(TypeError, match="identity: old is the old name of new"):
        identity(old=3, new=4)


def test_settings_take_and_show_the_old_name_with_a_warning():
    with pytest.warns(DeprecationWarning, match="amount= is now number=") as warned:
        settings = Settings(amount=3)
    assert warned[0].filename == __file__
    assert settings == Settings(number=3)
    with pytest.warns(DeprecationWarning, match=r"\.amount is now \.number"):
        assert settings.amount == 3
    assert [field.name for field in dataclasses.fields(Settings)] == ["number"]


def test_a_registry_knows_old_names_and_lists_new_ones():
    registry = Registry("method", "lmjax.none")
    registry.register("plain_one", 1, description="One.")
    registry.renamed(one="plain_one")
    assert registry.names() == ("plain_one",)
    assert "one" in registry
    with pytest.warns(FutureWarning, match="method one is now plain_one"):
        assert registry.get("one") == 1
    with pytest.warns(FutureWarning, match="the old name goes with the next release"):
        assert registry.check("one") == "plain_one"


def test_explain_takes_old_names():
    with (
        pytest.warns(DeprecationWarning, match="samples= is now num_samples=") as warned,
        pytest.raises(ValueError, match="num_samples must be"),
    ):
        lmjax.explain("scene:0", samples=-1)
    assert warned[0].filename == __file__


def test_methods_have_the_names_of_their_functions():
    for name in lmjax.attribution.methods.names():
        assert hasattr(lmjax.attribution, name), name
    with pytest.warns(FutureWarning, match="shapley is now permutation_shapley"):
        assert ExplanationConfig(method="shapley").method == ("permutation_shapley",)


def test_stored_settings_are_read_by_their_old_names_without_a_warning():
    assert from_settings(LimeQuality, {"samples": 9, "ks": [1, 2]}) == LimeQuality(
        num_samples=9, ks=(1, 2)
    )


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("explain a.jpg --samples=9 --topk 2", "explain a.jpg --num-samples=9 --top-k 2"),
        ("explain --n_segments 9 --segments grid", "explain --n_segments 9 --segmenter grid"),
        ("study lime --out runs/a --samples 9", "study lime --output runs/a --num-samples 9"),
        ("study removal --out a --samples 9", "study removal --output a --samples 9"),
        ("train network a --out b", "train network a --output b"),
        ("data wordnet --out b", "data wordnet --output b"),
        ("models --out", "models --out"),
        ("--help", "--help"),
    ],
)
def test_commands_take_old_options_and_say_so_in_a_line_each(given, wanted, capsys):
    arguments = given.split()
    assert cli.with_new_names(arguments, cli._command(arguments)) == wanted.split()
    said = capsys.readouterr().err.splitlines()
    assert len(said) == sum(a != b for a, b in zip(given.split(), wanted.split()))
    assert all("the old name goes with the next release" in line for line in said)


def test_no_old_name_is_a_setting_again():
    for kind in (ExplanationConfig, LimeQuality):
        names = {field.name for field in dataclasses.fields(kind)}
        assert not names & old_names(kind).keys()
        assert names >= set(old_names(kind).values())
