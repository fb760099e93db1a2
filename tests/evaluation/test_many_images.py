"""Calls of attributions and metrics with several images, against one call for each."""

import dataclasses
import inspect

import jax
import numpy as np
import pytest

import lmjax
from lmjax import attribution
from lmjax.evaluation import many_images
from tests.support import public_calls
from tests.support.public_calls import IMAGE, KEY, PREDICTOR, SEGMENTS, small_network

NUMBER = 3
IMAGES = np.stack([IMAGE, IMAGE[::-1], 0.5 * IMAGE])
# Other numbers of segments in each image.
SEGMENTATIONS = [SEGMENTS, SEGMENTS // 2, SEGMENTS // 4]
# Batches that every call fills: a pool's are then as large as those of a single image.
EVALUATOR = lmjax.Evaluator(PREDICTOR, batch_size=2)
OWN = {"image": IMAGES, "segments": SEGMENTATIONS}


def _calls():
    for module in ("attribution", "metrics"):
        for name, call in public_calls.calls(module).items():
            if "image" in inspect.signature(call.function).parameters:
                yield pytest.param(call, id=f"{module}.{name}")


@pytest.mark.filterwarnings("ignore:20 samples for")
@pytest.mark.parametrize("call", list(_calls()))
def test_a_call_with_images_equals_calls_with_each(call):
    arguments = dict(call.arguments)
    if arguments.get("predictor") is PREDICTOR:
        arguments["predictor"] = EVALUATOR
    own = {name: value for name, value in OWN.items() if name in arguments}
    if "segments" in own and arguments["segments"].max() < 4:  # few, where all are evaluated
        own["segments"] = [SEGMENTS // 4, SEGMENTS // 8, SEGMENTS // 4]
    if "heatmap" in arguments:
        own["heatmap"] = [k * arguments["heatmap"] for k in (1, -1, 2)]
    found = call.function(**{**arguments, **own})
    assert isinstance(found, list)
    assert len(found) == NUMBER
    for i, result in enumerate(found):
        each = {name: value[i] for name, value in own.items()}
        _assert_equal(result, call.function(**{**arguments, **each}))


def _assert_equal(found, expected):
    """To the bit, everything but how records describe arrays."""
    assert type(found) is type(expected)
    if dataclasses.is_dataclass(found):
        for field in dataclasses.fields(found):
            if field.name != "record":
                _assert_equal(getattr(found, field.name), getattr(expected, field.name))
        if getattr(found, "record", None) is not None:
            assert dataclasses.asdict(found.record) == dataclasses.asdict(expected.record)
    elif isinstance(found, tuple):
        assert len(found) == len(expected)
        for pair in zip(found, expected):
            _assert_equal(*pair)
    else:
        np.testing.assert_array_equal(found, expected)


def explain(**changed):
    """LIME on three images."""
    arguments = {"predictor": EVALUATOR, **OWN, "key": KEY, "num_samples": 120, **changed}
    return attribution.lime(**arguments)


def test_variants_of_all_images_are_one_evaluation(monkeypatch):
    sizes, run = [], lmjax.Evaluator._run

    def counted(self, job):
        sizes.append(job.num_variants)
        return run(self, job)

    monkeypatch.setattr(lmjax.Evaluator, "_run", counted)
    explain(segments=SEGMENTS)  # shared
    assert sizes == [NUMBER * 120]


@pytest.mark.parametrize("engine", ["auto", "visible", "shared"])
def test_images_under_other_engines(engine):
    predictor = lmjax.Predictor(small_network(), lmjax.LayerMasking())
    found = explain(predictor=lmjax.Evaluator(predictor, engine=engine))
    expected = explain(predictor=lmjax.Evaluator(predictor, engine="dense"))
    for pair in zip(found, expected):
        np.testing.assert_allclose(*[each.scores for each in pair], atol=1e-5)


def test_more_images_than_are_under_way_at_a_time(monkeypatch):
    expected = explain()
    monkeypatch.setattr(many_images, "_TOGETHER", 2)
    for pair in zip(explain(), expected, strict=True):
        np.testing.assert_array_equal(*[each.scores for each in pair])


def test_images_of_different_sizes_in_a_list():
    images = [IMAGE, IMAGE[:, :4], IMAGE[:6]]
    parts = [SEGMENTS, SEGMENTS[:, :2] * 0, SEGMENTS[:6]]
    parts[1] = np.arange(32).reshape(8, 4) // 8
    found = explain(image=images, segments=parts)
    for image, segments, each in zip(images, parts, found):
        alone = explain(image=image, segments=segments)
        np.testing.assert_array_equal(each.scores, alone.scores)


def test_every_image_has_its_own_target():
    found = explain(target=[2, None, (0, 1)])
    assert found[0].target == 2
    assert found[1].target == found[1].predicted_class
    assert found[2].target == (0, 1)
    assert found[2].scores.shape == (2, 3)
    assert [each.target for each in explain(target=1)] == [1] * NUMBER


def test_a_key_for_each_image_or_one_for_all():
    keys = jax.random.split(KEY, NUMBER)
    found = explain(key=keys, segments=SEGMENTS)
    for i in range(NUMBER):
        alone = explain(key=keys[i], image=IMAGES[i], segments=SEGMENTS)
        np.testing.assert_array_equal(found[i].scores, alone.scores)
    assert not np.array_equal(found[0].scores, explain(segments=SEGMENTS)[0].scores)
    raw = explain(key=jax.random.key_data(keys), segments=SEGMENTS)
    np.testing.assert_array_equal(raw[2].scores, found[2].scores)


def test_sampling_goes_on_for_every_image():
    found = explain(num_samples=200, previous=explain())
    for each, expected in zip(found, explain(num_samples=200)):
        assert each.num_variants == 200
        np.testing.assert_allclose(each.scores, expected.scores, atol=1e-6)


def test_images_stop_at_their_own_numbers():
    asked = []

    def until(scores, errors):
        asked.append(scores.shape)
        return scores.shape[-1] < 12

    found = explain(num_samples=200, until=until)
    assert found[0].num_variants == 200
    assert found[1].num_variants < found[0].num_variants


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"segments": SEGMENTATIONS[:2]}, "segments must have an entry for each of the 3 images"),
        ({"target": [0, 1]}, "target must have an entry for each of the 3 images, got 2 entries"),
        ({"target": [0, 1, 99]}, "image 2: target must be from 0 to"),
        ({"key": 0}, "image 0: key must be"),
        ({"key": jax.random.split(KEY, 2)}, "key must have an entry for each of the 3 images"),
        ({"target": 99}, "image 0: target must be from 0 to"),
        ({"previous": 1}, "previous must have an entry for each of the 3 images"),
        ({"image": np.zeros((0, 8, 6, 3))}, "image must hold at least one image"),
        ({"image": np.stack([IMAGE, IMAGE, 2 + IMAGE])}, "image 2: image"),
        ({"segments": [SEGMENTS, SEGMENTS, SEGMENTS + 1]}, "image 2: segments"),
    ],
)
def test_what_does_not_fit_names_the_argument_and_the_image(changed, message):
    with pytest.raises(ValueError, match=message):
        explain(**changed)


def test_missing_arguments_are_those_of_the_function():
    with pytest.raises(TypeError, match="lime"):
        attribution.lime(EVALUATOR, IMAGES)
    returned = inspect.signature(attribution.lime).return_annotation
    assert returned is attribution.Attribution


def test_few_samples_are_said_once_for_all_images():
    with pytest.warns(UserWarning, match="50 samples for 12 segments") as said:
        explain(num_samples=50, segments=SEGMENTS)
    assert len(said) == 1


def test_progress_counts_images_where_the_evaluator_shows_it(capsys, monkeypatch):
    monkeypatch.setattr(many_images, "_TOGETHER", 2)
    explain(predictor=dataclasses.replace(EVALUATOR, progress=False))
    assert "images" not in capsys.readouterr().err
    explain(predictor=dataclasses.replace(EVALUATOR, progress=True))
    assert "3/3" in capsys.readouterr().err
