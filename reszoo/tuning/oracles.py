"""KerasTuner's oracles over a space: random search, a grid, a Gaussian process and hyperband."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras_tuner
import numpy as np
from keras_tuner.engine.trial import TrialStatus

from reszoo.tuning.plan import FACTOR, Plan
from reszoo.tuning.searching import DRAWS, Ended, Searching

POOL = 256  # random values among which the Gaussian process chooses


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
            warnings.simplefilter(
                "ignore"
            )  # scikit-learn's notes on length scales at the edge of their range
            process.fit(known, costs)
            running = [
                trial
                for trial in self.ongoing_trials.values()
                if trial.status == TrialStatus.RUNNING
            ]
            if running:
                # What runs elsewhere counts as done and middling, so that its neighbours are not tried beside it.
                beside = np.array([self._vector(trial.hyperparameters.values) for trial in running])
                mean, deviation = process.predict(beside, return_std=True)
                process.fit(
                    np.concatenate([known, beside]), np.concatenate([costs, mean + deviation])
                )
            mean, deviation = process.predict(candidates, return_std=True)
        return {
            "status": TrialStatus.RUNNING,
            "values": pool[int(np.argmin(mean - self.beta * deviation))],
        }

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
        return self.sweeps * sum(
            count for bracket in sweep(self.plan.units) for count, _ in bracket
        )

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
                if (
                    best := self._promoted(members[number - 1], members[number], before - size)
                ) is not None:
                    values = _own(self.trials[best].hyperparameters.values)
                    return self._answer(
                        values, bracket, number, rounds[number][1], rounds[number - 1][1], best
                    )
        return {"status": TrialStatus.STOPPED}

    def _members(self, bracket: int, number: int) -> list[str]:
        """Return the trials of a bracket's round, in the order of their start."""
        told = {key: self.trials[key].hyperparameters.values for key in self.start_order}
        return [
            key
            for key, own in told.items()
            if (own["tuner/bracket"], own["tuner/round"]) == (bracket, number)
        ]

    def _promoted(self, members: list[str], after: list[str], dropped: int) -> str | None:
        """Return who of a round goes on next: its best, once more have ended than will be dropped."""
        gone_on = {self.trials[key].hyperparameters.values["tuner/trial_id"] for key in after}
        waiting = [
            self.trials[key] for key in members if key in self.end_order and key not in gone_on
        ]
        done = [trial for trial in waiting if trial.status == TrialStatus.COMPLETED]
        return (
            max(done, key=lambda trial: trial.score).trial_id
            if done and len(waiting) > dropped
            else None
        )

    def _answer(
        self,
        values: dict[str, Any],
        bracket: int,
        number: int,
        until: int,
        begun: int,
        source: str | None,
    ) -> dict[str, Any]:
        """Return a trial's values with KerasTuner's own names for what hyperband says of it."""
        told: dict[str, Any] = {
            "bracket": bracket,
            "round": number,
            "epochs": until,
            "initial_epoch": begun,
        }
        if source is not None:
            told["trial_id"] = source
        values = values | {f"tuner/{key}": value for key, value in told.items()}
        return {"status": TrialStatus.RUNNING, "values": values}

    def _compute_values_hash(self, values: dict[str, Any]) -> str:
        """Return what tells values apart; a trial that goes on is another than the one it continues."""
        source = values.get("tuner/trial_id")
        return super()._compute_values_hash(
            _own(values) | ({"tuner/trial_id": source} if source else {})
        )


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
                (
                    math.ceil(end * FACTOR ** (bracket - number)),
                    math.ceil(units / FACTOR ** (bracket - number)),
                )
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
