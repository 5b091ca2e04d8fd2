"""Models grown from trained shallower ones, against the same models trained from scratch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from reszoo.config.overrides import Overrides, format_overrides
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.lab.degradation import KINDS, base_recipe, check_depths, twin_recipes
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.runs import error_curves, error_percent, train_all
from reszoo.lab.statistics import difference_sign
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation
from reszoo.reporting.plots import Plot, Theme, band
from reszoo.reporting.reporter import Reporter
from reszoo.training.run import Run
from reszoo.types import JsonObject
from reszoo.zoo.count import count

TRAINING_PASSES = 3  # cost of a step in forward passes: forward, gradients of inputs and of weights


def constructed(
    out: str | os.PathLike[str],
    *,
    data: str = "digits",
    depths: Sequence[int] = (20, 32, 56),
    seeds: int = 2,
    budget: int = 0,
    overrides: Overrides = (),
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Train the deepest of `depths` from scratch and grown from shallower ones; return the record.

    Every way costs the MACs of `budget` steps of the deepest model (by default the recipe's steps).
    "scratch": the deepest model, all of them. "grown": the shallowest model half, then grown to the
    deepest. "staged": each of `depths` in turn an equal share, grown from the one before. Each part
    follows the recipe of `degradation`, its learning rate dropping at the same shares of its steps.
    The arguments are those of `degradation`; stopped runs resume.

    Raises:
        ReszooError: For unknown depths, or a folder that holds another experiment.
    """
    depths = check_depths(depths)
    check_count("seeds", seeds, 1)
    steps = base_recipe(data, budget, overrides).train.steps
    if not steps:
        raise ReszooError("budget: 0 is invalid with train.epochs; expected steps. Example: 400")
    plan, ways = plan_runs(Path(out).resolve() / "runs", data, depths, steps, seeds, overrides)
    settings = {"data": data, "depths": depths, "budget": steps}
    settings["overrides"] = format_overrides(overrides)
    folder = claim_folder(out, "constructed", settings)
    reporter = Reporter(log=folder / "constructed.log", quiet=quiet)
    runs = train_all(folder / "runs", plan, devices=devices, reporter=reporter)
    rows = [
        {"kind": kind, "way": way, "seed": seed, "pieces": _parts([runs[name] for name in names])}
        for (kind, way, seed), names in ways.items()
    ]
    results = {"data": next(iter(runs.values())).meta["data"], "ways": rows}
    results["measures"] = {kind: measure_growth(rows, kind) for kind in KINDS}
    settings["seeds"] = seeds
    record = write_record(folder, "constructed", settings=settings, results=results)
    write_report(folder)
    return record


def plan_runs(
    folder: Path, data: str, depths: Sequence[int], steps: int, seeds: int, overrides: Overrides
) -> tuple[dict[str, Recipe], dict[tuple[str, str, int], list[str]]]:
    """Return the recipe of each run in `folder`, and the runs of each (kind, way, seed)."""
    paths = {"scratch": depths[-1:], "grown": [depths[0], depths[-1]], "staged": depths}
    if len(depths) == 2:
        del paths["staged"]
    plan: dict[str, Recipe] = {}
    ways: dict[tuple[str, str, int], list[str]] = {}
    for seed in range(seeds):
        for number, kind in enumerate(KINDS):
            for way, path in paths.items():
                source = ""
                for depth in path:
                    share = _steps(depth, depths[-1], steps, len(path))
                    recipe = twin_recipes(depth, base_recipe(data, share, overrides), seed)[number]
                    name = f"{way}-{recipe.model.name}-seed{seed}"
                    train = recipe.train.replace(grow_from=source)
                    plan[name] = recipe.replace(name=name, train=train)
                    source = str(folder / name)
                    ways.setdefault((kind, way, seed), []).append(name)
    return plan, ways


def _steps(depth: int, deepest: int, steps: int, parts: int) -> int:
    """Return how many steps at `depth` cost as much as `steps` / `parts` of the deepest model."""
    cost = count(f"resnet{deepest}").macs / count(f"resnet{depth}").macs
    return max(4, round(steps / parts * cost))


def _parts(runs: Sequence[Run]) -> list[JsonObject]:
    """Return cost and errors of the runs on one way to the deepest model.

    macs: spent in training up to each point of the curve, in 10^9.
    """
    spent, parts = 0.0, []
    for run in runs:
        meta = run.meta
        step_cost = TRAINING_PASSES * meta["macs"] * run.recipe.train.batch_size / 1e9
        curves = error_curves(run)
        parts.append(
            {
                "model": meta["spec"]["name"],
                "steps": meta["steps"],
                "macs": [spent + step * step_cost for step in curves["steps"]],
                "training_error": curves["training_error"],
                "validation_error": curves["validation_error"],
                "final_training_error": error_percent(run, "train"),
                "final_test_error": error_percent(run),
                "seconds": meta["seconds"],
                "grown": meta.get("grown_from"),
            }
        )
        spent += meta["steps"] * step_cost
    return parts


def compare_growth(ways: Sequence[JsonObject], kind: str, way: str = "grown") -> JsonObject:
    """Compare trained grown models of a kind with the models that they were grown from.

    difference: mean over seeds of (after - before) training error, in points; deviation: its sample
    deviation. answer: "loses" or "improves" as `difference_sign` says, else "keeps".
    """
    parts = [row["pieces"] for row in ways if row["kind"] == kind and row["way"] == way]
    points = np.array(
        [own[-1]["final_training_error"] - own[-2]["final_training_error"] for own in parts]
    )
    return {
        "difference": float(points.mean()),
        "deviation": float(points.std(ddof=1)) if len(points) > 1 else 0.0,
        "answer": {1: "loses", -1: "improves", 0: "keeps"}[difference_sign(points.tolist())],
    }


def measure_growth(ways: Sequence[JsonObject], kind: str) -> JsonObject:
    """Return the numbers that claims are about, for plain or residual models.

    output_change: the largest change of an output by growth. kept: mean training error of grown
    models after all training, minus that before growth. missed: mean training error from scratch
    minus that of grown models; missed_test: the same of the test error. All in points of error.
    """
    own = [row for row in ways if row["kind"] == kind]

    def mean(way: str, key: str) -> float:
        return float(np.mean([row["pieces"][-1][key] for row in own if row["way"] == way]))

    changes = [part["grown"]["difference"] for row in own for part in row["pieces"][1:]]
    return {
        "output_change": max(changes),
        "kept": compare_growth(ways, kind)["difference"],
        "missed": mean("scratch", "final_training_error") - mean("grown", "final_training_error"),
        "missed_test": mean("scratch", "final_test_error") - mean("grown", "final_test_error"),
    }


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `constructed` wrote."""
    settings, ways = record["settings"], record["results"]["ways"]
    plain, residual = (compare_growth(ways, kind) for kind in KINDS)
    finding = (
        f"Training {plain['answer']} the constructed solution in plain models "
        f"({plain['difference']:+.2f} points of training error) and {residual['answer']} it in "
        f"residual models ({residual['difference']:+.2f} points), {settings['depths'][0]} layers "
        f"grown to {settings['depths'][-1]}."
    )
    headers = [
        "",
        "models and steps",
        "training error before growth, %",
        "training error, %",
        "test error, %",
        "largest change of an output by growth",
        "training, s",
    ]
    rows = []
    for kind, way, own in _groups(ways):
        last = [parts[-1] for parts in own]
        before = [parts[-2]["final_training_error"] for parts in own if len(parts) > 1]
        grown = [part["grown"]["difference"] for parts in own for part in parts if part["grown"]]
        rows.append(
            [
                f"{kind}, {way}",
                " then ".join(f"{part['model']} {part['steps']}" for part in own[0]),
                mean_and_deviation(before),
                mean_and_deviation([part["final_training_error"] for part in last]),
                mean_and_deviation([part["final_test_error"] for part in last]),
                f"{max(grown):.2g}" if grown else "-",
                mean_and_deviation([sum(part["seconds"] for part in parts) for parts in own], 0),
            ]
        )
    note = (
        f"Mean ± sample deviation over {settings['seeds']} seeds. Training error: all training "
        "images, not augmented."
    )
    setup = [
        ["data", settings["data"]],
        ["cost of each row", f"the MACs of {settings['budget']:,} steps of the deepest model"],
        ["cost of a step", f"{TRAINING_PASSES} forward passes"],
        ["learning rate", "the recipe's schedule, from its start after each growth"],
    ]
    plot = Plot(
        "constructed",
        "Validation error against MACs spent in training. Bands: sample deviation over seeds. "
        "Ticks on the axis: a growth; the error there is that of the shallower model.",
        lambda figure, theme: _draw(figure, theme, ways),
        (9.0, 4.4),
    )
    sections = [
        Section("Grown and from scratch", [plot, Table(headers, rows, note)]),
        Section("Setup", [Table([], setup)]),
    ]
    return Page("The constructed solution", finding, sections)


def _groups(ways: Sequence[JsonObject]) -> list[tuple[str, str, list[list[JsonObject]]]]:
    """Return the parts of each seed by kind and way."""
    found: dict[tuple[str, str], list[list[JsonObject]]] = {}
    for row in ways:
        found.setdefault((row["kind"], row["way"]), []).append(row["pieces"])
    return [(*key, own) for key, own in found.items()]


def _draw(figure: Figure, theme: Theme, ways: Sequence[JsonObject]) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(row["way"] for row in ways))
    for kind, way, own in _groups(ways):
        panel, color = axes[KINDS.index(kind)], theme.others[names.index(way)]
        spent = [point for part in own[0] for point in part["macs"]]
        errors = [[value for part in parts for value in part["validation_error"]] for parts in own]
        band(panel, spent, errors, color, way)
        for part in own[0][:-1]:
            panel.axvline(part["macs"][-1], ymax=0.04, color=color, linewidth=1.5)
    for panel, kind in zip(axes, KINDS, strict=True):
        panel.set_title(f"{kind} models", fontsize=11)
        panel.set_xlabel("MACs spent in training (10\N{SUPERSCRIPT NINE})")
        panel.legend()
    axes[0].set(ylabel="validation error, top-1 (%)", ylim=(0, None))
