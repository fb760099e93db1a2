"""Requests for variants: methods ask, and are answered one at a time or as one pool of variants.

A method that evaluates variants is a generator: where it needs logits it yields a `Request` and is
sent them, and at the end it returns its result. It cannot tell whether it runs alone or beside the
same method on other images (`lmjax.evaluation.many_images`), whose requests are evaluated together.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jax.typing import ArrayLike

from lmjax.evaluation.evaluator import Evaluator
from lmjax.evaluation.jobs import check_variants, split
from lmjax.evaluation.target import check_target
from lmjax.masks.families import MaskFamily
from lmjax.masks.pooled import PooledMasks, kind_of

R = TypeVar("R")


class Request(NamedTuple):
    """A request for the logits of variants of one image.

    Attributes:
      evaluator: of the variants.
      image: `[H, W, C]`.
      masks: a family of masks.
      target: class or classes, which are checked before the run; or None.
      expected: as in a call of the evaluator.
    """

    evaluator: Evaluator
    image: ArrayLike
    masks: MaskFamily
    target: int | Sequence[int] | None = None
    expected: int | None = None


Asking = Generator[Request, np.ndarray, R]
"""A method under way: it yields requests, is sent logits `[N, K]`, and returns its result."""


class _Finished(NamedTuple):
    """What a method returned."""

    result: Any


def answered(asking: Asking[R]) -> R:
    """Runs a method, answering each of its requests at once."""
    state = _step(asking, None)
    while isinstance(state, Request):
        state = _step(asking, _answer(state))
    return state.result


def answered_together(starts: Mapping[int, Callable[[], Asking[R]]]) -> list[R]:
    """Runs a method on several images side by side; what they ask for is evaluated as one pool.

    Args:
      starts: number of each image -> function that starts the method on it.

    Returns:
      Their results, in order.

    Raises:
      ValueError: what a method or an evaluation raises, with the number of its image.
    """
    askings: dict[int, Asking[R]] = {}
    results: dict[int, R] = {}
    for i, start in starts.items():
        with of_image(i):
            askings[i] = start()
    answers: Mapping[int, Any] = dict.fromkeys(askings)
    while answers:
        requests = {}
        for i, logits in answers.items():
            with of_image(i):
                state = _step(askings[i], logits)
            if isinstance(state, Request):
                requests[i] = state
            else:
                results[i] = state.result
        answers = _answers(requests)
    return [results[i] for i in askings]


@contextlib.contextmanager
def of_image(number: int) -> Iterator[None]:
    """Puts the number of an image before the text of errors."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"image {number}: {error}") from error


def _step(asking: Asking, logits: np.ndarray | None) -> Request | _Finished:
    """Goes on with a method to its next request, or its end."""
    try:
        return asking.send(logits)  # type: ignore[arg-type]  # None starts it
    except StopIteration as stop:
        return _Finished(stop.value)


def _answer(request: Request) -> np.ndarray:
    """Evaluates one request."""
    evaluator, image, masks, target, expected = request
    if target is not None:  # before the long run, not after it
        check_target(target, evaluator.num_classes(image, masks))
    return evaluator(image, masks, expected=expected)


def _answers(requests: Mapping[int, Request]) -> dict[int, np.ndarray]:
    """Evaluates the requests of several images, those of one kind as one pool."""
    checked, kinds = {}, defaultdict(list)
    for i, request in requests.items():
        with of_image(i):
            found = check_variants(request.evaluator.predictor, request.image, request.masks)
        checked[i] = request._replace(image=found[0], masks=found[1])
        kinds[_kind(checked[i])].append(i)
    answers = {}
    for numbers in kinds.values():
        answers |= _pool({i: checked[i] for i in numbers})
    return answers


def _kind(request: Request) -> Hashable:
    """Returns what requests have in common that can be one pool."""
    evaluator = request.evaluator
    arrays, static = split(evaluator.predictor)
    options = type(evaluator), evaluator.engine, evaluator.batch_size, evaluator.mesh
    same = tuple(map(id, arrays)), static, options
    return same, np.shape(request.image), kind_of(request.masks)


def _pool(requests: Mapping[int, Request]) -> dict[int, np.ndarray]:
    """Evaluates the requests of several images, all of one kind."""
    first = next(iter(requests.values()))
    images = np.stack([np.asarray(request.image) for request in requests.values()])
    masks = PooledMasks([request.masks for request in requests.values()])
    if any(request.target is not None for request in requests.values()):
        count = first.evaluator.num_classes(images, masks, image_of=masks.image_of)
        for i, request in requests.items():
            with of_image(i):
                check_target(request.target, count)
    expected = sum(request.expected or len(request.masks) for request in requests.values())
    options = {"image_of": masks.image_of, "expected": expected}
    logits = first.evaluator.images(images, masks, **options)
    ends = np.cumsum([len(each) for each in masks.families])[:-1]
    return dict(zip(requests, np.split(logits, ends)))
