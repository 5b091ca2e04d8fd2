"""KerasTuner's oracle over the proposals of a plan, with its state in one file."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.old_keys import ORACLE, rename_keys
from reszoo.tuning.history import History, Past, Proposal, Stage, Status
from reszoo.tuning.hyperparameters import Choice
from reszoo.tuning.plan import Plan
from reszoo.tuning.proposals import propose
from reszoo.tuning.records import ENDED, folder_of, read_record
from reszoo.tuning.sampling import first_seed
from reszoo.tuning.space import Space, Values
from reszoo.types import JsonObject

STATE = "oracle.json"
OBJECTIVE = "val_accuracy"
STAGE = {
    "tuner/bracket": "bracket",
    "tuner/round": "round",
    "tuner/epochs": "end",
    "tuner/initial_epoch": "start",
    "tuner/trial_id": "source",
}
"""The fields of a stage by KerasTuner's names."""


class Oracle(keras_tuner.Oracle):  # type: ignore[misc]
    """Hands out the trials of a plan.

    Conditions and budgets are the space's: for KerasTuner every hyperparameter always has a value.

    Args:
        plan: The plan.
        folder: The search folder; a state in it is read by `reload`.
        on_end: Called with the id of each trial that has ended.
    """

    trials: dict[str, Trial]
    ongoing_trials: dict[str, Trial]
    _retry_queue: list[str]
    start_order: list[str]
    end_order: list[str]

    def __init__(
        self, plan: Plan, folder: Path, on_end: Callable[[str], None] = lambda trial_id: None
    ) -> None:
        self.plan, self.folder, self._on_end = plan, folder, on_end
        self.rejected: list[JsonObject] = []
        self.drawn = 0
        self._ended_before = 0  # trials that ended before this process, whose failures do not count
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            hyperparameters=_convert(plan.space),
            allow_new_entries=False,
            tune_new_entries=False,
            seed=first_seed(plan),
            max_consecutive_failed_trials=10**9,  # KerasTuner leaves its lock held when it stops
        )
        self.verbose = 0

    @property
    def history(self) -> History:
        """The search so far."""
        space = self.plan.space.hyperparameters
        rejected = [
            {each.name: row["values"].get(each.name, each.default) for each in space}
            for row in self.rejected
        ]
        return History(tuple(map(self._past, self.start_order)), tuple(rejected), self.drawn)

    def _past(self, trial_id: str) -> Past:
        trial = self.trials[trial_id]
        values, stage = read_stage(trial.hyperparameters.values)
        status: Status = "completed" if trial.status == TrialStatus.COMPLETED else "failed"
        ended = trial_id in self.end_order
        return Past(trial_id, values, status if ended else "running", trial.score or 0.0, stage)

    def failures(self) -> int:
        """Return how many of the latest trials in a row failed in this process."""
        latest = reversed(self.end_order[self._ended_before :])
        statuses = (self.trials[key].status for key in latest)
        return len(list(itertools.takewhile(TrialStatus.FAILED.__eq__, statuses)))

    @property
    def given_up(self) -> bool:
        """Whether too many trials in a row failed."""
        return self.failures() >= self.plan.space.search.max_failures

    def populate_space(self, trial_id: str) -> JsonObject:
        """Return KerasTuner's answer to a worker: the next trial's values, "IDLE" or "STOPPED"."""
        proposal = Proposal(None, drawn=self.drawn)
        if not self.given_up:
            proposal = propose(self.plan, self.history)
        self.drawn = proposal.drawn
        self.rejected += [
            {"values": self.plan.space.active(values), "reason": reason}
            for values, reason in proposal.rejected
        ]
        if proposal.values is not None:
            values = dict(proposal.values) | write_stage(proposal.stage)
            return {"status": TrialStatus.RUNNING, "values": values}
        # While a trial runs, its worker may die; the trial then needs another one.
        return {"status": TrialStatus.IDLE if self.ongoing_trials else TrialStatus.STOPPED}

    def end_trial(self, trial: Trial) -> None:
        """Record the end of a trial, unless another worker ended it before."""
        trial_id = trial.trial_id
        if trial_id not in self.end_order:
            if trial_id in self._retry_queue:  # its worker outlived the chief that handed it out
                self._retry_queue.remove(trial_id)
            super().end_trial(trial)
            self._on_end(trial_id)
        for worker in [k for k, other in self.ongoing_trials.items() if other.trial_id == trial_id]:
            self.ongoing_trials.pop(worker)
        self.save()

    end_trial = keras_tuner.synchronized(end_trial)

    def release_worker(self, worker: str) -> str | None:
        """Take back the trial of a dead worker, to hand it out again; return its id, if any."""
        self.tuner_ids.discard(worker)
        trial = self.ongoing_trials.pop(worker, None)
        if trial is None:
            return None
        if trial.trial_id not in self.end_order:
            self._retry_queue.append(trial.trial_id)
        self.save()
        return str(trial.trial_id)

    release_worker = keras_tuner.synchronized(release_worker)

    # KerasTuner writes one file per trial and one for the oracle. After a kill between them they
    # contradict each other. Here they are one file that is replaced as a whole.

    def save(self) -> None:
        """Write the state, trials included."""
        trials = {key: trial.get_state() for key, trial in self.trials.items()}
        state = {**self.get_state(), "trials": trials, "rejected": self.rejected}
        write_json(self.folder / STATE, {**state, "drawn": self.drawn})

    def _save_trial(self, trial: Trial) -> None:
        """Do nothing: `save` writes trials too."""

    def reload(self) -> None:
        """Read the state in the folder, if any; trials that ran are handed out again first.

        Raises:
            ReszooError: If it is damaged.
        """
        path = self.folder / STATE
        try:
            state = rename_keys(json.loads(path.read_text(encoding="utf-8")), ORACLE)
            self.trials = {key: Trial.from_state(trial) for key, trial in state["trials"].items()}
            self.rejected = state["rejected"]
            # Version 0.1 stored KerasTuner's seed, which rose by 1 with each random number.
            self.drawn = int(state.get("drawn", state["seed_state"] - state["seed"]))
            self.set_state(state)
            listed = set(self.start_order) ^ set(self.trials)
            if unknown := listed | (set(self.end_order) - set(self.trials)):
                raise ValueError(f"trial {min(unknown)} is not in every list")
            kept = [key for key in self.end_order if _has_ended(self.folder, key)]
            self.history  # noqa: B018  raises for values that the space does not have
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReszooError(f"{path} is damaged: {error}") from None
        self.end_order, self._ended_before, self.ongoing_trials = kept, len(kept), {}
        # KerasTuner hands out the last of the queue first.
        self._retry_queue = [key for key in reversed(self.start_order) if key not in kept]


def make_oracle(
    plan: Plan, folder: Path, on_end: Callable[[str], None] = lambda trial_id: None
) -> Oracle:
    """Return the oracle of a plan with the state in the folder, if any."""
    oracle = Oracle(plan, folder, on_end)
    oracle.reload()
    return oracle


def write_stage(stage: Stage | None) -> JsonObject:
    """Return a stage of hyperband as values under KerasTuner's names."""
    values = {key: getattr(stage, name) for key, name in STAGE.items()} if stage else {}
    return {key: value for key, value in values.items() if value is not None}


def read_stage(values: JsonObject) -> tuple[Values, Stage | None]:
    """Return hyperparameters and the stage of hyperband from KerasTuner's values."""
    own = {name: value for name, value in values.items() if name not in STAGE}
    if len(own) == len(values):
        return own, None
    stage: JsonObject = {name: values.get(key) for key, name in STAGE.items()}
    return own, Stage(**stage)


def _has_ended(folder: Path, trial_id: str) -> bool:
    """Return whether a trial has a record of its end; one that was deleted runs again."""
    record = read_record(folder_of(folder, trial_id))
    return record is not None and record["status"] in ENDED


def _convert(space: Space) -> keras_tuner.HyperParameters:
    """Return a space as KerasTuner's: an option by its label, a range as numbers."""
    found = keras_tuner.HyperParameters()
    for each in space.hyperparameters:
        if isinstance(each, Choice):
            found.Choice(each.name, list(each.options))
            continue
        kind = found.Int if each.whole else found.Float
        sampling = "log" if each.log else "linear"
        kind(each.name, each.low, each.high, step=each.step or None, sampling=sampling)
    return found
