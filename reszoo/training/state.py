"""The state of a run in training: what a checkpoint holds and a resumed run needs."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from reszoo.errors import ReszooError
from reszoo.training import checkpoint
from reszoo.training.averaging import WeightAverages
from reszoo.training.checkpoint import Checkpoint
from reszoo.training.protocols import Stepper
from reszoo.training.run import Run
from reszoo.training.workers import Workers
from reszoo.types import Array, JsonObject, Variable

BEST, RESULT = "best.npz", "result.npz"  # best on validation; as callbacks left them at the end


class TrainingState:
    """Variables and counters of a run, kept in its checkpoints.

    Args:
        run: The run folder.
        stepper: Holds the model and every other variable.
        workers: The workers of the run; worker 0 reads and writes, and shares what it reads.

    Attributes:
        step: Updates so far.
        history: The rows of the history so far.
        best: The best validation accuracy so far, -1 before the first.
        seconds: Time spent in training.
        ended: Whether a callback has ended training.
        averaging: Exchanges the raw and the averaged weights in the model.
    """

    def __init__(self, run: Run, stepper: Stepper, workers: Workers) -> None:
        self._folder, self._stepper, self._workers = run.checkpoints, stepper, workers
        self.step = 0
        self.history: list[JsonObject] = []
        self.best = -1.0
        self.seconds = 0.0
        self.ended = False
        self._epoch_start: Array = np.zeros(4)  # the sums when the epoch began
        self.averaging = WeightAverages(stepper.averaged, stepper.averages)
        named = enumerate(stepper.model.variables)
        self._weights = {f"model/{index}/{variable.path}": variable for index, variable in named}
        self._variables: dict[str, Variable] = self._weights | stepper.state()

    def mean(self) -> dict[str, float]:
        """Return "loss" and "accuracy", means over the images since the last row."""
        return _means(self._sums())

    def epoch_mean(self) -> dict[str, float]:
        """Return "loss" and "accuracy", means over the images of this epoch."""
        return _means(self._sums() - self._epoch_start)

    @property
    def skipped(self) -> int:
        """Steps since the last row that overflowed in float16 and were skipped."""
        return int(self._sums()[3])

    def start_epoch(self) -> None:
        """Begin the next epoch without a row in the history."""
        self._epoch_start = self._sums()

    def reset_sums(self) -> None:
        """Begin the next epoch after a row."""
        self._stepper.totals.assign(np.zeros(4))
        self._epoch_start = np.zeros(4)

    def restore_newest(self, report: Callable[[str], None]) -> Checkpoint | None:
        """Restore the newest readable checkpoint and return it; None if there is none.

        Args:
            report: Called with a line for each checkpoint that cannot be read.

        Raises:
            ReszooError: If the checkpoint belongs to another model or recipe, or none is readable.
        """
        with self._workers.together():
            own = checkpoint.newest(self._folder, report) if self._workers.first else None
        found = self._share(own)
        if found is None:
            return None
        found = self._under_own_names(found)
        model = self._stepper.model.name
        if (other := found.meta["net"]) != model:
            raise ReszooError(
                f"checkpoint {found.path} is of {other}, but the recipe asks for {model}"
            )
        for name, variable in self._variables.items():
            array = found.arrays.get(name)
            if array is None or array.shape != tuple(variable.shape):
                raise ReszooError(
                    f"checkpoint {found.path} does not fit the recipe: {name} is missing or of "
                    "another shape"
                )
        self.restore(found)
        meta = found.meta
        self.step, self.history = meta["step"], meta["history"]
        self.best, self.seconds = meta["best"], meta["seconds"]
        self.ended = meta.get("ended", False)
        self._epoch_start = np.array(meta.get("epoch_start", [0.0] * 4))
        return found

    def restore(self, found: Checkpoint) -> None:
        """Assign every variable its value in a checkpoint."""
        self.averaging.forget()
        for name, variable in self._variables.items():
            variable.assign(found.arrays[name])
        self._stepper.spread_seeds()

    def save(self, callbacks: Sequence[JsonObject], arrays: Mapping[str, Array]) -> None:
        """Write a checkpoint of this step, and remove old ones.

        Args:
            callbacks: The records of the callbacks.
            arrays: Their arrays by name.

        Raises:
            ReszooError: If a variable is not finite, or the workers hold different weights.
        """
        self.averaging.hide()
        values = {name: variable.numpy() for name, variable in self._variables.items()}
        with self._workers.together():
            for name, array in values.items():
                if array.dtype.kind == "f" and not np.isfinite(array).all():
                    what = name.split("/", 2)[-1]
                    raise self.diverged(f"{what} holds values that are not finite")
        self._compare(values)
        meta = self._meta() | {"callbacks": list(callbacks)}
        with self._workers.together():
            if self._workers.first:
                path = checkpoint.step_path(self._folder, self.step)
                checkpoint.save(path, {**values, **arrays}, meta)
                checkpoint.prune(self._folder)

    def _compare(self, values: Mapping[str, Array]) -> None:
        """Raise ReszooError if the workers hold different weights, by their checksum."""
        if self._workers.count == 1:
            return
        checksum = 0
        for array in values.values():
            if array.dtype.kind == "f":  # each replica has its own random seeds
                checksum = zlib.crc32(array.tobytes(), checksum)
        found = self._workers.exchange(checksum)
        if other := [index for index, each in enumerate(found) if each != found[0]]:
            raise ReszooError(
                f"at step {self.step} the weights of worker {other[0]} are not those of worker 0; "
                "expected equal ones. Give all workers the same callbacks, processors and versions"
            )

    def save_weights(self, name: str) -> None:
        """Write the model's weights as they are to a file of the folder of checkpoints."""
        with self._workers.together():
            if self._workers.first:
                weights = {key: variable.numpy() for key, variable in self._weights.items()}
                checkpoint.save(self._folder / name, weights, self._meta())

    def load_weights(self, name: str, *, of_this_step: bool = False) -> bool:
        """Load weights that `save_weights` wrote; return False if there are none.

        Args:
            name: The file name.
            of_this_step: Load them only if they were written at the present step.
        """
        path = self._folder / name
        with self._workers.together():
            exists = self._workers.first and path.is_file()
            own = checkpoint.load(path) if exists else None
        found = self._share(own)
        if found is None:
            return False
        found = self._under_own_names(found)
        if of_this_step and found.meta["step"] != self.step:
            return False
        if not of_this_step:
            self.averaging.forget()
        for key, variable in self._weights.items():
            variable.assign(found.arrays[key])
        return True

    def _under_own_names(self, found: Checkpoint) -> Checkpoint:
        """Return a checkpoint with the names that the variables have in this process.

        Keras numbers seed generators and unnamed layers over the life of a process, so a notebook
        that made other models gives them other names. Their order in a model is fixed.
        """
        names: dict[str, str] = {}
        for group in ("model/", "average/"):
            own, theirs = (
                [name for name in known if name.startswith(group)]
                for known in (self._variables, found.arrays)
            )
            if len(own) == len(theirs):
                names |= zip(theirs, own, strict=True)
        arrays = {names.get(name, name): array for name, array in found.arrays.items()}
        return dataclasses.replace(found, arrays=arrays)

    def diverged(self, reason: str) -> ReszooError:
        """Return the error for training that cannot continue, with the remedies."""
        good = checkpoint.steps(self._folder) if self._workers.first else []
        kept = f"the last good checkpoint is {good[-1]}" if good else "there is no checkpoint yet"
        return ReszooError(
            f"at step {self.step} {reason}; {kept}; try a lower schedule.rate, a longer warmup or "
            "train.clip_norm"
        )

    def _share(self, found: Checkpoint | None) -> Checkpoint | None:
        """Return the checkpoint that worker 0 has read."""
        if self._workers.count == 1:
            return found
        content = self._workers.share_bytes(found.path.read_bytes() if found else b"")
        return checkpoint.load(self._folder / "shared", content) if content else None

    def _sums(self) -> Array:
        """Return the sums since the last row: loss, right answers, images, skipped steps."""
        return np.array(self._stepper.totals.numpy(), np.float64)

    def _meta(self) -> JsonObject:
        return {
            "net": self._stepper.model.name,
            "step": self.step,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
            "ended": self.ended,
            "epoch_start": self._epoch_start.tolist(),
        }


def _means(sums: Array) -> dict[str, float]:
    """Return mean loss and accuracy of sums of loss, right answers, images and skipped steps."""
    loss, right, images, _ = (float(value) for value in sums)
    if not images:
        return {"loss": math.nan, "accuracy": 0.0}
    return {"loss": loss / images, "accuracy": right / images}
