"""The degradation problem: deeper plain nets train worse than shallow ones, deeper residual nets do not."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from reszoo.config.load import load_recipe
from reszoo.config.model import ModelConfig
from reszoo.config.overrides import Overrides, format_overrides, parse_overrides
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.lab.grid import Tell, curve, error, run_all
from reszoo.lab.record import claim, write_record
from reszoo.lab.report import report
from reszoo.lab.weigh import direction
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation
from reszoo.reporting.plots import Plot, Theme, band
from reszoo.zoo.catalog import spec

QUICK = "lab_digits"  # the embedded data
PAPER = "cifar10_plain20"  # arXiv 1512.03385, section 4.2: the same recipe for both kinds and every depth
KINDS = ("plain", "residual")

# arXiv 1512.03385, table 6: test error in percent of residual nets on clean CIFAR-10 after 64,000 steps.
PUBLISHED = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43}
PAPER_STEPS = 64_000


def degradation(
    out: str | os.PathLike[str],
    *,
    data: str = "digits",
    depths: Sequence[int] = (20, 56),
    seeds: int = 3,
    budget: int = 0,
    overrides: Overrides = (),
    devices: str = "auto",
    tell: Tell = print,
) -> dict[str, Any]:
    """Train plain and residual nets of several depths alike and weigh them; write record, figures and page into `out`.

    data: "digits", a set's name or `folder:PATH`. depths: as in the names `resnet{depth}`, at least two. seeds: runs of
        each net, with seeds 0, 1, ... budget: steps of each run, by default the recipe's; for any set but digits
        that is the paper's, 64,000, and a smaller budget drops its rates at the same shares of it. overrides: `table.key=value`,
        the same for all runs. The plain net is the residual one's spec with shortcut "none" and nothing else.
    Runs already in `out`/runs are used, broken ones go on. Returns the record.
    Raises ReszooError for depths the zoo has not, or a folder that holds another experiment.
    """
    depths = sorted(set(depths))
    settings = {
        "data": data,
        "depths": depths,
        "budget": budget,
        "overrides": format_overrides(overrides),
    }
    if len(depths) < 2:
        raise ReszooError("depths must be at least two different ones, such as 20 56")
    if seeds < 1:
        raise ReszooError(f"seeds is {seeds}, but must be at least 1")
    plan = {
        f"{net.model.name}-seed{seed}": net
        for seed in range(seeds)
        for depth in depths
        for net in pair(depth, base_recipe(data, budget, overrides), seed)
    }
    folder = claim(out, "degradation", settings)  # more seeds may come later
    runs = run_all(folder / "runs", plan, devices=devices, tell=tell)
    nets = []
    for depth in depths:
        for kind in KINDS:
            name = f"{'resnet' if kind == 'residual' else 'plain'}{depth}"
            own = [runs[f"{name}-seed{seed}"] for seed in range(seeds)]
            rows = [curve(run, "step", "accuracy", "val_accuracy") for run in own]
            nets.append(
                {
                    "name": name,
                    "kind": kind,
                    "depth": depth,
                    "parameters": own[0].meta["parameters"],
                    "steps": rows[0]["step"],
                    "training_error": [_percent(row["accuracy"]) for row in rows],
                    "validation_error": [_percent(row["val_accuracy"]) for row in rows],
                    "final_training_error": [error(run, "train") for run in own],
                    "final_test_error": [error(run) for run in own],
                    "seconds": [run.meta["seconds"] for run in own],
                }
            )
    first = next(iter(runs.values()))
    about = {
        "recipe": plan[f"{nets[0]['name']}-seed0"].to_dict(),
        "data": first.meta["data"],
        "steps": first.meta["steps"],
    }
    results = {**about, "nets": nets, "verdicts": {kind: verdict(nets, kind) for kind in KINDS}}
    record = write_record(
        folder, "degradation", settings={**settings, "seeds": seeds}, results=results
    )
    report(folder)
    return record


def base_recipe(data: str, budget: int, overrides: Overrides = ()) -> Recipe:
    """Return the recipe that every run of the experiment follows, whatever its net.

    For digits the quick one, for any other set that of arXiv 1512.03385, section 4.2. A budget of steps, if above 0, takes the
    place of the recipe's, and what its schedule says of steps is multiplied by the same factor.
    """
    if budget < 0 or isinstance(budget, bool) or not isinstance(budget, int):
        raise ReszooError(
            f"budget is {budget!r}, but must be a number of steps such as 1500, or 0 for the recipe's own"
        )
    named = {} if data == "digits" else {"data.name": data, "train.export": False}
    recipe = load_recipe(
        QUICK if data == "digits" else PAPER, {**named, **parse_overrides(overrides)}
    )
    if not budget:
        return recipe
    if not recipe.train.steps or recipe.schedule.unit != "steps":
        raise ReszooError(
            "a budget counts steps; with it, leave train.epochs and schedule.unit alone"
        )
    factor, schedule = budget / recipe.train.steps, recipe.schedule
    scaled: dict[str, Any] = {}
    if schedule.kind == "step":
        scaled["boundaries"] = tuple(round(at * factor) for at in schedule.boundaries)
    if schedule.kind != "triangular":
        scaled["warmup"] = round(schedule.warmup * factor)
    return recipe.replace(
        train=recipe.train.replace(steps=budget), schedule=schedule.replace(**scaled)
    )


def pair(depth: int, base: Recipe, seed: int) -> tuple[Recipe, Recipe]:
    """Return the recipes of the plain and the residual net of a depth, which differ in their net alone."""
    residual = spec(f"resnet{depth}")
    fields = {key: value for key, value in base.model.fields.items() if key != "shortcut"}
    train = base.train.replace(seed=seed)
    nets = (residual.plain_twin().name, residual.name)
    recipes = [
        base.replace(name=f"degradation_{net}", model=ModelConfig(name=net, **fields), train=train)
        for net in nets
    ]
    twin = recipes[1].model.spec.plain_twin()
    assert recipes[0].model.spec == twin, (
        "the plain net must be its residual twin without shortcuts"
    )
    return recipes[0], recipes[1]


def verdict(nets: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Weigh the deepest net of a kind against its shallowest, on the training images, seed by seed.

    difference: mean over seeds of (deepest - shallowest) training error, in points; deviation: sample deviation of it.
    answer: "worse" or "better" where every seed agrees and the mean is beyond two standard errors of itself (with one seed:
    where they differ at all, which proves little); else "no clear difference".
    """
    own = sorted((net for net in nets if net["kind"] == kind), key=lambda net: net["depth"])
    shallow, deep = own[0], own[-1]
    points = np.subtract(deep["final_training_error"], shallow["final_training_error"])
    deviation = float(points.std(ddof=1)) if len(points) > 1 else None
    mean = float(points.mean())
    answer = {1: "worse", -1: "better", 0: "no clear difference"}[direction(points.tolist())]
    return {
        "shallow": shallow["name"],
        "deep": deep["name"],
        "difference": mean,
        "deviation": deviation,
        "seeds": len(points),
        "answer": answer,
    }


def say(found: dict[str, Any]) -> str:
    """Return a verdict's difference in words."""
    difference = f"{found['difference']:+.2f}" + (
        f" ± {found['deviation']:.2f}" if found["deviation"] is not None else ""
    )
    seeds = f"{found['seeds']} seed{'' if found['seeds'] == 1 else 's'}"
    return f"{found['deep']} differs from {found['shallow']} by {difference} points of training error over {seeds}"


def present(record: dict[str, Any]) -> Page:
    """Return the page of a record that `degradation` wrote."""
    results, settings, recipe = record["results"], record["settings"], record["results"]["recipe"]
    models, verdicts = results["nets"], results["verdicts"]
    answers = {
        "worse": "train worse",
        "better": "train better",
        "no clear difference": "show no clear difference",
    }
    finding = "; ".join(
        f"deeper {kind} models {answers[verdicts[kind]['answer']]} ({say(verdicts[kind])})"
        for kind in KINDS
    )
    headers = ["model", "parameters", "training error, %", "test error, %", "training, s"]
    rows = [
        [
            model["name"],
            f"{model['parameters']:,}",
            mean_and_deviation(model["final_training_error"]),
            mean_and_deviation(model["final_test_error"]),
            mean_and_deviation(model["seconds"], 0),
        ]
        for model in models
    ]
    note = "At the end of training: mean ± sample deviation over seeds. Training error: all training images, not augmented."
    if "cifar10" in settings["data"]:
        headers.append("published test error, %")
        for row, model in zip(rows, models, strict=True):
            row.append(
                f"{PUBLISHED.get(model['depth'], '-')}" if model["kind"] == "residual" else "-"
            )
        note += f" Published: arXiv 1512.03385, table 6, after {PAPER_STEPS:,} steps."
    setup = [
        ["data", f"{settings['data']}, {results['data']['examples']['train']:,} training images"],
        [
            "training",
            f"{results['steps']:,} steps of {recipe['train']['batch_size']} images, {settings['seeds']} seeds",
        ],
        ["plain models", "the residual ones without shortcuts, with equally many parameters"],
    ]
    plot = Plot(
        "degradation",
        "Top-1 error against steps, as in figure 6 of arXiv 1512.03385. Thin: training images, augmented; bold: validation; "
        "dots: test, at the end. Bands: sample deviation over seeds.",
        lambda figure, theme: _draw(figure, theme, models, len(models[0]["steps"])),
        (9.0, 4.4),
    )
    sections = [
        Section("Error against steps", [plot]),
        Section("Final error", [Table(headers, rows, note)]),
        Section("Setup", [Table([], setup)]),
    ]
    return Page("The degradation problem", f"{finding[0].upper()}{finding[1:]}.", sections)


def _draw(figure: Figure, theme: Theme, models: list[dict[str, Any]], points: int) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    depths = sorted({model["depth"] for model in models})
    tops = []
    for panel, kind in zip(axes, KINDS, strict=True):
        for model in models:
            if model["kind"] != kind:
                continue
            color = theme.others[depths.index(model["depth"]) % len(theme.others)]
            steps = np.array(model["steps"])
            band(panel, steps, model["training_error"], color, linewidth=0.9)
            band(panel, steps, model["validation_error"], color, model["name"], linewidth=2.2)
            panel.plot(
                [steps[-1]] * len(model["final_test_error"]),
                model["final_test_error"],
                "o",
                color=color,
                markersize=5,
            )
            # The first tenth, where every model is at chance, would flatten the rest.
            late = np.array([model["training_error"], model["validation_error"]], float)[
                ..., points // 10 :
            ]
            tops.append(np.nanmax(late.mean(axis=1)))
        panel.set_title(f"{kind} models", fontsize=11)
        panel.set_xlabel("steps")
        panel.legend()
    axes[0].set_ylabel("top-1 error (%)")
    axes[0].set_ylim(0, min(100.0, 1.08 * max(tops)))


def _percent(accuracies: Sequence[float]) -> list[float]:
    return [100 * (1 - value) for value in accuracies]
