"""`lmjax data wordnet`, from a little WordNet to what the removal study makes of the file."""

import sys

import numpy as np
import pytest

from lmjax import studies
from lmjax.cli.main import main
from lmjax.data.imagenet import synsets, wordnet
from lmjax.metrics import wordnet_similarity
from tests.studies import fakes
from tests.support import wordnet_database


@pytest.fixture
def ten_classes(little_wordnet, monkeypatch):
    """In place of ImageNet's."""
    ids = tuple(little_wordnet[word] for word in list(wordnet_database.PETS)[2:])
    monkeypatch.setattr(synsets, "synsets", lambda: ids)
    return ids


def test_the_removal_study_takes_the_file(ten_classes, tmp_path, capsys):
    file = tmp_path / "wordnet.npy"
    main(["data", "wordnet", "--output", str(file)])
    assert capsys.readouterr().out == f"wrote {file}\n"
    matrix = np.load(file)
    np.testing.assert_array_equal(matrix, wordnet_similarity(ten_classes))
    study = studies.SegmentRemoval(
        removals=("black",), orders=("random",), fractions=(0.0, 0.5), similarity=str(file)
    )
    rows = studies.run(
        study,
        fakes.Source(6),
        models={"a": fakes.network()},
        output=tmp_path / "run",
        progress=False,
    )
    curves = study.tables(rows)["curves"]
    assert [curve["fraction"] for curve in curves] == [0.0, 0.5]
    for curve in curves:
        chosen = fakes.pick(rows.to_pylist(), fraction=curve["fraction"])
        alike = [matrix[row["prediction"], row["label"]] for row in chosen]
        assert len(alike) == 6
        assert curve["similarity"] == pytest.approx(np.mean(alike))


def test_imagenets_order_is_that_of_the_rows(little_wordnet, monkeypatch, tmp_path):
    ids = little_wordnet["car"], little_wordnet["dog"], little_wordnet["wolf"]
    monkeypatch.setattr(synsets, "synsets", lambda: ids)
    wordnet.write_similarity(tmp_path / "few.npy")
    similarity = np.load(tmp_path / "few.npy")
    np.testing.assert_allclose(similarity[1], [4 / 7, 1, 10 / 12])


@pytest.mark.parametrize("missing", ["nltk.corpus", "corpus"])
def test_what_is_missing_is_said_in_a_line(missing, monkeypatch, tmp_path):
    if missing == "corpus":
        nltk = pytest.importorskip("nltk")
        monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    else:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as stopped:
        main(["data", "wordnet", "--output", str(tmp_path / "wordnet.npy")])
    (line,) = str(stopped.value).splitlines()
    assert line.startswith("lmjax: error: wordnet_similarity needs NLTK")
    assert 'pip install "lmjax[wordnet]"' in line
    assert "python -m nltk.downloader wordnet" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("wordnet.csv", r"output must end in \.npy"),
        ("none/wordnet.npy", "output folder .*none does not exist; create it first"),
    ],
)
def test_files_that_cannot_be_are_refused_before_the_work(output, message, monkeypatch, tmp_path):
    monkeypatch.setattr(synsets, "synsets", lambda: pytest.fail("too late"))
    with pytest.raises((ValueError, OSError), match=message):
        wordnet.write_similarity(tmp_path / output)


def test_only_a_similarity_is_replaced(ten_classes, tmp_path):
    path, size = tmp_path / "a.npy", len(ten_classes)
    wordnet.write_similarity(path)
    matrix = np.load(path)
    wordnet.write_similarity(path)  # again
    others = {
        "square": np.random.default_rng(0).random((size, size)),
        "of other classes": matrix[1:, 1:],
        "a distance": 1 - matrix,
        "asymmetric": np.triu(matrix) + np.tril(matrix, -1) / 2,
        "of whole numbers": np.ones((size, size), int),
        "a vector": matrix.ravel(),
        "objects": np.array({"a": 1}),
    }
    for name, other in others.items():
        np.save(path, other)
        content = path.read_bytes()
        with pytest.raises(ValueError, match=r"a\.npy exists and is not a similarity of Im"):
            wordnet.write_similarity(path)
        assert path.read_bytes() == content, name
    with open(path, "wb") as file:
        np.savez(file, matrix)
    for content in (path.read_bytes(), b"\x93NUMPY\x01", b"\x93NUMPY\x01\x00\x02\x00{}"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.npy exists and is not a similarity of Im"):
            wordnet.write_similarity(path)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ((1, 1), 0.93, "class 1 is 0.93 similar to itself, not 1"),
        ((0, 2), 0.4, "classes 0 and 2 is 0.4, or 0.5 the other way round"),
        (([0, 1], [1, 0]), 1.5, "classes 0 and 1 is 1.5"),
        (([0, 1], [1, 0]), 0.0, "must be one number above 0"),
        (([0, 1], [1, 0]), np.nan, "classes 0 and 1 is nan"),
    ],
    ids=["diagonal", "symmetric", "high", "low", "nan"],
)
def test_similarities_that_make_no_sense_are_errors(place, value, message):
    matrix = np.full((3, 3), 0.5)
    np.fill_diagonal(matrix, 1)
    wordnet.check_similarity(matrix)
    matrix[place] = value
    with pytest.raises(ValueError, match=message):
        wordnet.check_similarity(matrix)
