import jax.numpy as jnp
import numpy as np
import pytest

from lmjax.evaluation import resolve_target

LOGITS = np.array([0.1, 3.0, -2.0, 0.5])


def test_none_is_the_top_class():
    assert resolve_target(None, LOGITS) == 1
    assert isinstance(resolve_target(None, jnp.asarray(LOGITS)), int)


@pytest.mark.parametrize("target", [0, 3, np.int64(2), jnp.array(1)])
def test_a_class_is_itself(target):
    assert resolve_target(target, LOGITS) == int(target)


@pytest.mark.parametrize("target", [[2, 0], (2, 0), np.array([2, 0])])
def test_several_classes_keep_their_order(target):
    assert resolve_target(target, LOGITS) == (2, 0)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (4, "from 0 to 3, the network has 4 classes; got 4"),
        (-1, "got -1"),
        ([0, 9, 10], "got 9, 10"),
        (1.0, "class number"),
        (True, "class number"),
        ("cat", "class number"),
        ([], "class number"),
        ([[0, 1]], "class number"),
    ],
)
def test_anything_else_is_an_error(target, message):
    with pytest.raises(ValueError, match=message):
        resolve_target(target, LOGITS)


@pytest.mark.parametrize("logits", [np.array([1, np.nan]), np.ones((2, 2)), np.array([np.inf, 0])])
@pytest.mark.parametrize("target", [None, 0])
def test_logits_that_are_none_are_an_error(logits, target):
    with pytest.raises(ValueError, match=r"logits must be finite numbers \[K\]"):
        resolve_target(target, logits)
