"""KerasTuner's tuner, which trains each trial as a normal run."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import keras_tuner
import tensorflow as tf
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial as KerasTrial
from keras_tuner.engine.trial import TrialStatus

from reszoo.errors import ReszooError
from reszoo.signals import interrupt_on
from reszoo.training.devices import check_devices
from reszoo.tuning.oracle import OBJECTIVE, Oracle, read_stage
from reszoo.tuning.plan import NAME, Plan, read_plan
from reszoo.tuning.records import Trial, folder_of
from reszoo.tuning.trial import run_trial

WAIT_SECONDS = 60.0  # that a worker waits for the chief to write the plan


class Tuner(BaseTuner):  # type: ignore[misc]
    """KerasTuner's tuner without a hypermodel.

    Args:
        plan: The plan of the search.
        folder: The search folder.
        oracle: Hands out trials; on a worker KerasTuner asks the chief instead.
        devices: Of each trial, as `reszoo train --devices`.
    """

    def __init__(self, plan: Plan, folder: Path, oracle: Oracle, devices: str = "auto") -> None:
        self.plan, self.folder, self.devices = plan, folder, devices
        self._idle = False
        with contextlib.redirect_stdout(io.StringIO()):  # KerasTuner prints what it reloads
            super().__init__(oracle, directory=str(folder), project_name="")

    def pre_create_trial(self) -> None:
        """Wait before asking again if there was nothing to do."""
        if self._idle:
            time.sleep(0.5)
        self._idle = True

    def on_trial_begin(self, trial: KerasTrial) -> None:
        """Note that there is something to do."""
        self._idle = False

    def run_trial(self, trial: KerasTrial, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Train a trial up to its share and return its score. Raises FailedTrialError."""
        if not (self.folder / NAME).is_file():
            raise ReszooError(f"{self.folder} is no longer a search folder: {NAME} was removed")
        values, stage = read_stage(trial.hyperparameters.values)
        record = run_trial(
            self.plan,
            self.folder,
            trial.trial_id,
            values,
            share=stage.end / self.plan.units if stage else 1.0,
            continues=stage.source if stage else None,
            devices=self.devices,
            worker=self.tuner_id,
        )
        if record["status"] == "failed":
            raise keras_tuner.errors.FailedTrialError(record["reason"])
        write_hparams(folder_of(self.folder, trial.trial_id), record)
        return {OBJECTIVE: record["score"]}

    def _try_run_and_update_trial(self, trial: KerasTrial, *args: Any, **kwargs: Any) -> None:
        """Let errors of the machine end the search; KerasTuner would blame the trial."""
        try:
            self._run_and_update_trial(trial, *args, **kwargs)
            trial.status = TrialStatus.COMPLETED
        except keras_tuner.errors.FailedTrialError as reason:
            trial.status, trial.message = TrialStatus.FAILED, str(reason)

    def save(self) -> None:
        """Do nothing: the oracle keeps the state."""

    def _get_tuner_fname(self) -> str:
        return str(self.folder / "none")  # does not exist, so that nothing is reloaded here


def write_hparams(folder: Path, record: Trial) -> None:
    """Write a trial for TensorBoard's HParams page into `folder`/tensorboard."""
    from tensorboard.plugins.hparams import api

    writer = tf.summary.create_file_writer(str(folder / "tensorboard"))
    with writer.as_default():
        api.hparams(dict(record["values"]), trial_id=record["trial"])
        tf.summary.scalar(OBJECTIVE, record["score"], step=record["steps"])
    writer.close()


def work(folder: Path, devices: str = "auto") -> None:
    """Run trials that the chief named by KerasTuner's variables hands out.

    Raises:
        ReszooError: If the folder is not a search folder after a minute.
    """
    from reszoo.tuning.workers import heartbeat

    check_devices(devices)
    started = time.monotonic()
    while not (folder / NAME).is_file() and time.monotonic() - started < WAIT_SECONDS:
        time.sleep(0.5)
    plan = read_plan(folder)
    with interrupt_on(signal.SIGTERM), heartbeat(os.environ):
        Tuner(plan, folder, Oracle(plan, folder), devices).search()
