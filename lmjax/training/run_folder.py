"""The folder of a training run: what it depends on, checkpoints, metrics.

    OUT/manifest.json                              what the run depends on
    OUT/checkpoints/00000750                       the state after 750 steps (orbax)
    OUT/metrics/00000375-00000750.parquet          a row for each step from 376 to 750
    OUT/NETWORK.safetensors                        the trained weights, at the end

All appear whole or not at all. Metrics up to a checkpoint are there before the checkpoint is, and a
run that goes on from it makes the later ones again. While a process trains, no other can use the
folder.
"""

import contextlib
import logging
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lmjax._utils.atomic import atomic_write
from lmjax._utils.identity import plain
from lmjax._utils.renamed import renamed
from lmjax._utils.run_folder import (
    MANIFEST,
    alone,
    check_free,
    check_identity,
    is_temporary,
    read_manifest,
    write_json,
)
from lmjax._utils.text import one_line
from lmjax.training.step import TrainState

_KEPT = 2  # checkpoints: should the disk damage the last, there is another
_KIND = "training"
_CHECKPOINT = re.compile("[0-9]{8,}")
_UNFINISHED = re.compile(r"[0-9]{8,}\.orbax-checkpoint-tmp.*")
_METRICS = re.compile(r"[0-9]{8,}-([0-9]{8,})\.parquet")
_COLUMNS = pa.schema(
    [
        *(("step", pa.int64()), ("epoch", pa.int64()), ("seconds", pa.float64())),
        *(("loss", pa.float64()), ("accuracy", pa.float64()), ("gradient_norm", pa.float64())),
        *(("learning_rate", pa.float64()), ("test_accuracy", pa.float64())),
    ]
)


class RunFolder:
    """The folder of a training run; of processes that share a run, the first alone uses it.

    Args:
      output: the folder.
    """

    def __init__(self, output: str | os.PathLike):
        self.output = Path(output).absolute()
        self._checkpoints, self._metrics = self.output / "checkpoints", self.output / "metrics"
        self._held = contextlib.ExitStack()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_) -> None:
        self._held.close()

    def claim(self, identity: dict[str, Any]) -> None:
        """Makes the folder if needed, and keeps other processes out until the context ends.

        A folder without checkpoints and weights, such as a run leaves that could not start, is as
        good as a new one.

        Args:
          identity: what the run depends on, as JSON can hold it.

        Raises:
          ValueError: the folder holds a run that depends on something else, and says what; files
            that are not of a training; or another process trains in it.
          OSError: it cannot be written.
        """
        check_free(self.output, _KIND)
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(alone(self.output))
            if self.checkpoints() or any(self.output.glob("*.safetensors")):
                found = plain(read_manifest(self.output, _KIND))
                wanted = plain(identity)
                if "files" not in found:  # a run from before these were recorded
                    wanted.pop("files", None)
                check_identity(self.output, found, wanted, holds="another run")
            write_json(self.output / MANIFEST, plain(identity))
            for folder in (self._checkpoints, self._metrics):
                folder.mkdir(exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise OSError(f"output {self.output} cannot be written: {reason}") from error

    def checkpoints(self) -> list[int]:
        """Returns the steps that have a checkpoint, without the leftovers of killed runs."""
        names = (path.name for path in self._checkpoints.glob("*"))
        return sorted(int(name) for name in names if _CHECKPOINT.fullmatch(name))

    def restore(self, like: TrainState) -> TrainState | None:
        """Restores the state of the last checkpoint, or returns None where there is none.

        Files that a killed run has left beyond it are removed.

        Args:
          like: shapes and dtypes, such as `jax.eval_shape` gives.

        Returns:
          NumPy arrays.

        Raises:
          ValueError: a damaged checkpoint.
        """
        steps = self.checkpoints()
        last = steps[-1] if steps else 0
        for path in self._metrics.iterdir():
            written = _METRICS.fullmatch(path.name)
            if is_temporary(path.name) or (written and int(written[1]) > last):
                path.unlink()
        for path in self._checkpoints.iterdir():
            if _UNFINISHED.fullmatch(path.name):
                shutil.rmtree(path)
        if not steps:
            return None
        path = self._checkpoints / f"{last:08}"
        try:
            with _checkpointer() as checkpointer:
                empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), like)
                return checkpointer.restore(path, empty)
        except Exception as error:  # orbax and tensorstore raise a dozen types on damaged files
            raise ValueError(
                f"{path} is not a readable checkpoint ({type(error).__name__}); delete it to go on "
                "from the one before, or from the start"
            ) from error

    def save(self, state: TrainState, rows: list[dict[str, float]]) -> None:
        """Saves a checkpoint, and the metrics of the steps since the one before.

        Args:
          state: NumPy arrays, which orbax takes from one process of a cluster, as it does not
            those of one device.
          rows: of metrics.

        Raises:
          OSError: it cannot be written, as on a full disk.
        """
        step = int(state.step)
        if step in self.checkpoints():
            return
        try:
            self._save(step, state, rows)
        except Exception as error:  # orbax and tensorstore raise a dozen types on full disks
            reason = getattr(error, "strerror", None) or one_line(error)[:200]
            kept = ", ".join(map(str, self.checkpoints())) or "(none)"
            raise OSError(
                f"the checkpoint of step {step} cannot be written to {self.output} ({reason}); "
                f"those of steps {kept} are kept: make room and run again to go on"
            ) from error

    def _save(self, step: int, state: TrainState, rows: list[dict[str, float]]) -> None:
        path = self._metrics / f"{step - len(rows):08}-{step:08}.parquet"
        with atomic_write(path) as temporary:
            pq.write_table(pa.Table.from_pylist(rows, _COLUMNS), temporary)
        with _silent_threads(), _checkpointer() as checkpointer:
            # Waits for the disk: the next step overwrites the memory that is being written.
            checkpointer.save(self._checkpoints / f"{step:08}", state)
            checkpointer.wait_until_finished()
        for old in self.checkpoints()[:-_KEPT]:
            shutil.rmtree(self._checkpoints / f"{old:08}")


@renamed(out="output")
def read_metrics(output: str | os.PathLike) -> pa.Table:
    """Reads the metrics of a run, one row for each step, up to its last checkpoint.

    Columns: `step` and `epoch` from 1, `seconds` since the process started to train, `loss` and
    `accuracy` of the batch before the step, `gradient_norm`, `learning_rate`; `test_accuracy` after
    the last step of each epoch, elsewhere null.

    Args:
      output: folder of the run.

    Raises:
      ValueError: there are none, or a file is damaged.
    """
    paths = [
        path
        for path in sorted((Path(output) / "metrics").glob("*"))
        if _METRICS.fullmatch(path.name)
    ]
    if not paths:
        raise ValueError(f"{output} has no metrics yet, or is no folder of a training run")
    return pa.concat_tables(map(_read_metrics, paths))


def _read_metrics(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read([*_COLUMNS.names]).cast(_COLUMNS)
    except Exception as error:  # pyarrow raises half a dozen types on damaged bytes
        raise ValueError(f"{path} is damaged ({one_line(error)}); its steps are lost") from error


@contextlib.contextmanager
def _silent_threads():
    """Keeps orbax from printing tracebacks of its threads: the error that it raises is enough."""
    hook, log = threading.excepthook, logging.getLogger("absl")
    level = log.level
    threading.excepthook = lambda _: None
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        threading.excepthook = hook
        log.setLevel(level)


@contextlib.contextmanager
def _checkpointer():
    import orbax.checkpoint  # takes a second

    # Or it would wait for the other processes of a cluster.
    alone = orbax.checkpoint.options.MultiprocessingOptions(active_processes={0})
    with orbax.checkpoint.StandardCheckpointer(multiprocessing_options=alone) as checkpointer:
        yield checkpointer
