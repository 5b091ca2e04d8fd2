"""The progress of a search: one line per trial."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reszoo.reporting.reporter import Reporter
from reszoo.tuning.plan import Plan
from reszoo.tuning.trial import folder_of, read_record
from reszoo.tuning.words import in_words, short_names


class Progress:
    """Reports each trial as it ends: its values, its score, the best score so far and the time left."""

    def __init__(self, folder: Path, reporter: Reporter) -> None:
        self.folder, self.reporter = folder, reporter
        self.space: Mapping[str, Any] = {}
        self.done = self.total = 0
        self.work_done = self.work = 0.0  # in whole trainings
        self.best: tuple[float, float, str] | None = None  # share, score, trial
        self._started = time.monotonic()
        self._work_before = 0.0

    def start(self, oracle: Any, plan: Plan) -> None:
        """Report what is searched, and how many trials ended before."""
        search, data, space = plan.space.search, plan.data, plan.space
        self.total, self.work = oracle.expected, oracle.trainings
        self.space = {knob.name: knob for knob in space.knobs}
        names = ", ".join(short_names(list(self.space)).values())
        shape = "x".join(map(str, data["input_shape"]))
        about = "about " if search.tuner == "hyperband" else ""
        runs = f" of {search.executions} runs each" if search.executions > 1 else ""
        limits = ((search.max_params, "parameters"), (search.max_macs, "MACs"))
        words = [f"{about}{self.total} trials{runs}"]
        words += [f"at most {most:,} {what}" for most, what in limits if most]
        self.reporter.line(
            f"{space.name}: {search.tuner} search over {names}; {space.base.name} on {data['name']} "
            f"({shape}); {', '.join(words)}"
        )
        for trial_id in oracle.end_order:
            self._count(read_record(folder_of(self.folder, trial_id)))
        if self.done:
            self.reporter.line(f"resuming after {self.done} trials{self._best_so_far()}")
        self._started, self._work_before = time.monotonic(), self.work_done

    def end_trial(self, trial_id: str) -> None:
        """Report a trial that has ended."""
        record = read_record(folder_of(self.folder, trial_id))
        self._count(record)
        if record.get("status") == "completed":
            share = f" after {record['share']:.0%} of the training" if record["share"] != 1 else ""
            outcome = f"{100 * record['score']:.2f} %{share}, {record['seconds']:.0f} s"
        else:
            outcome = f"failed: {record.get('reason', '')}"
        self.reporter.line(
            f"{self.done}/{self.total} trial {trial_id}: {in_words(record.get('values', {}), self.space)}: "
            f"{outcome}{self._best_so_far()}{self._time_left()}"
        )

    def _count(self, record: Mapping[str, Any]) -> None:
        self.done += 1
        before = 0.0
        if record.get("continues"):
            before = read_record(folder_of(self.folder, record["continues"])).get("share", 0.0)
        self.work_done += record.get("share", 1.0) - before
        if record.get("status") == "completed":
            this = (record["share"], record["score"], record["trial"])
            self.best = this if self.best is None or this[:2] > self.best[:2] else self.best

    def _best_so_far(self) -> str:
        return f"; best {100 * self.best[1]:.2f} % ({self.best[2]})" if self.best else ""

    def _time_left(self) -> str:
        if self.done >= self.total:
            return ""
        passed, worked = time.monotonic() - self._started, self.work_done - self._work_before
        left = passed / max(worked, 1e-9) * max(self.work - self.work_done, 0.0)
        return f"; about {f'{left:.0f} s' if left < 90 else f'{left / 60:.0f} min'} left"
