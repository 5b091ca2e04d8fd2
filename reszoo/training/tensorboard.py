"""Scalars of a run for TensorBoard."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from reszoo.lazy import tf
from reszoo.training.run import Run


class TensorBoard:
    """Scalars for TensorBoard, one file per process that trained; rows from before a resume are written anew."""

    def __init__(self, run: Run, history: Sequence[Mapping[str, Any]]) -> None:
        folder = run.path / "tensorboard"
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = tf.summary.create_file_writer(str(folder))
        for row in history:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one row of the history."""
        with self._writer.as_default():
            for key, value in row.items():
                if key not in ("step", "epoch"):
                    tf.summary.scalar(key, value, step=row["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
