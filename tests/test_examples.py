"""The examples in docstrings of public names run, and give what they say."""

import doctest
import inspect
import re
from pathlib import Path

import pytest

import lmjax

pytestmark = pytest.mark.usefixtures("small_network")

PAGE = Path(__file__).parents[1] / "docs/reference/api/index.md"
PARTS = ("attribution", "metrics", "objectives", "segments", "evaluation", "removals", "masking")
# Files or networks of the reader's own, in their examples.
NOT_RUN = {
    "from_masks",
    "from_coco",
    "register",
    "register_rule",
    "snap",
    "make",
    "Fill",
    "Samples",
}
NOT_RUN |= {"StandardErrors"}
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def examples():
    """Public names with examples, each once."""
    found = {"explain": lmjax.explain}
    for part in PARTS:
        module = getattr(lmjax, part)
        for name in getattr(module, "__all__", None) or vars(module):
            value = getattr(module, name)
            own = getattr(value, "__module__", "").startswith("lmjax") and callable(value)
            if own and ">>>" in (inspect.getdoc(value) or ""):
                found[name] = value
    return [pytest.param(each, id=name) for name, each in found.items() if name not in NOT_RUN]


@pytest.fixture(scope="module")
def names():
    names = {}
    exec(re.search(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1], names)
    return names


@pytest.mark.parametrize("value", examples())
@pytest.mark.filterwarnings("ignore::UserWarning")  # few samples
def test_examples_give_what_they_say(value, names):
    parser, said = doctest.DocTestParser(), []
    example = parser.get_doctest(inspect.getdoc(value), dict(names), value.__name__, None, 0)
    assert example.examples
    result = doctest.DocTestRunner(optionflags=FLAGS).run(example, out=said.append)
    assert not result.failed, "".join(said)


@pytest.mark.parametrize("part", ["attribution", "metrics"])
def test_every_attribution_and_metric_has_an_example_and_its_cost(part):
    module = getattr(lmjax, part)
    for name in module.__all__:
        function = getattr(module, name)
        if not inspect.isfunction(function) or name == "wordnet_similarity":
            continue
        text = inspect.getdoc(function)
        assert ">>>" in text, f"{name} has no example"
        if {"predictor", "explain"} & set(inspect.signature(function).parameters):
            assert re.search(r"^Cost: .*(evaluation|pass|explanation)", text, re.M), name
