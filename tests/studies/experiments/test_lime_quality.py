"""The study of LIME against plain NumPy, and where the right answer is known."""

import dataclasses

import jax
import numpy as np
import pyarrow as pa
import pytest

import lmjax
from lmjax.masks.coalitions import random_keep
from lmjax.metrics import win_rates
from lmjax.studies.experiments.lime_quality import LimeQuality
from lmjax.studies.images import ImageBatch
from lmjax.studies.samples import read_sample
from tests.studies import fakes
from tests.studies.fakes import pick

SMALL = LimeQuality(grid_size=8, num_samples=48, ks=(1, 3, 20), top=4)
IMAGES = (0, 1, 2)
SQUARES = lmjax.segments.grid(np.zeros((fakes.SIZE, fakes.SIZE, 3)), size=8)
COLOURS = {"black": 0.0, "grey": 0.5}  # grey is the mean of the preprocessing


def batch_of(images=IMAGES, networks=None, source=None):
    source = fakes.Source(20) if source is None else source
    networks = {"a": fakes.network()} if networks is None else networks
    return ImageBatch([read_sample(source, i) for i in images], networks, key=jax.random.key(0))


@pytest.fixture(scope="module")
def rows():
    return SMALL.rows(batch_of())


def plain_logits(network, image, keep, colour):
    """What the fake network says, in NumPy, of an image whose hidden squares are painted."""
    visible = keep[SQUARES]
    painted = np.where(visible[..., None], image, colour)
    return np.tanh(((painted - 0.5) / 0.5).ravel() @ weights_of(network))


def weights_of(network):
    return np.asarray(network.weights, np.float64).reshape(-1, 10)


def plain_lime(network, image, colour, keep):
    """The regression of the `lime` package, in NumPy."""
    logits = np.array([plain_logits(network, image, each, colour) for each in keep])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = shares[:, logits[0].argmax()]
    distance = 1 - np.sqrt(keep.mean(axis=1))
    weight = np.sqrt(np.exp(-(distance**2) / 0.25**2))
    x = keep - np.average(keep, axis=0, weights=weight)
    y = y - np.average(y, weights=weight)
    normal = (x * weight[:, None]).T @ x + np.eye(x.shape[1])
    return np.linalg.solve(normal, (x * weight[:, None]).T @ y)


def test_the_objective_is_explained():
    batch = batch_of()
    scores = {
        objective: dataclasses.replace(SMALL, objective=objective).explain(batch, "a", ["grey"])
        for objective in ("probability", "logit", "margin")
    }
    network, segments = fakes.network(), SMALL.segments(batch, "a")
    for i in range(len(IMAGES)):
        keep = np.asarray(
            random_keep(segments[i].max() + 1, 48, key=jax.random.fold_in(batch.keys[i], 0))
        )
        logits = [plain_logits(network, batch.images("a")[i], each, 0.5) for each in keep]
        values = np.array(logits)
        target = values[0].argmax()
        others = np.delete(values, target, axis=1).max(axis=1)
        margins = values[:, target] - others
        for objective, y in (("logit", values[:, target]), ("margin", margins)):
            expected = lmjax.attribution.lime_regression(keep, y)[0]
            np.testing.assert_allclose(scores[objective][i][0], expected, atol=2e-5)
    with pytest.raises(ValueError, match="objective must be one of probability, logit, margin"):
        dataclasses.replace(SMALL, objective="entropy")


def test_every_combination_has_a_row(rows):
    assert len(rows) == len(IMAGES) * 3 * 3 * 3
    columns = ("image", "removal", "evaluated_under", "k")
    assert len({tuple(row[c] for c in columns) for row in rows}) == len(rows)


@pytest.mark.parametrize("removal", COLOURS)
def test_rows_are_those_of_plain_numpy(rows, removal):
    network, source = fakes.network(), fakes.Source(20)
    batch = batch_of()
    for i, index in enumerate(IMAGES):
        item = source[index]
        image, mask = item["image"] / 255, item["object_mask"]
        keep = np.asarray(random_keep(16, 48, key=jax.random.fold_in(batch.keys[i], 0)))
        scores = plain_lime(network, image, COLOURS[removal], keep)
        share = mask.reshape(4, 8, 4, 8).sum(axis=(1, 3)).ravel() - 64 * mask.mean()
        ranked = np.argsort(-scores)
        top = np.isin(SQUARES, ranked[:4])
        for row in pick(rows, image=index, removal=removal):
            cosine = scores @ share / np.sqrt((scores @ scores) * (share @ share))
            assert row["alignment"] == pytest.approx(cosine, abs=1e-4)
            assert row["iou"] == pytest.approx((top & mask).sum() / (top | mask).sum())
            under = removal if row["evaluated_under"] == "own" else row["evaluated_under"]
            # Under layer masking the fake network reads hidden squares as its mean colour.
            colour = COLOURS.get(under, 0.5)
            shown = ~np.isin(np.arange(16), ranked[: row["k"]])
            logits = plain_logits(network, image, shown, colour)
            assert row["prediction"] == logits.argmax()
            whole = plain_logits(network, image, np.ones(16, bool), 0)
            assert row["unchanged"] == (logits.argmax() == whole.argmax())
            assert row["correct"] == (logits.argmax() == index % 10)
            assert row["removed"] == min(row["k"], 16)
            assert row["visible"] == pytest.approx(shown.mean())


@pytest.mark.filterwarnings("ignore:48 samples for 16 segments")
def test_scores_are_those_of_the_method():
    batch, names = batch_of((2,)), ("layer", "gaussian_noise")
    (scores,) = SMALL.explain(batch, "a", names)
    noise, key = batch._two_keys()[0, 1], jax.random.fold_in(batch.keys[0], 0)
    for name, found in zip(names, scores, strict=True):
        predictor = lmjax.Predictor(fakes.network(), lmjax.removals.make(name, key=noise))
        image = batch.images("a")[0]
        expected = lmjax.attribution.lime(predictor, image, SQUARES, key=key, num_samples=48)
        np.testing.assert_allclose(found, expected.scores, atol=1e-5)


def test_a_network_that_reads_one_square_is_explained_by_it_whatever_the_removal():
    square = SQUARES == 6

    class Bright(fakes.Source):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            image = np.where(square[..., None], 255, item["image"]).astype(np.uint8)
            return item | {"image": image, "label": 3, "object_mask": square}

    weights = np.zeros((fakes.SIZE, fakes.SIZE, 3, 10), np.float32)
    weights[square, :, 3] = 0.01
    network = dataclasses.replace(fakes.network(), weights=jax.numpy.asarray(weights))
    study = dataclasses.replace(
        SMALL, removals=("layer", "black", "grey", "gaussian_noise"), top=1, ks=(1,)
    )
    rows = study.rows(batch_of(networks={"a": network}, source=Bright(20)))
    assert {row["iou"] for row in rows} == {1}
    # The cosine of e_6 and 16 e_6 - 1; the penalty leaves a little to the other squares.
    expected = pytest.approx([np.sqrt(15) / 4] * len(rows), abs=0.05)
    assert [row["alignment"] for row in rows] == expected
    for row in pick(rows, evaluated_under="layer") + pick(rows, evaluated_under="grey"):
        assert not row["correct"]  # nothing speaks for class 3 any more


def test_what_is_known_is_not_asked_again():
    study = dataclasses.replace(SMALL, removals=("grey", "black"), num_samples=2, ks=(1, 16, 20))
    batch = batch_of()
    study.rows(batch)
    # Of each image: whole once; one coalition under each removal. Own and grey share what they ask
    # for grey; 16 and 20 of 16 squares are all of them, whatever the order.
    most = 1 + 2 + (2 + 1) + (1 + 1) + (2 + 1)
    assert batch.evaluations <= len(IMAGES) * most
    alone = dataclasses.replace(study, removals=("grey",), evaluated_under=("own", "grey"))
    batch = batch_of()
    rows = alone.rows(batch)
    assert batch.evaluations == len(IMAGES) * (1 + 1 + 1 + 1)
    of_own, of_grey = (pick(rows, evaluated_under=under) for under in ("own", "grey"))
    assert [row["prediction"] for row in of_own] == [row["prediction"] for row in of_grey]


def test_rows_do_not_depend_on_the_division_into_blocks(rows):
    (alone, together) = SMALL.rows(batch_of((2,))), pick(rows, image=2)
    floats = ("probability", "alignment")
    for one, other in zip(alone, together, strict=True):
        for name in floats:
            assert one[name] == pytest.approx(other[name], abs=1e-5)
        assert one | dict.fromkeys(floats) == other | dict.fromkeys(floats)


def test_segments_of_differing_numbers():
    study = dataclasses.replace(SMALL, segmenter="slic", n_segments=9, removals=("black",))
    rows = study.rows(batch_of())
    for row in rows:
        image = fakes.Source(20)[row["image"]]["image"] / np.float32(255)
        count = lmjax.segments.slic(image, n_segments=9).max() + 1
        assert row["segments"] == count
        assert row["removed"] == min(row["k"], count)


def made_up(images=6):
    """Rows with known means: the first image is not classified correctly."""
    rng = np.random.default_rng(0)
    rows = []
    for image in range(images):
        for removal in SMALL.removals:
            about = {"alignment": rng.random(), "iou": rng.integers(3) / 2}
            for under in SMALL.evaluated_under:
                for k in SMALL.ks:
                    rows.append(
                        {
                            **{"image": image, "network": "a", "label": 1, "removed": k},
                            **{"whole_prediction": int(image > 0), "visible": 1 - k / 20},
                            **{"removal": removal, "evaluated_under": under, "k": k},
                            **{"correct": bool(rng.random() < 0.5), **about},
                        }
                    )
    return rows


def test_tables_are_of_what_is_classified_correctly():
    rows = made_up()
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    right = [row for row in rows if row["image"] > 0]
    for mean in tables["means"]:
        chosen = pick(right, removal=mean["removal"])
        assert mean["images"] == 5
        assert mean["alignment"] == pytest.approx(np.mean([r["alignment"] for r in chosen]))
        assert mean["alignment_low"] < mean["alignment"] < mean["alignment_high"]
        under_grey = [r["correct"] for r in chosen if r["evaluated_under"] == "grey"]
        assert mean["accuracy_grey"] == pytest.approx(np.mean(under_grey))
    means = {row["removal"]: row for row in tables["means"]}
    (difference,) = pick(tables["differences"], removal="grey")
    assert difference["against"] == "layer"
    assert difference["iou"] == pytest.approx(means["grey"]["iou"] - means["layer"]["iou"])
    assert len(tables["curves"]) == 3 * 3 * 3
    (curve,) = pick(tables["curves"], removal="black", evaluated_under="layer", k=3)
    chosen = pick(right, removal="black", evaluated_under="layer", k=3)
    assert curve["accuracy"] == pytest.approx(np.mean([r["correct"] for r in chosen]))
    assert (curve["removed"], curve["visible"]) == (3, pytest.approx(0.85))


@pytest.mark.parametrize("metric", ["alignment", "iou", "accuracy_own"])
def test_wins_are_those_of_the_metric(metric):
    rows = [row for row in made_up() if row["image"] > 0]
    scores = np.zeros((5, 3))
    for row in rows:
        place = row["image"] - 1, SMALL.removals.index(row["removal"])
        if metric != "accuracy_own":
            scores[place] = row[metric]
        elif row["evaluated_under"] == "own":
            scores[place] -= row["correct"]
    expected = win_rates(scores, key=jax.random.key(0)).mean
    wins = pick(SMALL.tables(pa.Table.from_pylist(rows))["wins"], metric=metric)
    assert len(wins) == 6 + 3
    for row in wins:
        i = SMALL.removals.index(row["removal"])
        if row["against"] == "all others":
            best = scores == scores.max(axis=1, keepdims=True)
            assert row["wins"] == pytest.approx((best[:, i] / best.sum(axis=1)).mean())
        else:
            against = SMALL.removals.index(row["against"])
            assert row["wins"] == pytest.approx(expected[i, against])


def test_an_image_whose_alignment_is_not_known_costs_itself_alone():
    rows = made_up()
    tables = [
        SMALL.tables(pa.Table.from_pylist(each))
        for each in (
            rows,
            [row for row in rows if row["image"] != 3],
            [row | {"alignment": np.nan} if row["image"] == 3 else row for row in rows],
        )
    ]
    for name in ("means", "differences"):
        for whole, without, row in zip(*(each[name] for each in tables), strict=True):
            assert (row["images"], row["alignment_images"]) == (5, 4)
            assert row["alignment"] == pytest.approx(without["alignment"])
            assert row["alignment_low"] < row["alignment"] < row["alignment_high"]
            assert row["iou"] == pytest.approx(whole["iou"])
    for whole, without, row in zip(*(each["wins"] for each in tables), strict=True):
        known = row["metric"] != "alignment"
        assert row["wins_images"] == (5 if known else 4)
        assert row["wins"] == pytest.approx((whole if known else without)["wins"])
        assert np.isfinite([row["wins_low"], row["wins_high"]]).all()
    assert list(SMALL.figures(tables[2])) == ["a", "a wins"]


def test_removals_are_compared_on_the_images_on_which_both_are_known():
    lost = {"image": 3, "removal": "black"}
    rows = [
        row | {"alignment": np.nan} if lost.items() <= row.items() else row for row in made_up()
    ]
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    assert [row["alignment_images"] for row in tables["means"]] == [5, 4, 5]
    values = {
        removal: np.array([row["alignment"] for row in pick(rows, removal=removal)[9::9]])
        for removal in ("layer", "black")
    }
    (difference,) = pick(tables["differences"], removal="black")
    gained = values["black"] - values["layer"]
    assert difference["alignment"] == pytest.approx(np.nanmean(gained))
    (won,) = pick(tables["wins"], metric="alignment", removal="black", against="layer")
    assert won["wins"] == np.mean(gained[np.isfinite(gained)] > 0)
    (best,) = pick(tables["wins"], metric="alignment", removal="grey", against="all others")
    assert (won["wins_images"], best["wins_images"]) == (4, 4)


def test_figures_show_every_removal_and_every_metric():
    tables = SMALL.tables(pa.Table.from_pylist(made_up()))
    figures = SMALL.figures(tables)
    assert list(figures) == ["a", "a wins"]
    assert [len(ax.lines) for ax in figures["a"].axes] == [4, 4, 4]  # and chance
    shown = figures["a wins"].axes
    numbers = [[text for text in ax.texts if text.get_text() != "-"] for ax in shown]
    assert [*map(len, numbers)] == [6] * 5
    (alone,) = pick(tables["means"], removal="black")
    rows = [row for row in made_up() if row["removal"] == "black"]
    tables = SMALL.tables(pa.Table.from_pylist(rows))
    assert tables["means"][0] == alone
    assert list(tables) == ["means", "curves"]
    assert list(SMALL.figures(tables)) == ["a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"removals": ("blak",)}, "removals must be one of"),
        ({"evaluated_under": ("blak",)}, "evaluated_under, unless 'own', must be one of"),
        ({"evaluated_under": ()}, "evaluated_under must be one or more"),
        ({"evaluated_under": ("own", "own")}, "each once"),
        ({"segmenter": "voronoi"}, "segmenter must be"),
        ({"num_samples": 1}, "num_samples must be a whole number, 2 or more"),
        ({"top": 0}, "top must be a whole number, 1 or more"),
        ({"ks": (2, 1)}, "ks must be .* 1 or more"),
        ({"ks": (0, 1)}, "ks must be .* 1 or more"),
        ({"ks": ()}, "ks must be .* 1 or more"),
        ({"n_segments": 0}, "n_segments must be a whole number, 1 or more"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        LimeQuality(**options)


def test_removals_of_the_evaluation_must_fit_the_networks():
    study = LimeQuality(removals=("grey",), evaluated_under=("own", "token_dropping"))
    with pytest.raises(ValueError, match="token_dropping does not fit network a; take masking"):
        study.check({"a": lmjax.models.load("resnet18_digits")})
