"""Scalars of a run for TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from reszoo.lazy import tf
from reszoo.training.run import Run
from reszoo.types import JsonObject


class TensorBoard:
    """Writes the history of a run for TensorBoard, in one file per process.

    Args:
        run: The run folder.
        history: Rows from before a resume, which are written again.
    """

    def __init__(self, run: Run, history: Sequence[JsonObject]) -> None:
        folder = run.path / "tensorboard"
        if run.writes:
            shutil.rmtree(folder, ignore_errors=True)
            self._writer = tf.summary.create_file_writer(str(folder))
        else:
            self._writer = tf.summary.create_noop_writer()
        for row in history:
            self.add(row)

    def add(self, row: JsonObject) -> None:
        """Write one row of the history."""
        with self._writer.as_default():
            for key, value in row.items():
                if key not in ("step", "epoch"):
                    tf.summary.scalar(key, value, step=row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
