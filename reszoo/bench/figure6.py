"""Figure 6 of arXiv 1512.03385: four models on one GPU, with a budget that ends in time."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from reszoo.bench.limits import Outcome
from reszoo.bench.plan import MODELS, Plan, summarize

STEPS = 64_000  # the paper's
SAFETY = 0.92  # the share of the remaining time that the budget is computed for
FASTER = 1.02  # how many times as fast an option must be to be used


def measure_figure6(plan: Plan) -> None:
    """Train the models that have no record, with the budget of `figure6_budget.json`."""
    runs = {f"figure6_{model}": plan.out / "runs" / f"figure6_{model}" for model in MODELS}
    runs = {name: folder for name, folder in runs.items() if plan.missing(name)}
    if runs and plan.missing("figure6_budget"):
        choose_budget(plan)
    if not runs or plan.missing("figure6_budget"):
        return
    budget = json.loads(plan.record("figure6_budget").read_text())
    settings = [*budget["settings"], *set_steps(budget["steps"]), *set_images(plan)]

    def ended(name: str, outcome: Outcome) -> None:
        if outcome.succeeded:
            plan.write(name, summarize(runs[name]))

    commands = {
        name: plan.train(name.replace("figure6", "cifar10"), folder, settings)
        for name, folder in runs.items()
    }
    plan.run("figure6", commands, ended=ended)


def choose_budget(plan: Plan) -> None:
    """Measure the step time of the four models in parallel, and write the budget that ends in time.

    The runs use the options that made training faster in the benchmark; if they fail, none.
    """
    options = faster_options(plan)
    for settings in [options, []] if options else [[]]:
        if found := probe(plan, settings):
            seconds_per_step, overhead = found
            left = plan.seconds_left("figure6")
            steps = budget_steps(left, overhead, seconds_per_step, plan.steps or STEPS)
            if not steps:
                plan.report("figure6: skipped, because no step ends in time; give more seconds")
                return
            budget = {"steps": steps, "settings": settings, "seconds_per_step": seconds_per_step}
            budget |= {"overhead_seconds": round(overhead, 1), "seconds_left": round(left, 1)}
            plan.write("figure6_budget", budget)
            return


def budget_steps(left: float, overhead: float, seconds_per_step: float, most: int = STEPS) -> int:
    """Return the most steps that end in time: a multiple of 4, so that 1/2 and 3/4 are whole.

    Args:
        left: Seconds until everything must have ended.
        overhead: Seconds of a run in addition to its steps: imports, data, tracing, evaluation.
        seconds_per_step: Seconds of a step while all runs train, evaluations and checkpoints
            included.
        most: The upper limit.
    """
    steps = int((SAFETY * left - overhead) / seconds_per_step)
    return most if steps >= most else max(0, steps // 4 * 4)


def set_steps(steps: int) -> list[str]:
    """Return the overrides for `steps` steps: the learning rate drops at 1/2 and 3/4 of them."""
    return [f"train.steps={steps}", f"schedule.boundaries=[{steps / 2:g}, {3 * steps / 4:g}]"]


def set_images(plan: Plan) -> list[str]:
    """Return the overrides that name the images: all, or two small batches in a rehearsal."""
    few = ["data.examples=32", "data.validation=8", "train.batch_size=16"] if plan.steps else []
    return [f"data.name=folder:{plan.data}", "train.export=false", *few]


def faster_options(plan: Plan) -> list[str]:
    """Return the overrides that made resnet56 faster in the benchmark of batch 128."""
    if plan.missing("train_resnet56_b128"):
        return []
    (row,) = json.loads(plan.record("train_resnet56_b128").read_text())["models"]
    speed = {side: values["images_per_second"] for side, values in row["sides"].items()}
    return [
        option
        for option, side, plain in (
            ("train.jit=true", "reszoo-jit", "reszoo"),
            ("data.on_device=true", "reszoo-on-device", "reszoo-on-host"),
        )
        if side in speed and plain in speed and speed[side] > FASTER * speed[plain]
    ]


def probe(plan: Plan, options: Sequence[str]) -> tuple[float, float] | None:
    """Train the four models for two epochs in parallel.

    Returns:
        Seconds per step and seconds in addition to the steps of the slowest run; None if a run
        failed.
    """
    folder = plan.out / "probe"
    shutil.rmtree(folder, ignore_errors=True)
    settings = [*options, "train.epochs=2", *set_images(plan)]
    runs = {f"probe_{model}": folder / f"probe_{model}" for model in MODELS}
    rows: dict[str, list[tuple[int, float]]] = {name: [] for name in runs}  # (step, time)

    def observe() -> None:
        for name, run in runs.items():
            rows[name] += read_row(run / "history.csv", len(rows[name]))

    commands = {
        name: plan.train(name.replace("probe", "cifar10"), run, settings)
        for name, run in runs.items()
    }
    outcomes = plan.run("figure6", commands, observe=observe)
    if not all(outcome.succeeded for outcome in outcomes.values()):
        return None
    steps, overheads = [], []
    for name, run in runs.items():
        (first, before), (last, after) = rows[name][0], rows[name][-1]
        if last > first:
            steps.append((after - before) / (last - first))
        else:  # both rows appeared between two observations
            steps.append(json.loads((run / "run.json").read_text())["seconds"] / last)
        overheads.append(outcomes[name].seconds - last * steps[-1])
    return max(steps), max(0.0, *overheads)


def read_row(file: Path, known: int) -> list[tuple[int, float]]:
    """Return (step, time) of the newest row if a history has more than `known` rows."""
    try:
        with open(file, encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
            written = os.fstat(text.fileno()).st_mtime
    except FileNotFoundError:
        return []
    return [(int(rows[-1]["step"]), written)] if len(rows) > known else []
