"""Networks that are games: their logits are looked up by the segments that are visible."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

# Tables `[2^S, K]` of games with S = 5, K = 2: one shape, so that programs compile once.
TABLES = st.lists(st.integers(-8, 8), min_size=64, max_size=64).map(
    lambda numbers: np.reshape(numbers, (32, 2))
)


def strip(num_segments: int) -> np.ndarray:
    """Segments `[2, S]`, one a column."""
    return np.broadcast_to(np.arange(num_segments), (2, num_segments)).copy()


def picture(num_segments: int) -> np.ndarray:
    return np.full((2, num_segments, 3), 0.5, np.float32)


def game(table) -> jax.tree_util.Partial:
    """Network on `strip(S)` with logits `table` `[2^S, K]`, segment i being bit i of the row."""
    return jax.tree_util.Partial(_look_up, jnp.asarray(table, jnp.float32))


def _look_up(table, image, masks):
    bits = masks[:, 0, :].astype(jnp.int32) << jnp.arange(masks.shape[2])[None]
    return table[bits.sum(axis=1)]


def shapley_by_loop(table) -> np.ndarray:
    """Shapley values `[K, S]` by their definition: all orders, one after the other."""
    table = np.asarray(table, np.float64)
    num_segments = int(np.log2(len(table)))
    scores, orders = np.zeros((table.shape[1], num_segments)), 0
    for order in itertools.permutations(range(num_segments)):
        seen, orders = 0, orders + 1
        for segment in order:
            scores[:, segment] += table[seen | 1 << segment] - table[seen]
            seen |= 1 << segment
    return scores / orders


def banzhaf_by_loop(table) -> np.ndarray:
    """Banzhaf values `[K, S]` by their definition."""
    table = np.asarray(table, np.float64)
    num_segments = int(np.log2(len(table)))
    scores = np.zeros((table.shape[1], num_segments))
    for segment in range(num_segments):
        for seen in range(len(table)):
            if not seen >> segment & 1:
                scores[:, segment] += table[seen | 1 << segment] - table[seen]
    return scores / 2 ** (num_segments - 1)


def smooth_table(num_segments: int, num_classes: int = 3, seed: int = 0) -> np.ndarray:
    """Table `[2^S, K]` of a network with interactions of pairs and of more segments."""
    rng = np.random.default_rng(seed)
    keep = np.array(list(itertools.product([0, 1], repeat=num_segments)))[:, ::-1]
    hidden = np.tanh(keep @ rng.normal(size=(num_segments, 6)) + rng.normal(size=6))
    return hidden @ rng.normal(size=(6, num_classes))
