"""Does training keep the constructed solution? Nets grown from trained shallower ones, against the same nets from scratch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reszoo.config.overrides import Overrides, format_overrides
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.lab.degradation import KINDS, base_recipe, pair
from reszoo.lab.grid import Tell, curve, error, run_all
from reszoo.lab.record import claim, write_record
from reszoo.lab.report import report
from reszoo.lab.weigh import direction
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation
from reszoo.reporting.plots import Plot, Theme, band
from reszoo.training.run import Run
from reszoo.zoo.count import count

TRAINING_PASSES = 3  # a step costs about three forward passes: forward, and backward to the inputs and to the weights


def constructed(
    out: str | os.PathLike[str],
    *,
    data: str = "digits",
    depths: Sequence[int] = (20, 32, 56),
    seeds: int = 2,
    budget: int = 0,
    overrides: Overrides = (),
    devices: str = "auto",
    tell: Tell = print,
) -> dict[str, Any]:
    """Grow plain and residual nets on the way to the deepest of `depths`, and train that one from scratch; write all to `out`.

    Every way spends the same multiply-adds: those of `budget` steps of the deepest net (by default the recipe's steps).
    "scratch": the deepest net, all of them. "grown": the shallowest net half, then grown to the deepest. "staged": each of
    `depths` in turn an equal share, grown from the one before. Each piece follows the recipe of `reszoo lab degradation`, with the
    rate's drops at the same shares of its own steps. seeds, overrides, devices: as there.
    Runs already in `out`/runs are used, broken ones go on. Returns the record.
    """
    depths = sorted(set(depths))
    if len(depths) < 2:
        raise ReszooError("depths must be at least two different ones, such as 20 56")
    if seeds < 1:
        raise ReszooError(f"seeds is {seeds}, but must be at least 1")
    steps = base_recipe(data, budget, overrides).train.steps
    if not steps:
        raise ReszooError("the recipe counts epochs; give a budget of steps, such as --budget 400")
    settings = {
        "data": data,
        "depths": depths,
        "budget": steps,
        "overrides": format_overrides(overrides),
    }
    runs_folder = Path(out).resolve() / "runs"
    ways = {"scratch": depths[-1:], "grown": [depths[0], depths[-1]]} | (
        {"staged": depths} if len(depths) > 2 else {}
    )
    plan: dict[str, Recipe] = {}
    pieces: dict[tuple[str, str, int], list[str]] = {}
    for seed in range(seeds):
        for number, kind in enumerate(KINDS):
            for way, path in ways.items():
                source = ""
                for depth in path:
                    share = _share(depth, depths[-1], steps, len(path))
                    recipe = pair(depth, base_recipe(data, share, overrides), seed)[number]
                    name = f"{way}-{recipe.model.name}-seed{seed}"
                    plan[name] = recipe.replace(
                        name=name, train=recipe.train.replace(grow_from=source)
                    )
                    source = str(runs_folder / name)
                    pieces.setdefault((kind, way, seed), []).append(name)
    folder = claim(out, "constructed", settings)
    runs = run_all(folder / "runs", plan, devices=devices, tell=tell)
    rows = [
        _way(kind, way, seed, [runs[name] for name in names])
        for (kind, way, seed), names in pieces.items()
    ]
    first = next(iter(runs.values()))
    results = {"data": first.meta["data"], "ways": rows}
    record = write_record(
        folder, "constructed", settings={**settings, "seeds": seeds}, results=results
    )
    report(folder)
    return record


def _share(depth: int, deepest: int, steps: int, pieces: int) -> int:
    """Return how many steps of the net of `depth` cost 1 / pieces of `steps` steps of the deepest."""
    cost = count(f"resnet{deepest}").multiply_adds / count(f"resnet{depth}").multiply_adds
    return max(4, round(steps / pieces * cost))


def _way(kind: str, way: str, seed: int, runs: list[Run]) -> dict[str, Any]:
    """Return what one way to the deepest net cost and brought, piece by piece.

    multiply_adds: spent in training up to each point of the curve, in units of 10^9.
    """
    spent, pieces = 0.0, []
    for run in runs:
        meta = run.meta
        step_cost = TRAINING_PASSES * meta["multiply_adds"] * run.recipe.train.batch_size / 1e9
        rows = curve(run, "step", "accuracy", "val_accuracy")
        pieces.append(
            {
                "net": meta["spec"]["name"],
                "steps": meta["steps"],
                "multiply_adds": [spent + step * step_cost for step in rows["step"]],
                "training_error": [100 * (1 - value) for value in rows["accuracy"]],
                "validation_error": [100 * (1 - value) for value in rows["val_accuracy"]],
                "final_training_error": error(run, "train"),
                "final_test_error": error(run),
                "seconds": meta["seconds"],
                "grown": meta.get("grown_from"),
            }
        )
        spent += meta["steps"] * step_cost
    return {"kind": kind, "way": way, "seed": seed, "pieces": pieces}


def kept(ways: Sequence[dict[str, Any]], kind: str, way: str = "grown") -> dict[str, Any]:
    """Weigh the grown nets of a kind, as training left them, against what they were grown from, on the training images.

    difference: mean over seeds of (after - before) training error, in points. answer: "improves" or "loses" where every seed
    agrees and the mean is beyond two standard errors (with one seed: where it differs), else "keeps".
    """
    own = [row["pieces"] for row in ways if row["kind"] == kind and row["way"] == way]
    points = np.array(
        [pieces[-1]["final_training_error"] - pieces[-2]["final_training_error"] for pieces in own]
    )
    deviation = float(points.std(ddof=1)) if len(points) > 1 else 0.0
    answer = {1: "loses", -1: "improves", 0: "keeps"}[direction(points.tolist())]
    return {"difference": float(points.mean()), "deviation": deviation, "answer": answer}


def present(record: dict[str, Any]) -> Page:
    """Return the page of a record that `constructed` wrote."""
    settings, ways = record["settings"], record["results"]["ways"]
    shallow, deep = settings["depths"][0], settings["depths"][-1]
    found = {kind: kept(ways, kind) for kind in KINDS}
    plain, residual = (found[kind] for kind in KINDS)
    finding = (
        f"Training {plain['answer']} the constructed solution in plain models ({plain['difference']:+.2f} points of training "
        f"error) and {residual['answer']} it in residual models ({residual['difference']:+.2f} points), {shallow} layers "
        f"grown to {deep}."
    )
    headers = [
        "",
        "models and steps",
        "training error before growth, %",
        "training error, %",
        "test error, %",
    ]
    headers += ["largest change of an output by growth", "training, s"]
    rows = []
    for kind, way, own in _groups(ways):
        last = [row["pieces"][-1] for row in own]
        growths = [
            piece["grown"]["difference"] for row in own for piece in row["pieces"] if piece["grown"]
        ]
        rows.append(
            [
                f"{kind}, {way}",
                " then ".join(f"{piece['net']} {piece['steps']}" for piece in own[0]["pieces"]),
                mean_and_deviation(
                    [
                        row["pieces"][-2]["final_training_error"]
                        for row in own
                        if len(row["pieces"]) > 1
                    ]
                ),
                mean_and_deviation([piece["final_training_error"] for piece in last]),
                mean_and_deviation([piece["final_test_error"] for piece in last]),
                f"{max(growths):.2g}" if growths else "-",
                mean_and_deviation(
                    [sum(piece["seconds"] for piece in row["pieces"]) for row in own], 0
                ),
            ]
        )
    note = f"Mean ± sample deviation over {settings['seeds']} seeds. Training error: all training images, not augmented."
    setup = [
        ["data", settings["data"]],
        ["cost of each row", f"the MACs of {settings['budget']:,} steps of the deepest model"],
        ["cost of a step", f"{TRAINING_PASSES} forward passes"],
        ["learning rate", "the recipe's schedule, from its start after each growth"],
    ]
    plot = Plot(
        "constructed",
        "Validation error against MACs spent in training. Bands: sample deviation over seeds. Ticks on the axis: a growth; "
        "the error there is that of the shallower model.",
        lambda figure, theme: _draw(figure, theme, ways),
        (9.0, 4.4),
    )
    sections = [
        Section("Grown and from scratch", [plot, Table(headers, rows, note)]),
        Section("Setup", [Table([], setup)]),
    ]
    return Page("The constructed solution", finding, sections)


def _groups(ways: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[dict[str, Any]]]]:
    keys = dict.fromkeys((row["kind"], row["way"]) for row in ways)
    return [
        (kind, way, [r for r in ways if (r["kind"], r["way"]) == (kind, way)]) for kind, way in keys
    ]


def _draw(figure: Figure, theme: Theme, ways: Sequence[dict[str, Any]]) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    names = list(dict.fromkeys(row["way"] for row in ways))
    for panel, kind in zip(axes, KINDS, strict=True):
        for _, way, own in (group for group in _groups(ways) if group[0] == kind):
            color = theme.others[names.index(way)]
            spent = [point for piece in own[0]["pieces"] for point in piece["multiply_adds"]]
            errors = [
                [value for piece in row["pieces"] for value in piece["validation_error"]]
                for row in own
            ]
            band(panel, spent, errors, color, way)
            for piece in own[0]["pieces"][:-1]:
                panel.axvline(piece["multiply_adds"][-1], ymax=0.04, color=color, linewidth=1.5)
        panel.set_title(f"{kind} models", fontsize=11)
        panel.set_xlabel("MACs spent in training (10\N{SUPERSCRIPT NINE})")
        panel.legend()
    axes[0].set_ylabel("validation error, top-1 (%)")
    axes[0].set_ylim(bottom=0)
