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
from reszoo.lab.page import Plot, Section, Table, Theme, band, spread
from reszoo.lab.record import claim, write_record
from reszoo.lab.report import report
from reszoo.lab.weigh import direction
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
    settings = {"data": data, "depths": depths, "budget": budget, "overrides": format_overrides(overrides)}
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
    record = write_record(folder, "degradation", settings={**settings, "seeds": seeds}, results=results)
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
    recipe = load_recipe(QUICK if data == "digits" else PAPER, {**named, **parse_overrides(overrides)})
    if not budget:
        return recipe
    if not recipe.train.steps or recipe.schedule.unit != "steps":
        raise ReszooError("a budget counts steps; with it, leave train.epochs and schedule.unit alone")
    factor, schedule = budget / recipe.train.steps, recipe.schedule
    scaled: dict[str, Any] = {}
    if schedule.kind == "step":
        scaled["boundaries"] = tuple(round(at * factor) for at in schedule.boundaries)
    if schedule.kind != "triangular":
        scaled["warmup"] = round(schedule.warmup * factor)
    return recipe.replace(train=recipe.train.replace(steps=budget), schedule=schedule.replace(**scaled))


def pair(depth: int, base: Recipe, seed: int) -> tuple[Recipe, Recipe]:
    """Return the recipes of the plain and the residual net of a depth, which differ in their net alone."""
    residual = spec(f"resnet{depth}")
    fields = {key: value for key, value in base.model.fields.items() if key != "shortcut"}
    train = base.train.replace(seed=seed)
    nets = (residual.plain_twin().name, residual.name)
    recipes = [
        base.replace(name=f"degradation_{net}", model=ModelConfig(name=net, **fields), train=train) for net in nets
    ]
    twin = recipes[1].model.spec.plain_twin()
    assert recipes[0].model.spec == twin, "the plain net must be its residual twin without shortcuts"
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
    """Return a verdict in words."""
    sizes = f"{found['difference']:+.2f}" + (f" ± {found['deviation']:.2f}" if found["deviation"] is not None else "")
    seeds = f"{found['seeds']} seed{'s' if found['seeds'] > 1 else ''}"
    words = {
        "worse": "is worse than",
        "better": "is better than",
        "no clear difference": "does not clearly differ from",
    }
    return f"{found['deep']} {words[found['answer']]} {found['shallow']} on the training images: {sizes} points of error, {seeds}"


def present(record: dict[str, Any]) -> tuple[str, str, list[Section]]:
    """Return title, finding and sections of the page."""
    results, settings = record["results"], record["settings"]
    nets, found = results["nets"], results["verdicts"]
    shown = {"worse": "is there", "better": "is not there", "no clear difference": "does not show"}
    lead = f"Degradation {shown[found['plain']['answer']]} in these plain nets: {say(found['plain'])}. {say(found['residual'])}."
    cifar = "cifar10" in settings["data"]
    headers = ["net", "parameters", "training error, %", "test error, %", "training, s"]
    rows = [
        [
            net["name"],
            f"{net['parameters']:,}",
            spread(net["final_training_error"]),
            spread(net["final_test_error"]),
            spread(net["seconds"], 0),
        ]
        for net in nets
    ]
    note = (
        "Mean ± sample deviation over seeds, of the nets as they ended: on all training images, not augmented, and on the test "
        "images, read once."
    )
    if cifar:
        headers.append("published test error, %")
        for row, net in zip(rows, nets, strict=True):
            row.append(f"{PUBLISHED[net['depth']]}" if net["kind"] == "residual" and net["depth"] in PUBLISHED else "-")
        note += f" Published: arXiv 1512.03385, table 6, clean CIFAR-10, {PAPER_STEPS:,} steps; these runs had {results['steps']:,}."
    recipe = results["recipe"]
    how = (
        f"Each net was trained {settings['seeds']} times for {results['steps']:,} steps of {recipe['train']['batch_size']} "
        f"images on {settings['data']} ({results['data']['examples']['train']:,} training images), all by the same recipe; a "
        "plain net is its residual twin without shortcuts, equal to the last weight."
    )
    plot = Plot(
        "degradation",
        "Error against steps, as in figure 6 of arXiv 1512.03385. Thin: training images as they pass, augmented; bold: validation images; "
        "dots: test images, at the end. Bands: sample deviation over seeds.",
        lambda figure, theme: _draw(figure, theme, nets, len(nets[0]["steps"])),
        (9.0, 4.4),
    )
    return (
        "The degradation problem",
        lead,
        [
            Section("Error against steps", [how], [plot]),
            Section("Where they ended", [], [Table(headers, rows, note)]),
        ],
    )


def _draw(figure: Figure, theme: Theme, nets: list[dict[str, Any]], points: int) -> None:
    axes = figure.subplots(1, 2, sharey=True)
    depths = sorted({net["depth"] for net in nets})
    tops = []
    for panel, kind in zip(axes, KINDS, strict=True):
        for net in nets:
            if net["kind"] != kind:
                continue
            color = theme.others[depths.index(net["depth"]) % len(theme.others)]
            steps = np.array(net["steps"])
            band(panel, steps, net["training_error"], color, "", linewidth=0.9)
            band(panel, steps, net["validation_error"], color, f"{net['name']}", linewidth=2.2)
            panel.plot(
                [steps[-1]] * len(net["final_test_error"]), net["final_test_error"], "o", color=color, markersize=5
            )
            # The first tenth, where every net is at chance, would flatten the rest.
            late = np.array([net["training_error"], net["validation_error"]], float)[..., points // 10 :]
            tops.append(np.nanmax(late.mean(axis=1)))
        panel.set_title(f"{kind} nets", fontsize=11)
        panel.set_xlabel("steps")
        panel.legend()
    axes[0].set_ylabel("top-1 error (%)")
    axes[0].set_ylim(0, min(100.0, 1.08 * max(tops)))


def _percent(accuracies: Sequence[float]) -> list[float]:
    return [100 * (1 - value) for value in accuracies]
