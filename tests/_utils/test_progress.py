import sys
import types

import numpy as np
import pytest

import lmjax
from lmjax._utils import progress
from lmjax._utils.progress import described, description, evaluated, heard, progress_bar
from lmjax.studies.progress import Progress


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr(progress, "on_terminal", lambda: True)


def test_bars_show_on_terminals_and_when_asked(monkeypatch, terminal):
    options = {"total": 3, "unit": " images"}
    assert not progress_bar(None, **options).disable
    assert progress_bar(False, **options).disable
    assert progress_bar(None, worth_it=False, **options).disable
    with monkeypatch.context() as environment:
        environment.setenv("TQDM_DISABLE", "1")
        assert progress_bar(None, **options).disable
        assert not progress_bar(True, **options).disable
    monkeypatch.setattr(progress, "on_terminal", lambda: False)
    assert progress_bar(None, **options).disable
    assert progress_bar(True, **options).mininterval == 60


def test_a_notebook_is_known_by_its_kernel(monkeypatch):
    shell = types.SimpleNamespace(config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert progress.in_notebook()
    shell.config = {"TerminalIPythonApp": {}}
    assert not progress.in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not progress.in_notebook()


def test_what_is_evaluated_is_described():
    with described("cat.jpg"), described("LIME", "", "grey"):
        assert description() == "cat.jpg, LIME, grey"
    assert description() == ""


def test_a_listener_hears_of_variants():
    counts = []
    with heard(counts.append):
        image, masks = np.zeros((4, 4, 1), np.float32), np.ones((5, 4, 4))
        lmjax.evaluate(lambda image, masks: masks.mean((1, 2))[:, None], image, masks, batch_size=2)
    evaluated(7)  # nobody listens
    assert sum(counts) == 5


def test_evaluations_of_an_explanation_name_method_and_removal(monkeypatch):
    named = []
    monkeypatch.setattr(
        "lmjax.evaluation.evaluator.evaluated", lambda _: named.append(description())
    )
    settings = {"segmenter": "grid", "num_samples": 12, "show_variants": 0, "crop": True}
    with pytest.warns(UserWarning, match="12 samples"):
        lmjax.explain("scene:0", removal=("grey",), **settings)
    assert "LIME, grey" in {*named}


def test_a_study_goes_on_image_by_image_once_a_block_is_done(terminal):
    with Progress("study", images=48, done=16, shown=None) as shown:
        bar = shown._bar
        assert (bar.total, bar.n, bar.initial) == (48, 16, 16)
        with shown.block(16), described("layer masking"):
            evaluated(80)
            assert bar.n == 16  # nothing is known yet of how many there will be
        assert bar.n == 32
        assert bar.postfix == "layer masking"
        with shown.block(16):
            evaluated(22)
            assert bar.n == 32 + 4
            evaluated(800)  # images may take more than those before
            assert bar.n == 32 + 15
        assert bar.n == 48
