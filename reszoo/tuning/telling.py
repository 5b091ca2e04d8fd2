"""What a person sees of a search: a line a trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reszoo.tuning.plan import Plan
from reszoo.tuning.trial import folder_of, read_record
from reszoo.tuning.words import in_words, short_names


class Telling:
    """Tells each trial as it ends: what was tried, its score, the best so far, the time left."""

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder, self.tell = folder, tell
        self.space: Mapping[str, Any] = {}
        self.done = self.total = 0
        self.work_done = self.work = 0.0  # in whole trainings
        self.best: tuple[float, float, str] | None = None  # share, score, trial
        self._begun = time.monotonic()
        self._work_before = 0.0

    def begin(self, oracle: Any, plan: Plan) -> None:
        """Tell what is searched, and what was found before."""
        search, data, space = plan.space.search, plan.data, plan.space
        self.total, self.work = oracle.expected, oracle.trainings
        self.space = {knob.name: knob for knob in space.knobs}
        knobs = ", ".join(short_names(list(self.space)).values())
        shape = "x".join(map(str, data["input_shape"]))
        limits = [
            f"at most {most:,} {what}"
            for most, what in (
                (search.max_params, "parameters"),
                (search.max_macs, "multiply-adds"),
            )
            if most
        ]
        runs = f" of {search.executions} runs each" if search.executions > 1 else ""
        self.tell(
            f"{space.name}: {search.tuner} search over {knobs}; {space.base.name} on {data['name']} ({shape}); "
            + ", ".join(
                [
                    f"{'about ' if search.tuner == 'hyperband' else ''}{self.total} trials{runs}",
                    *limits,
                ]
            )
        )
        for trial_id in oracle.end_order:
            self._count(read_record(folder_of(self.folder, trial_id)))
        if self.done:
            self.tell(f"going on after {self.done} trials{self._so_far()}")
        self._begun, self._work_before = time.monotonic(), self.work_done

    def ended(self, trial_id: str) -> None:
        """Tell a trial that has ended."""
        record = read_record(folder_of(self.folder, trial_id))
        self._count(record)
        words = in_words(record.get("values", {}), self.space)
        if record.get("status") == "completed":
            part = (
                ""
                if record["share"] == 1
                else f" after {100 * record['share']:.0f} % of the training"
            )
            outcome = f"{100 * record['score']:.2f} %{part}, {record['seconds']:.0f} s"
        else:
            outcome = f"failed: {record.get('reason', '')}"
        pace = (time.monotonic() - self._begun) / max(self.work_done - self._work_before, 1e-9)
        left = pace * max(self.work - self.work_done, 0.0)
        about = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
        time_left = f"; about {about} left" if self.done < self.total else ""
        self.tell(
            f"{self.done}/{self.total} trial {trial_id}: {words}: {outcome}{self._so_far()}{time_left}"
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

    def _so_far(self) -> str:
        return f"; best {100 * self.best[1]:.2f} % ({self.best[2]})" if self.best else ""
