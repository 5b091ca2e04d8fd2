"""KerasTuner's tuner, its trials handed to the ordinary engine."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import TrialStatus

from reszoo.errors import ReszooError
from reszoo.training.devices import check_devices
from reszoo.tuning import environment as parts
from reszoo.tuning.oracles import ORACLES
from reszoo.tuning.plan import NAME, Plan, read_plan
from reszoo.tuning.searching import OBJECTIVE
from reszoo.tuning.trial import folder_of, run_trial

WAIT_SECONDS = 60.0  # that a worker waits for the chief to write the plan


class Tuner(BaseTuner):
    """KerasTuner's tuner, its trials trained by the ordinary engine; it owns no model code.

    devices: as `reszoo train --devices`, for each trial.
    """

    def __init__(
        self, plan: Plan, folder: Path, oracle: keras_tuner.Oracle, devices: str = "auto"
    ) -> None:
        self.plan, self.folder, self.devices = plan, folder, devices
        self._idle = False
        with contextlib.redirect_stdout(io.StringIO()):  # it tells of files that it reloads
            super().__init__(oracle, directory=str(folder), project_name="")

    def pre_create_trial(self) -> None:
        """Wait a little before asking again, when the last answer was that there is nothing to do yet."""
        if self._idle:
            time.sleep(0.5)
        self._idle = True

    def on_trial_begin(self, trial: Any) -> None:
        """Note that there is something to do."""
        self._idle = False

    def run_trial(self, trial: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Train a trial up to its share, and return its score. Raises FailedTrialError with the reason why it has none."""
        if not (self.folder / NAME).is_file():
            raise ReszooError(
                f"{self.folder} is no longer the folder of a search: its {NAME} is gone"
            )
        values = trial.hyperparameters.values
        units = self.plan.units if "tuner/epochs" in values else 1
        record = run_trial(
            self.plan,
            self.folder,
            trial.trial_id,
            {name: value for name, value in values.items() if not name.startswith("tuner/")},
            share=values.get("tuner/epochs", 1) / units,
            continues=values.get("tuner/trial_id"),
            devices=self.devices,
            worker=self.tuner_id,
        )
        if record["status"] == "failed":
            raise keras_tuner.errors.FailedTrialError(record["reason"])
        log_hparams(folder_of(self.folder, trial.trial_id), record)
        return {OBJECTIVE: record["score"]}

    def _try_run_and_update_trial(self, trial: Any, *args: Any, **kwargs: Any) -> None:
        """Let errors that are not the trial's, such as a full disk, end the search: KerasTuner would count them as its failure."""
        try:
            self._run_and_update_trial(trial, *args, **kwargs)
            trial.status = TrialStatus.COMPLETED
        except keras_tuner.errors.FailedTrialError as reason:
            trial.status, trial.message = TrialStatus.FAILED, str(reason)

    def save(self) -> None:
        """Nothing: the oracle keeps the state."""

    def _get_tuner_fname(self) -> str:
        return str(self.folder / "none")  # never there, so that nothing is reloaded here


def log_hparams(folder: Path, record: Mapping[str, Any]) -> None:
    """Write a trial for TensorBoard's HParams page, into `folder`/tensorboard."""
    from tensorboard.plugins.hparams import api

    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    with writer.as_default():
        api.hparams(dict(record["values"]), trial_id=record["trial"])
        tf.summary.scalar(OBJECTIVE, record["score"], step=record["steps"])
    writer.close()


def work(folder: Path, devices: str = "auto") -> None:
    """Run trials of the search in `folder` that the chief, named by KerasTuner's variables, hands out.

    Raises ReszooError when the folder holds no search after a minute.
    """
    from reszoo.tuning.workers import alive

    check_devices(devices)
    begun = time.monotonic()
    while not (folder / NAME).is_file() and time.monotonic() - begun < WAIT_SECONDS:
        time.sleep(0.5)
    plan = read_plan(folder)
    with parts.interruptible(), alive(os.environ):
        Tuner(plan, folder, ORACLES[plan.space.search.tuner](plan, folder), devices).search()
