"""The plan of the GPU measurements: commands within a time limit, and their records."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from reszoo.bench.comparison import card_name
from reszoo.bench.limits import Clock, Outcome, run_commands
from reszoo.files import write_json
from reszoo.reporting.reporter import Reporter
from reszoo.training.metrics import read_metrics
from reszoo.types import JsonObject

MODELS = ("plain20", "resnet20", "plain56", "resnet56")
REST = ("first_step_resnet110", "overflow", "kill")
SHARES = {"quickstart": 0.2, "bench": 0.45, "figure6": 0.85, "rest": 1.0}
"""The share of the limit at which each stage ends."""


@dataclass(frozen=True)
class Plan:
    """What is measured, where, and how long it may take.

    Attributes:
        data: The folder of CIFAR-10: train/CLASS/*, test/CLASS/*.
        out: The folder of records, logs and runs.
        clock: The time limit.
        peer: The Python of an environment with PyTorch.
        device: "gpu", or "cpu" for a rehearsal.
        steps: 0, or the steps of every run of a rehearsal, which uses few images.
        reszoo: The words that start reszoo's command line.
        card: The GPU's name.
    """

    data: Path
    out: Path
    clock: Clock
    peer: str = sys.executable
    device: str = "gpu"
    steps: int = 0
    reszoo: Sequence[str] = (sys.executable, "-m", "reszoo")
    card: str = field(default_factory=card_name)
    reporter: Reporter = field(default_factory=Reporter)

    def report(self, line: str) -> None:
        """Report a line with the seconds since the start."""
        self.reporter.line(f"{self.clock.passed:6.0f} s  {line}")

    def record(self, name: str) -> Path:
        """Return the file of a record."""
        return self.out / f"{name}.json"

    def missing(self, *names: str) -> bool:
        """Return whether one of the records does not exist."""
        return not all(self.record(name).is_file() for name in names)

    def write(self, name: str, values: Mapping[str, object]) -> None:
        """Write a record with the card's name."""
        write_json(self.record(name), {"card": self.card, **values})
        self.report(f"{name}: written")

    def seconds_left(self, stage: str) -> float:
        """Return the seconds until a stage ends; figure 6 may use all if nothing follows."""
        last = stage == "figure6" and not self.missing(*REST)
        return self.clock.left(SHARES["rest" if last else stage])

    def run(
        self,
        stage: str,
        commands: Mapping[str, Sequence[str]],
        *,
        observe: Callable[[], None] = lambda: None,
        ended: Callable[[str, Outcome], None] = lambda name, outcome: None,
    ) -> dict[str, Outcome]:
        """Run commands in parallel until their stage ends; report why one has no result."""
        names, left = ", ".join(commands), self.seconds_left(stage)
        if left <= 0:
            self.report(f"{names}: skipped, because the time of this stage is over")
            return {name: Outcome(None, 0.0) for name in commands}
        self.report(f"{names}: started")
        logs, grace = self.out / "logs", self.clock.grace
        found = run_commands(commands, logs, left, grace, observe=observe, ended=ended)
        for name, outcome in found.items():
            if outcome.status is None:
                self.report(f"{name}: stopped after {outcome.seconds:.0f} s, at its limit")
            elif not outcome.succeeded:
                lines = (logs / f"{name}.log").read_text(errors="replace").strip().splitlines()
                reason = lines[-1] if lines else "no output"
                self.report(f"{name}: failed with status {outcome.status}: {reason}")
        return found

    def train(self, recipe: str, folder: Path, settings: Sequence[str] = ()) -> list[str]:
        """Return the command that trains or resumes in a run folder."""
        words = ["--devices", self.device, "--run-dir", str(folder)]
        if not (folder / "recipe.toml").is_file():
            sets = ["--set", *settings] if settings else []
            return [*self.reszoo, "train", recipe, *words, *sets]
        # The images may have moved.
        data = ["--data", f"folder:{self.data}"] if recipe.startswith("cifar10_") else []
        return [*self.reszoo, "train", *words, "--resume", *data]

    def bench(self, words: str, name: str, against: str, precision: str) -> list[str]:
        """Return the command of a benchmark that writes the record `name`."""
        options = ["--against", against, "--peer", self.peer, "--device", self.device]
        options += ["--rounds", "1" if self.steps else "3", "--precision", precision]
        return [*self.reszoo, "bench", *words.split(), *options, "--json", str(self.record(name))]


def summarize(folder: Path) -> JsonObject:
    """Return what a record keeps of a finished run, without paths."""
    run, test = (
        json.loads(file.read_text()) if (file := folder / f"{name}.json").is_file() else {}
        for name in ("run", "test")
    )
    kept = ("devices", "versions", "backend", "parameters", "seed", "steps", "seconds")
    return {
        **{key: run[key] for key in kept if key in run},
        "test": {key: value for key, value in test.items() if isinstance(value, int | float)},
        "history": read_metrics(folder),
    }
