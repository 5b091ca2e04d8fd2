"""The progress of a search: one line per trial."""

from __future__ import annotations

import time
from pathlib import Path

from reszoo.reporting.reporter import Reporter
from reszoo.tuning.formatting import format_share, format_values, short_names
from reszoo.tuning.oracle import Oracle
from reszoo.tuning.plan import Plan
from reszoo.tuning.proposals import expected_trainings, expected_trials
from reszoo.tuning.records import Trial, folder_of, read_record


class Progress:
    """Reports each trial as it ends, with the best score so far and the time left."""

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self.folder, self.reporter = folder, reporter
        self.names: tuple[str, ...] = ()
        self.done = self.total = 0
        self.work_done = self.work = 0.0  # in whole trainings
        self.best: Trial | None = None
        self._started = time.monotonic()
        self._work_before = 0.0

    def start(self, oracle: Oracle, plan: Plan) -> None:
        """Report what is searched, and how many trials ended before."""
        search, data, space = plan.space.search, plan.data, plan.space
        self.total, self.work = expected_trials(plan), expected_trainings(plan)
        self.names = tuple(each.name for each in space.hyperparameters)
        about = "about " if search.tuner == "hyperband" else ""
        runs = f" of {search.executions} runs each" if search.executions > 1 else ""
        limits = ((search.max_params, "parameters"), (search.max_macs, "MACs"))
        size = [f"{about}{self.total} trials{runs}"]
        size += [f"at most {most:,} {what}" for most, what in limits if most]
        self.reporter.line(
            f"{space.name}: {search.tuner} search over "
            f"{', '.join(short_names(self.names).values())};"
            f" {space.base.name} on {data['name']} ({'x'.join(map(str, data['input_shape']))});"
            f" {', '.join(size)}"
        )
        for trial_id in oracle.end_order:
            self._count(trial_id)
        if self.done:
            self.reporter.line(f"resuming after {self.done} trials{self._best_so_far()}")
        self._started, self._work_before = time.monotonic(), self.work_done

    def end_trial(self, trial_id: str) -> None:
        """Report a trial that has ended."""
        trial = self._count(trial_id)
        if trial is None:
            return
        if trial["status"] == "completed":
            share = format_share(trial["share"])
            outcome = f"{100 * trial['score']:.2f} %{share}, {trial['seconds']:.0f} s"
        else:
            outcome = f"failed: {trial['reason']}"
        self.reporter.line(
            f"{self.done}/{self.total} trial {trial_id}: "
            f"{format_values(trial['values'], self.names)}: "
            f"{outcome}{self._best_so_far()}{self._time_left()}"
        )

    def _count(self, trial_id: str) -> Trial | None:
        trial = read_record(folder_of(self.folder, trial_id))
        self.done += 1
        if trial is None:
            return None
        source = trial.get("continues")
        before = read_record(folder_of(self.folder, source)) if source else None
        self.work_done += trial.get("share", 1.0) - (before["share"] if before else 0.0)
        if trial["status"] == "completed" and (
            self.best is None
            or (trial["share"], trial["score"]) > (self.best["share"], self.best["score"])
        ):
            self.best = trial
        return trial

    def _best_so_far(self) -> str:
        return (
            f"; best {100 * self.best['score']:.2f} % ({self.best['trial']})" if self.best else ""
        )

    def _time_left(self) -> str:
        if self.done >= self.total:
            return ""
        passed, worked = time.monotonic() - self._started, self.work_done - self._work_before
        left = passed / max(worked, 1e-9) * max(self.work - self.work_done, 0.0)
        return f"; about {f'{left:.0f} s' if left < 90 else f'{left / 60:.0f} min'} left"
