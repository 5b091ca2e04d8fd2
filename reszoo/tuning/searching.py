"""The base of all oracles: values of a plan, its limits, and a state that is one whole file.

Conditions and budgets are the space's, so to KerasTuner every knob always has a value; one that does not act has its default.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.tuning.knobs import Choice
from reszoo.tuning.plan import Plan
from reszoo.tuning.space import Space
from reszoo.tuning.trial import ENDED, folder_of, read_record

DEFAULT_TRIALS = 30
STATE = "oracle.json"


OBJECTIVE = "val_accuracy"


DRAWS = 2000  # random values drawn before a space counts as exhausted


Ended = Callable[[str], None]


def hyperparameters(space: Space) -> keras_tuner.HyperParameters:
    """Return a space's knobs as KerasTuner's: an option by its label, a range as numbers."""
    found = keras_tuner.HyperParameters()
    for knob in space.knobs:
        if isinstance(knob, Choice):
            found.Choice(knob.name, list(knob.options))
        else:
            kind = found.Int if knob.whole else found.Float
            kind(
                knob.name,
                knob.low,
                knob.high,
                step=knob.step or None,
                sampling="log" if knob.log else "linear",
            )
    return found


class Searching(keras_tuner.Oracle):
    """What every oracle here shares: values of a plan, its limits, and its state in `folder`/oracle.json.

    ended: called with a trial's id when it has ended, by whichever worker.
    """

    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    _retry_queue: list[str]
    end_order: list[str]

    def __init__(
        self, plan: Plan, folder: Path, ended: Ended = lambda trial_id: None, **options: Any
    ) -> None:
        self.plan, self.folder, self.ended = plan, folder, ended
        self.refused: list[dict[str, Any]] = []
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            hyperparameters=hyperparameters(plan.space),
            allow_new_entries=False,
            tune_new_entries=False,
            seed=plan.space.search.seed + 1,  # KerasTuner takes 0 for "any"
            max_consecutive_failed_trials=10
            ** 9,  # counted below; KerasTuner's count leaves its lock held
            **options,
        )
        self.max_trials = None
        self.verbose = 0
        self._forgiven = 0  # trials that ended before this process took the search up

    @property
    def limit(self) -> int:
        """The most trials, 0 for no limit."""
        return self.plan.space.search.trials or DEFAULT_TRIALS

    @property
    def expected(self) -> int:
        """How many trials the whole search has, as far as can be told."""
        return self.limit

    @property
    def trainings(self) -> float:
        """How many whole trainings' worth of work the search has, as far as can be told."""
        return self.expected

    def failures(self) -> int:
        """Return how many of the latest trials in a row failed."""
        count = 0
        for trial_id in reversed(self.end_order[self._forgiven :]):
            if self.trials[trial_id].status != TrialStatus.FAILED:
                break
            count += 1
        return count

    @property
    def given_up(self) -> bool:
        """Whether too many trials in a row failed."""
        return self.failures() >= self.plan.space.search.max_failures

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the next trial's values, or that there are none now ("IDLE": others still run) or any more."""
        over = bool(self.limit) and len(self.trials) >= self.limit
        answer = (
            {"status": TrialStatus.STOPPED} if over or self.given_up else self.propose(trial_id)
        )
        if answer["status"] == TrialStatus.STOPPED and self.ongoing_trials:
            return {
                "status": TrialStatus.IDLE
            }  # a worker may die, and its trial is then somebody's
        return answer

    def propose(self, trial_id: str) -> dict[str, Any]:
        """Return KerasTuner's answer for a new trial."""
        return super().populate_space(trial_id)

    def _random_values(self) -> dict[str, Any] | None:
        """Return values that were not tried and are within budget, drawn evenly; None when hardly any can be left."""
        for _ in range(DRAWS):
            values = self._draw()
            if self._duplicate(values):
                continue
            if not (reason := self.plan.refusal(values)):
                return values
            self._refuse(values, reason)
        return None

    def _draw(self) -> dict[str, Any]:
        values = {}
        for hp in self.hyperparameters.space:
            values[hp.name] = hp.random_sample(self._seed_state)
            self._seed_state += 1
        return self.plan.space.canonical(values)

    def _refuse(self, values: dict[str, Any], reason: str) -> None:
        self._tried_so_far.add(self._compute_values_hash(values))
        self.refused.append({"values": self.plan.space.active(values), "reason": reason})

    def end_trial(self, trial: Any) -> None:
        """Keep what became of a trial. One that has ended before, under another worker, stays as it was."""
        if trial.trial_id not in self.end_order:
            if (
                trial.trial_id in self._retry_queue
            ):  # its worker outlived the chief that gave it out
                self._retry_queue.remove(trial.trial_id)
            super().end_trial(trial)
            self.ended(trial.trial_id)
        for tuner_id in [
            key
            for key, ongoing in self.ongoing_trials.items()
            if ongoing.trial_id == trial.trial_id
        ]:
            self.ongoing_trials.pop(tuner_id)
        self.save()

    end_trial = keras_tuner.synchronized(end_trial)

    def lose(self, tuner_id: str) -> str | None:
        """Take a dead worker's trial back, to be handed out again; return its id, if it had one."""
        self.tuner_ids.discard(tuner_id)
        trial = self.ongoing_trials.pop(tuner_id, None)
        if trial is None:
            return None
        if trial.trial_id not in self.end_order:
            self._retry_queue.append(trial.trial_id)
        self.save()
        return str(trial.trial_id)

    lose = keras_tuner.synchronized(lose)

    # KerasTuner writes a file for each trial and one for the oracle, in place and one after the other: killed in
    # between, they contradict each other. Here they are one file, replaced as a whole.

    def save(self) -> None:
        """Write the whole state, trials included."""
        trials = {key: trial.get_state() for key, trial in self.trials.items()}
        write_json(
            self.folder / STATE, {**self.get_state(), "trials": trials, "refused": self.refused}
        )

    def _save_trial(self, trial: Any) -> None:
        """Do nothing: `save` writes trials too."""

    def reload(self) -> None:
        """Take up the state in the folder; trials that were running are handed out again first."""
        path = self.folder / STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            self.trials = {key: Trial.from_state(trial) for key, trial in state["trials"].items()}
            self.refused = state["refused"]
            self.set_state(state)
            if not isinstance(self._seed_state, int):
                raise ValueError("its seed is no number")
            if unknown := (set(self.start_order) ^ set(self.trials)) | (
                set(self.end_order) - set(self.trials)
            ):
                raise ValueError(f"trial {min(unknown)} is not told of everywhere")
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReszooError(
                f"{path} cannot be read: it was changed or damaged ({error})"
            ) from None
        # A trial whose record is gone, with its folder or alone, has not ended.
        kept = [
            key
            for key in self.end_order
            if read_record(folder_of(self.folder, key)).get("status") in ENDED
        ]
        self.end_order, self._forgiven, self.ongoing_trials = kept, len(kept), {}
        # The last of the queue is the first to be handed out.
        self._retry_queue = [key for key in reversed(self.start_order) if key not in kept]
