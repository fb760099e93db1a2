"""Methods that are given a number of evaluations."""

import jax
import numpy as np
import pytest

from lmjax.attribution import (
    banzhaf,
    hsic,
    kernelshap,
    lime,
    permutation_shapley,
    rise,
    sobol,
)
from tests.support.games import game, picture, smooth_table, strip

KEY = jax.random.key(2)
S = 8
NETWORK = game(smooth_table(S))
# Method, its option, and what a further sample costs.
METHODS = {
    "lime": (lime, "num_samples", 1),
    "kernelshap": (kernelshap, "num_samples", 2),
    "banzhaf": (banzhaf, "num_samples", 1),
    "shapley": (permutation_shapley, "num_permutations", 2 * (S - 1)),
    "one_way": (permutation_shapley, "num_permutations", S - 1),
    "rise": (rise, "num_samples", 1),
    "hsic": (hsic, "num_samples", 1),
    "sobol": (sobol, "num_designs", S + 1),
}


def explain(name, **options):
    own = {"grid": (1, S)} if name == "rise" else {"segments": strip(S)}
    own |= {"antithetic": False} if name == "one_way" else {}
    own |= {"soft": True} if name == "sobol" else {}  # binary designs coincide
    return METHODS[name][0](NETWORK, picture(S), key=KEY, **own, **options)


@pytest.mark.parametrize("evaluations", [100, 133])
@pytest.mark.parametrize("name", METHODS)
def test_a_method_evaluates_what_it_is_given_and_not_one_more(name, evaluations):
    found = explain(name, evaluations=evaluations)
    assert evaluations - METHODS[name][2] < found.num_variants <= evaluations


@pytest.mark.parametrize("name", METHODS)
def test_evaluations_and_a_number_exclude_each_other(name):
    option = METHODS[name][1]
    with pytest.raises(ValueError, match=f"{option} and evaluations both say"):
        explain(name, evaluations=100, **{option: 50})


@pytest.mark.filterwarnings("ignore:2 samples for 8 segments")
@pytest.mark.parametrize("name", METHODS)
def test_too_few_evaluations_are_an_error_that_names_the_fewest(name):
    with pytest.raises(ValueError, match=r"evaluations must be a whole number, (\d+) or") as error:
        explain(name, evaluations=1)
    fewest = int(str(error.value).split("number, ")[1].split(" ")[0])
    assert np.isfinite(explain(name, evaluations=fewest).scores).all()


@pytest.mark.parametrize("name", ["kernelshap", "banzhaf"])
def test_all_coalitions_are_within_their_number(name):
    for evaluations in (2**S, 2**S + 1):
        found = explain(name, evaluations=evaluations)
        assert found.num_variants == 2**S
        np.testing.assert_array_equal(found.standard_error, 0)
        again = explain(name, evaluations=evaluations, previous=found)  # which has no samples
        np.testing.assert_array_equal(again.scores, found.scores)
