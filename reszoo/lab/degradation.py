"""Degradation: deeper plain models train worse than shallow ones, residual ones do not."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from reszoo.config.load import load_recipe
from reszoo.config.model import ModelConfig
from reszoo.config.overrides import Overrides, format_overrides, parse_overrides
from reszoo.config.recipe import Recipe
from reszoo.config.schedule import CustomSchedule, StepSchedule, TriangularSchedule
from reszoo.errors import ReszooError
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.runs import error_curves, error_percent, train_all
from reszoo.lab.statistics import difference_sign
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation
from reszoo.reporting.plots import Plot, Theme, band
from reszoo.reporting.reporter import Reporter
from reszoo.types import JsonObject
from reszoo.zoo.catalog import spec

QUICK = "lab_digits"  # the embedded data
PAPER = "cifar10_plain20"  # arXiv 1512.03385, section 4.2: one recipe for all models
KINDS = ("plain", "residual")

# Reference: arXiv 1512.03385, table 6: test error in percent of residual models on CIFAR-10.
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
    quiet: bool = False,
) -> JsonObject:
    """Train plain and residual models of several depths by one recipe; return the record of `out`.

    The plain model is the residual one's spec with shortcut "none". Finished runs in `out`/runs are
    used, stopped ones resume; more seeds may be asked for later.

    Args:
        out: The folder of the experiment.
        data: "digits", a dataset's name or `folder:PATH`.
        depths: Depths as in the names `resnet{depth}`, at least two.
        seeds: Runs of each model, with seeds 0, 1, ...
        budget: Steps of each run; 0: the recipe's, which for any dataset but digits are the
            paper's 64,000. The learning rate drops at the same shares of it.
        overrides: Recipe keys to change in all runs.
        devices: As `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For unknown depths, or a folder that holds another experiment.
    """
    depths = check_depths(depths)
    check_count("seeds", seeds, 1)
    base = base_recipe(data, budget, overrides)
    plan = {
        f"{recipe.model.name}-seed{seed}": recipe
        for seed in range(seeds)
        for depth in depths
        for recipe in twin_recipes(depth, base, seed)
    }
    settings = {"data": data, "depths": depths, "budget": budget}
    settings["overrides"] = format_overrides(overrides)
    folder = claim_folder(out, "degradation", settings)
    reporter = Reporter(log=folder / "degradation.log", quiet=quiet)
    runs = train_all(folder / "runs", plan, devices=devices, reporter=reporter)
    models = []
    for depth in depths:
        for kind in KINDS:
            name = f"{'resnet' if kind == 'residual' else 'plain'}{depth}"
            own = [runs[f"{name}-seed{seed}"] for seed in range(seeds)]
            curves = [error_curves(run) for run in own]
            models.append(
                {
                    "name": name,
                    "kind": kind,
                    "depth": depth,
                    "parameters": own[0].meta["parameters"],
                    "steps": curves[0]["steps"],
                    "training_error": [curve["training_error"] for curve in curves],
                    "validation_error": [curve["validation_error"] for curve in curves],
                    "final_training_error": [error_percent(run, "train") for run in own],
                    "final_test_error": [error_percent(run) for run in own],
                    "seconds": [run.meta["seconds"] for run in own],
                }
            )
    meta = next(iter(runs.values())).meta
    results = {
        "recipe": plan[f"{models[0]['name']}-seed0"].to_dict(),
        "data": meta["data"],
        "steps": meta["steps"],
        "models": models,
        "verdicts": {kind: compare_depths(models, kind) for kind in KINDS},
        "measures": measure_depths(models),
    }
    settings["seeds"] = seeds
    record = write_record(folder, "degradation", settings=settings, results=results)
    write_report(folder)
    return record


def check_depths(depths: Sequence[int]) -> list[int]:
    """Return depths in order. Raises ReszooError for fewer than two."""
    found = sorted(set(depths))
    if len(found) < 2:
        raise ReszooError(f"depths: {found} is invalid; expected at least two. Example: 20 56")
    return found


def base_recipe(data: str, budget: int, overrides: Overrides = ()) -> Recipe:
    """Return the recipe of every run of the experiment, whatever its model.

    For digits the quick one, for any other dataset that of arXiv 1512.03385, section 4.2. If
    `budget` > 0 it replaces the recipe's steps, and scales the steps in its schedule.
    """
    check_count("budget", budget, 0)
    named = {} if data == "digits" else {"data.name": data, "train.export": False}
    name = QUICK if data == "digits" else PAPER
    recipe = load_recipe(name, {**named, **parse_overrides(overrides)})
    if not budget:
        return recipe
    if not recipe.train.steps or recipe.schedule.unit != "steps":
        raise ReszooError(
            f"budget: {budget} is invalid with train.epochs or schedule.unit; expected a recipe "
            "that counts steps"
        )
    factor, schedule = budget / recipe.train.steps, recipe.schedule
    scaled: JsonObject = {}
    if isinstance(schedule, StepSchedule):
        scaled["boundaries"] = tuple(round(at * factor) for at in schedule.boundaries)
    if not isinstance(schedule, TriangularSchedule | CustomSchedule):
        scaled["warmup"] = round(schedule.warmup * factor)
    return recipe.replace(
        train=recipe.train.replace(steps=budget), schedule=schedule.replace(**scaled)
    )


def twin_recipes(depth: int, base: Recipe, seed: int) -> tuple[Recipe, Recipe]:
    """Return the recipes of the plain and the residual model of a depth; only the models differ."""
    residual = spec(f"resnet{depth}")
    fields = {key: value for key, value in base.model.fields.items() if key != "shortcut"}
    train = base.train.replace(seed=seed)
    plain, other = (
        base.replace(
            name=f"degradation_{name}", model=ModelConfig(name=name, **fields), train=train
        )
        for name in (residual.plain_twin().name, residual.name)
    )
    assert plain.model.spec == other.model.spec.plain_twin()
    return plain, other


def compare_depths(models: Sequence[JsonObject], kind: str) -> JsonObject:
    """Compare the deepest model of a kind with its shallowest, on the training images.

    difference: mean over seeds of (deepest - shallowest) training error, in points; deviation: its
    sample deviation. answer: "worse" or "better" as `difference_sign` says, else "no clear
    difference".
    """
    shallow, deep = _ends(models, kind)
    points = np.subtract(deep["final_training_error"], shallow["final_training_error"])
    answers = {1: "worse", -1: "better", 0: "no clear difference"}
    return {
        "shallow": shallow["name"],
        "deep": deep["name"],
        "difference": float(points.mean()),
        "deviation": float(points.std(ddof=1)) if len(points) > 1 else None,
        "seeds": len(points),
        "answer": answers[difference_sign(points.tolist())],
    }


def measure_depths(models: Sequence[JsonObject]) -> JsonObject:
    """Return differences of mean test errors, in points.

    plain_growth, residual_growth: the deepest model minus the shallowest. plain_excess: the deepest
    plain model minus the deepest residual one.
    """
    ends = {
        kind: [float(np.mean(model["final_test_error"])) for model in _ends(models, kind)]
        for kind in KINDS
    }
    growth = {f"{kind}_growth": deep - shallow for kind, (shallow, deep) in ends.items()}
    return {**growth, "plain_excess": ends["plain"][1] - ends["residual"][1]}


def _ends(models: Sequence[JsonObject], kind: str) -> tuple[JsonObject, JsonObject]:
    """Return the shallowest and the deepest model of a kind."""
    own = sorted((model for model in models if model["kind"] == kind), key=lambda m: m["depth"])
    return own[0], own[-1]


def _describe(verdict: JsonObject, kind: str) -> str:
    answers = {"worse": "train worse", "better": "train better"}
    deviation = f" ± {verdict['deviation']:.2f}" if verdict["deviation"] is not None else ""
    return (
        f"deeper {kind} models {answers.get(verdict['answer'], 'show no clear difference')} "
        f"({verdict['deep']} differs from {verdict['shallow']} by {verdict['difference']:+.2f}"
        f"{deviation} points of training error over {verdict['seeds']} "
        f"seed{'' if verdict['seeds'] == 1 else 's'})"
    )


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `degradation` wrote."""
    results, settings, recipe = record["results"], record["settings"], record["results"]["recipe"]
    models = results["models"]
    finding = "; ".join(_describe(results["verdicts"][kind], kind) for kind in KINDS)
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
    note = (
        "At the end of training: mean ± sample deviation over seeds. Training error: all training "
        "images, not augmented."
    )
    if "cifar10" in settings["data"]:
        headers.append("published test error, %")
        for row, model in zip(rows, models, strict=True):
            known = PUBLISHED.get(model["depth"], "-") if model["kind"] == "residual" else "-"
            row.append(str(known))
        note += f" Published: arXiv 1512.03385, table 6, after {PAPER_STEPS:,} steps."
    batch, images = recipe["train"]["batch_size"], results["data"]["examples"]["train"]
    setup = [
        ["data", f"{settings['data']}, {images:,} training images"],
        ["training", f"{results['steps']:,} steps of {batch} images, {settings['seeds']} seeds"],
        ["plain models", "the residual ones without shortcuts, with equally many parameters"],
    ]
    plot = Plot(
        "degradation",
        "Top-1 error against steps, as in figure 6 of arXiv 1512.03385. Thin: training images, "
        "augmented; bold: validation; dots: test, at the end. Bands: sample deviation over seeds.",
        lambda figure, theme: _draw(figure, theme, models),
        (9.0, 4.4),
    )
    sections = [
        Section("Error against steps", [plot, Table(headers, rows, note)]),
        Section("Setup", [Table([], setup)]),
    ]
    return Page("The degradation problem", f"{finding[0].upper()}{finding[1:]}.", sections)


def _draw(figure: Figure, theme: Theme, models: Sequence[JsonObject]) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    depths = sorted({model["depth"] for model in models})
    tops = []
    for panel, kind in zip(axes, KINDS, strict=True):
        for model in (model for model in models if model["kind"] == kind):
            color = theme.others[depths.index(model["depth"]) % len(theme.others)]
            steps, tests = model["steps"], model["final_test_error"]
            band(panel, steps, model["training_error"], color, linewidth=0.9)
            band(panel, steps, model["validation_error"], color, model["name"], linewidth=2.2)
            panel.plot([steps[-1]] * len(tests), tests, "o", color=color, markersize=5)
            # The first tenth, where every model is at chance, would flatten the rest.
            errors = np.array([model["training_error"], model["validation_error"]], float)
            tops.append(np.nanmax(errors[..., len(steps) // 10 :].mean(axis=1)))
        panel.set_title(f"{kind} models", fontsize=11)
        panel.set_xlabel("steps")
        panel.legend()
    axes[0].set_ylabel("top-1 error (%)")
    axes[0].set_ylim(0, min(100.0, 1.08 * max(tops)))
