"""KerasTuner's oracles over a space: which values come next, what was tried, and all of it in one file that is whole.

Conditions and budgets are the space's, so to KerasTuner every knob always has a value; one that does not act has its default.
"""

from __future__ import annotations

import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import Trial, TrialStatus

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.tuning.knobs import Choice
from reszoo.tuning.plan import FACTOR, Plan
from reszoo.tuning.space import Space
from reszoo.tuning.trial import ENDED, folder_of, read_record

STATE = "oracle.json"
OBJECTIVE = "val_accuracy"
DRAWS = 2000  # random values drawn before a space counts as exhausted
POOL = 256  # random values among which the Gaussian process chooses
DEFAULT_TRIALS = 30

Ended = Callable[[str], None]


def hyperparameters(space: Space) -> keras_tuner.HyperParameters:
    """Return a space's knobs as KerasTuner's: an option by its label, a range as numbers."""
    found = keras_tuner.HyperParameters()
    for knob in space.knobs:
        if isinstance(knob, Choice):
            found.Choice(knob.name, list(knob.options))
        else:
            kind = found.Int if knob.whole else found.Float
            kind(knob.name, knob.low, knob.high, step=knob.step or None, sampling="log" if knob.log else "linear")
    return found


class Searching(keras_tuner.Oracle):
    """What every oracle here shares: values of a plan, its limits, and its state in `folder`/oracle.json.

    ended: called with a trial's id when it has ended, by whichever worker.
    """

    trials: dict[str, Any]
    ongoing_trials: dict[str, Any]
    _retry_queue: list[str]
    end_order: list[str]

    def __init__(self, plan: Plan, folder: Path, ended: Ended = lambda trial_id: None, **options: Any) -> None:
        self.plan, self.folder, self.ended = plan, folder, ended
        self.refused: list[dict[str, Any]] = []
        super().__init__(
            objective=keras_tuner.Objective(OBJECTIVE, "max"),
            hyperparameters=hyperparameters(plan.space),
            allow_new_entries=False,
            tune_new_entries=False,
            seed=plan.space.search.seed + 1,  # KerasTuner takes 0 for "any"
            max_consecutive_failed_trials=10**9,  # counted below; KerasTuner's count leaves its lock held
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
        answer = {"status": TrialStatus.STOPPED} if over or self.given_up else self.propose(trial_id)
        if answer["status"] == TrialStatus.STOPPED and self.ongoing_trials:
            return {"status": TrialStatus.IDLE}  # a worker may die, and its trial is then somebody's
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
            if trial.trial_id in self._retry_queue:  # its worker outlived the chief that gave it out
                self._retry_queue.remove(trial.trial_id)
            super().end_trial(trial)
            self.ended(trial.trial_id)
        for tuner_id in [key for key, ongoing in self.ongoing_trials.items() if ongoing.trial_id == trial.trial_id]:
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
        write_json(self.folder / STATE, {**self.get_state(), "trials": trials, "refused": self.refused})

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
            if unknown := (set(self.start_order) ^ set(self.trials)) | (set(self.end_order) - set(self.trials)):
                raise ValueError(f"trial {min(unknown)} is not told of everywhere")
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReszooError(f"{path} cannot be read: it was changed or damaged ({error})") from None
        # A trial whose record is gone, with its folder or alone, has not ended.
        kept = [key for key in self.end_order if read_record(folder_of(self.folder, key)).get("status") in ENDED]
        self.end_order, self._forgiven, self.ongoing_trials = kept, len(kept), {}
        # The last of the queue is the first to be handed out.
        self._retry_queue = [key for key in reversed(self.start_order) if key not in kept]


class RandomOracle(Searching, keras_tuner.oracles.RandomSearchOracle):
    """Values drawn evenly from the space."""


class GridOracle(Searching):
    """Every combination in order. KerasTuner's own grid keeps its place in no file, so it cannot be gone on with."""

    _left: Iterator[dict[str, Any]] | None = None

    @property
    def limit(self) -> int:
        """The largest number of trials; 0 for no limit."""
        return self.plan.space.search.trials

    @property
    def expected(self) -> int:
        """The number of trials if none is rejected late."""
        allowed = (values for values in self.plan.space.product() if not self.plan.refusal(values))
        return sum(1 for _ in itertools.islice(allowed, self.limit or None))

    def propose(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial."""
        if self._left is None:
            self._left = self.plan.space.product()
        for values in self._left:
            if self._duplicate(values):
                continue
            if not (reason := self.plan.refusal(values)):
                return {"status": TrialStatus.RUNNING, "values": values}
            self._refuse(values, reason)
        return {"status": TrialStatus.STOPPED}


class BayesianOracle(Searching, keras_tuner.oracles.BayesianOptimizationOracle):
    """A Gaussian process over what was tried, KerasTuner's, asked about values that may be tried.

    KerasTuner maximises its upper confidence bound over a box, which a budget or a condition cuts pieces out of, and may
    propose the same values twice; here the bound chooses among random values that are new and within budget.
    """

    def propose(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial."""
        done = [trial for trial in self.trials.values() if trial.status == TrialStatus.COMPLETED]
        if len(done) < max(3, 2 * len(self.hyperparameters.space)):
            return super().propose(trial_id)
        pool = self._pool()
        if not pool:
            return super().propose(trial_id)
        known = np.array([self._vector(trial.hyperparameters.values) for trial in done])
        costs = np.array([-trial.score for trial in done])
        candidates = np.array([self._vector(values) for values in pool])
        process = self._make_gpr()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn's notes on length scales at the edge of their range
            process.fit(known, costs)
            running = [trial for trial in self.ongoing_trials.values() if trial.status == TrialStatus.RUNNING]
            if running:
                # What runs elsewhere counts as done and middling, so that its neighbours are not tried beside it.
                beside = np.array([self._vector(trial.hyperparameters.values) for trial in running])
                mean, deviation = process.predict(beside, return_std=True)
                process.fit(np.concatenate([known, beside]), np.concatenate([costs, mean + deviation]))
            mean, deviation = process.predict(candidates, return_std=True)
        return {"status": TrialStatus.RUNNING, "values": pool[int(np.argmin(mean - self.beta * deviation))]}

    def _pool(self) -> list[dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for _ in range(DRAWS):
            values = self._draw()
            key = self._compute_values_hash(values)
            if key not in found and not self._duplicate(values) and not self.plan.refusal(values):
                found[key] = values
                if len(found) == POOL:
                    break
        return list(found.values())

    def _vector(self, values: dict[str, Any]) -> list[float]:
        return [hp.value_to_prob(values[hp.name]) for hp in self.hyperparameters.space]


class HyperbandOracle(Searching):
    """Brackets of trials, sized as KerasTuner's; each round's best third goes on to three times the training.

    Who goes on is read off the trials themselves. KerasTuner's own oracle promotes nobody where a trial of the round failed, or
    where the space holds fewer values than the first round; here what failed is the worst, and a short round promotes its third.
    """

    @property
    def limit(self) -> int:
        """The largest number of trials; 0 for no limit."""
        return 0

    @property
    def sweeps(self) -> int:
        """How often all brackets are gone through."""
        units, wanted = self.plan.units, self.plan.space.search.trials
        return max(1, wanted * units // sweep_cost(units))

    @property
    def expected(self) -> int:
        """The number of trials if none is rejected late."""
        return self.sweeps * sum(count for bracket in sweep(self.plan.units) for count, _ in bracket)

    @property
    def trainings(self) -> float:
        """The cost of all trials in whole trainings."""
        return self.sweeps * sweep_cost(self.plan.units) / self.plan.units

    def propose(self, trial_id: str) -> dict[str, Any]:
        """Return the values of the next trial."""
        for bracket, rounds in enumerate(sweep(self.plan.units) * self.sweeps):
            members = [self._members(bracket, number) for number, _ in enumerate(rounds)]
            size = rounds[0][0]
            if len(members[0]) < size:
                if (values := self._random_values()) is not None:
                    return self._answer(values, bracket, 0, rounds[0][1], 0, None)
                size = len(members[0])  # the space is exhausted
            for number in range(1, len(rounds)):
                before, size = size, min(rounds[number][0], math.ceil(size / FACTOR))
                if (best := self._promoted(members[number - 1], members[number], before - size)) is not None:
                    values = _own(self.trials[best].hyperparameters.values)
                    return self._answer(values, bracket, number, rounds[number][1], rounds[number - 1][1], best)
        return {"status": TrialStatus.STOPPED}

    def _members(self, bracket: int, number: int) -> list[str]:
        """Return the trials of a bracket's round, in the order of their start."""
        told = {key: self.trials[key].hyperparameters.values for key in self.start_order}
        return [key for key, own in told.items() if (own["tuner/bracket"], own["tuner/round"]) == (bracket, number)]

    def _promoted(self, members: list[str], after: list[str], dropped: int) -> str | None:
        """Return who of a round goes on next: its best, once more have ended than will be dropped."""
        gone_on = {self.trials[key].hyperparameters.values["tuner/trial_id"] for key in after}
        waiting = [self.trials[key] for key in members if key in self.end_order and key not in gone_on]
        done = [trial for trial in waiting if trial.status == TrialStatus.COMPLETED]
        return max(done, key=lambda trial: trial.score).trial_id if done and len(waiting) > dropped else None

    def _answer(
        self, values: dict[str, Any], bracket: int, number: int, until: int, begun: int, source: str | None
    ) -> dict[str, Any]:
        """Return a trial's values with KerasTuner's own names for what hyperband says of it."""
        told: dict[str, Any] = {"bracket": bracket, "round": number, "epochs": until, "initial_epoch": begun}
        if source is not None:
            told["trial_id"] = source
        values = values | {f"tuner/{key}": value for key, value in told.items()}
        return {"status": TrialStatus.RUNNING, "values": values}

    def _compute_values_hash(self, values: dict[str, Any]) -> str:
        """Return what tells values apart; a trial that goes on is another than the one it continues."""
        source = values.get("tuner/trial_id")
        return super()._compute_values_hash(_own(values) | ({"tuner/trial_id": source} if source else {}))


def _own(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("tuner/")}


def sweep(units: int) -> list[list[tuple[int, int]]]:
    """Return a sweep's brackets as rounds of (trials, units of training at their end), as KerasTuner sizes them."""
    last = round(math.log(units, FACTOR))
    brackets = []
    for bracket in range(last, -1, -1):
        end = math.ceil(1 + math.log(units, FACTOR)) / (bracket + 1)
        brackets.append(
            [
                (math.ceil(end * FACTOR ** (bracket - number)), math.ceil(units / FACTOR ** (bracket - number)))
                for number in range(bracket + 1)
            ]
        )
    return brackets


def sweep_cost(units: int) -> int:
    """Return the units of training that a sweep takes, each trial going on where it stopped."""
    total = 0
    for bracket in sweep(units):
        before = 0
        for trials, until in bracket:
            total += trials * (until - before)
            before = until
    return total


ORACLES: dict[str, Any] = {
    "random": RandomOracle,
    "bayesian": BayesianOracle,
    "hyperband": HyperbandOracle,
    "grid": GridOracle,
}


def make_oracle(plan: Plan, folder: Path, ended: Ended = lambda trial_id: None) -> Any:
    """Return the oracle that a plan asks for, with the state that the folder holds, if any."""
    oracle = ORACLES[plan.space.search.tuner](plan, folder, ended)
    oracle.reload()
    return oracle
