"""Training time saved by growing: copied, halved blocks and zero blocks, against from scratch."""

from __future__ import annotations

import os
from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.figure import Figure

from reszoo.config.model import ModelConfig
from reszoo.config.overrides import Overrides, format_overrides
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.lab.constructed import TRAINING_PASSES
from reszoo.lab.degradation import base_recipe
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.runs import error_curves, error_percent, fit, is_finished, open_trainer
from reszoo.models.build import build
from reszoo.models.grow import grow
from reszoo.reporting.page import Page, Section, Table, mean_and_deviation
from reszoo.reporting.plots import Plot, Theme, band
from reszoo.reporting.reporter import Reporter
from reszoo.training.memory import release_memory
from reszoo.training.run import Run
from reszoo.types import JsonObject
from reszoo.zoo.count import count
from reszoo.zoo.layer_names import parse_block_layer
from reszoo.zoo.spec import Spec

WAYS = {
    "scratch": "the deepest model, all steps",
    "equal": "the deepest model, with as many MACs as the grown ones",
    "zero": "grown by blocks that return 0 at first",
    "copied": "grown by copies, all branches halved",
}


def growth(
    out: str | os.PathLike[str],
    *,
    data: str = "digits",
    blocks: int = 2,
    cycles: int = 3,
    seeds: int = 2,
    budget: int = 300,
    overrides: Overrides = (),
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Train residual models from scratch and by doubling their blocks; return the record of `out`.

    A grown model is trained in `cycles` parts of equally many steps, and its blocks are doubled
    after each but the last. Each part follows the recipe's schedule from its start, with a new
    optimizer. Finished runs in `out`/runs are used, stopped ones resume.

    Args:
        out: The folder of the experiment.
        data: "digits", a dataset's name or `folder:PATH`.
        blocks: Blocks of each stage at first, at least 2.
        cycles: Parts of the training.
        seeds: Runs of each way, with seeds 0, 1, ...
        budget: Steps of each model, but of "equal".
        overrides: Recipe keys to change in all runs.
        devices: As `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For settings out of range, or a folder that holds another experiment.
    """
    check_count("blocks", blocks, 2)
    check_count("cycles", cycles, 2, 6)
    check_count("seeds", seeds, 1)
    check_count("budget", budget, 4 * cycles)
    settings = {"data": data, "blocks": blocks, "cycles": cycles, "budget": budget}
    settings["overrides"] = format_overrides(overrides)
    plan = plan_ways(data, blocks, cycles, budget, overrides)
    folder = claim_folder(out, "growth", settings)
    reporter = Reporter(log=folder / "growth.log", quiet=quiet)
    rows: list[JsonObject] = []
    for seed in range(seeds):
        for way, recipes in plan.items():
            parts: list[Run] = []
            for recipe in recipes:
                own = recipe.replace(train=recipe.train.replace(seed=seed))
                run = Run(folder / "runs" / f"{way}-{_layers(recipe)}-seed{seed}")
                if not is_finished(run):
                    _train(run, own, parts[-1] if parts else None, way, devices, reporter)
                parts.append(run)
            rows.append({"way": way, "seed": seed, **_measure_parts(parts)})
            reporter.line(f"{way}, seed {seed}: test error {rows[-1]['test_error']:.2f} %")
    results: JsonObject = {"ways": rows, "data": parts[-1].meta["data"]}
    results["measures"] = _measures(rows)
    settings["seeds"] = seeds
    record = write_record(folder, "growth", settings=settings, results=results)
    write_report(folder)
    return record


def plan_ways(
    data: str, blocks: int, cycles: int, budget: int, overrides: Overrides
) -> dict[str, list[Recipe]]:
    """Return the recipes of each way, one for each part."""

    def recipe(cycle: int, steps: int) -> Recipe:
        base = base_recipe(data, steps, overrides)
        fields = {**base.model.fields, "depths": (blocks * 2**cycle,) * 3}
        return base.replace(name="growth", model=ModelConfig(name="resnet20", **fields))

    grown = [recipe(cycle, budget // cycles) for cycle in range(cycles)]
    costs = [count(each.model.spec).macs for each in grown]
    equal = round(budget // cycles * sum(costs) / costs[-1])
    scratch = [[recipe(cycles - 1, steps)] for steps in (budget, equal)]
    return dict(zip(WAYS, [*scratch, grown, grown], strict=True))


def _layers(recipe: Recipe) -> int:
    return 2 * sum(recipe.model.spec.depths) + 2


def double_blocks(model: keras.Model, spec: Spec) -> keras.Model:
    """Return a model with twice as many blocks in each stage, of nearly the same function.

    Each block is followed by its copy, and the branches of both are halved by their last batch
    norm. A block that changes the shape cannot be copied: it stays, and a block that returns 0
    follows.

    Args:
        model: A model with batch norm at the end of its branches.
        spec: Its specification.

    Raises:
        ReszooError: If no batch norm ends the branches.

    Reference: arXiv 1710.10348, section 4.
    """
    if spec.norm != "batch" or spec.order != "post" or spec.shortcut == "none":
        raise ReszooError(
            f"{spec.name} cannot be doubled; expected shortcuts, norm='batch' and order='post'"
        )
    doubled = spec.replace(depths=tuple(2 * depth for depth in spec.depths))
    deep = build(doubled, classes=model.output_shape[-1], input_shape=model.input_shape[1:])
    old = {layer.name: layer for layer in model.layers}
    end = "bn2" if spec.block == "basic" else "bn3"
    for layer in deep.layers:
        place = parse_block_layer(layer.name)
        if not layer.weights:
            continue
        if not place:
            layer.set_weights(old[layer.name].get_weights())
            continue
        source, second = (place.block - 1) // 2, place.block % 2 == 0
        changes = _changes_shape(spec, place.stage - 1, source)
        if not (changes and second):
            name = f"{place.stage_name}_block{source + 1}_{place.part}"
            layer.set_weights(old[name].get_weights())
        if place.part == end and (second or not changes):
            for weight in (layer.gamma, layer.beta):
                weight.assign(weight * (0.0 if changes else 0.5))
    return deep


def _changes_shape(spec: Spec, stage: int, index: int) -> bool:
    """Return whether block `index` of a stage (both from 0) has another output than input shape."""
    entering = spec.out_channels(stage - 1) if stage else spec.stem_width
    grows = index == 0 and entering != spec.out_channels(stage)
    return grows or spec.stride(stage, index) > 1


def _train(
    run: Run, recipe: Recipe, before: Run | None, way: str, devices: str, reporter: Reporter
) -> None:
    """Train a part, from the model of the part before it if there is one."""

    def make(_: object) -> keras.Model:
        assert before is not None
        shallow = before.load_model()
        if way == "copied":
            return double_blocks(shallow, before.recipe.model.spec)
        return grow(shallow, recipe.model.spec)

    try:
        trainer = open_trainer(run.path, recipe, devices, make if before else None)
        fit(trainer, reporter)
        trainer.finish()
    finally:
        release_memory()


def _measure_parts(runs: Sequence[Run]) -> JsonObject:
    """Return cost and errors of the parts of a training, one after another.

    macs: spent up to each point of the curve, in 10^9.
    """
    spent, seconds = 0.0, 0.0
    curve: dict[str, list[float]] = {"macs": [], "validation_error": []}
    growths = []
    for run in runs:
        shape = tuple(run.meta["data"]["input_shape"])  # a run of a given model records no MACs
        macs = count(run.recipe.model.spec, shape).macs
        step_cost = TRAINING_PASSES * macs * run.recipe.train.batch_size / 1e9
        curves = error_curves(run)
        curve["macs"] += [spent + step * step_cost for step in curves["steps"]]
        curve["validation_error"] += curves["validation_error"]
        spent += run.meta["steps"] * step_cost
        seconds += run.meta["seconds"]
        growths.append(spent)
    return {
        "layers": [_layers(run.recipe) for run in runs],
        "steps": [run.meta["steps"] for run in runs],
        **curve,
        "growths": growths[:-1],
        "total_macs": spent,
        "seconds": seconds,
        "test_error": error_percent(runs[-1]),
    }


def _measures(rows: Sequence[JsonObject]) -> JsonObject:
    """Return the numbers that claims are about: means over seeds."""

    def mean(way: str, key: str) -> float:
        return float(np.mean([row[key] for row in rows if row["way"] == way]))

    found = {
        "macs_saved": 1 - mean("copied", "total_macs") / mean("scratch", "total_macs"),
        "seconds_saved": 1 - mean("copied", "seconds") / mean("scratch", "seconds"),
    }
    for way in ("zero", "copied"):
        for other in ("scratch", "equal"):
            difference = mean(way, "test_error") - mean(other, "test_error")
            found[f"{way}_against_{other}"] = difference
    found["copied_against_zero"] = mean("copied", "test_error") - mean("zero", "test_error")
    return found


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `growth` wrote."""
    results, settings, found = record["results"], record["settings"], record["results"]["measures"]
    finding = (
        f"Growing by copied blocks costs {100 * found['macs_saved']:.0f} % fewer MACs than "
        f"training the deepest model from scratch, and changes the test error by "
        f"{found['copied_against_scratch']:+.2f} points; zero blocks by "
        f"{found['zero_against_scratch']:+.2f}."
    )
    headers = ("way", "layers and steps", "MACs, 10^9", "training, s", "test error, %")
    rows = []
    for way, text in WAYS.items():
        own = [row for row in results["ways"] if row["way"] == way]
        parts = zip(own[0]["layers"], own[0]["steps"], strict=True)
        rows.append(
            [
                f"{way}: {text}",
                " then ".join(f"{layers} layers {steps}" for layers, steps in parts),
                f"{own[0]['total_macs']:,.0f}",
                mean_and_deviation([row["seconds"] for row in own], 0),
                mean_and_deviation([row["test_error"] for row in own]),
            ]
        )
    note = (
        f"Mean ± sample deviation over {settings['seeds']} seeds. Data: {settings['data']}. "
        "Each part starts the recipe's schedule and the optimizer anew."
    )
    plot = Plot(
        "growth",
        "Validation error against MACs spent in training. Bands: sample deviation over seeds. "
        "Ticks on the axis: growths.",
        lambda figure, theme: _draw(figure, theme, results["ways"]),
    )
    numbers = [[name.replace("_", " "), f"{value:.3f}"] for name, value in found.items()]
    against = "against: difference of test errors in points. saved: shares of `scratch`."
    sections = [
        Section("Grown and from scratch", [plot, Table(headers, rows, note)]),
        Section("Measures", [Table(["measure", "value"], numbers, against)]),
    ]
    return Page("Training time saved by growing", finding, sections)


def _draw(figure: Figure, theme: Theme, rows: Sequence[JsonObject]) -> None:
    axes = figure.subplots()
    for way, color in zip(WAYS, theme.series, strict=False):
        own = [row for row in rows if row["way"] == way]
        band(axes, own[0]["macs"], [row["validation_error"] for row in own], color, way)
        for spent in own[0]["growths"]:
            axes.axvline(spent, ymax=0.04, color=color, linewidth=1.5)
    axes.set(xlabel="MACs spent in training (10\N{SUPERSCRIPT NINE})")
    axes.set(ylabel="validation error, top-1 (%)", ylim=(0, None))
    axes.legend()
