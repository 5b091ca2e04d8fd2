"""Deep models whose first layers come from a shallow model that was trained for a part only."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

from reszoo.config.recipe import Recipe
from reszoo.data.pipeline import Pipeline
from reszoo.errors import ReszooError
from reszoo.lab.degradation import KINDS, base_recipe, check_depths, twin_recipes
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.runs import error_percent, train_all
from reszoo.lab.sampling import sample_images
from reszoo.lab.similarity import linear_cka, similarity_profile
from reszoo.models.grow import grow
from reszoo.models.settings import fixed_settings
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme, log_ticks
from reszoo.reporting.reporter import Reporter
from reszoo.training.run import Run
from reszoo.types import JsonObject
from reszoo.zoo.layer_names import parse_block_layer
from reszoo.zoo.spec import Spec

WAYS = ("frozen", "trained")
IMAGES = 512  # that set the statistics of new blocks, and on which CKA is measured


@fixed_settings()
def undertraining(
    out: str | os.PathLike[str],
    *,
    depths: Sequence[int] = (20, 56),
    shares: Sequence[float] = (0.05, 0.2, 1.0),
    budget: int = 400,
    steps: int = 100,
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Grow models from shallow ones that were trained for a part of the steps; return the record.

    Each shallow model is trained on digits for a share of `budget` steps, then grown by blocks that
    are the identity. The deep model is trained for `steps` steps: with the layers of the shallow
    one frozen, so that only the new blocks and the classifier learn, and with all layers. Frozen
    batch norms keep the statistics of the shallow model. Stopped runs resume.

    Args:
        out: The folder of the experiment.
        depths: Depth of the shallow and of the deep models.
        shares: Of `budget`. The learning rate drops at the same shares of each training.
        budget: Steps after which a shallow model counts as trained.
        steps: Steps of each deep model.
        devices: As `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For settings out of range, or a folder that holds another experiment.
    """
    depths = check_depths(depths)
    check_count("budget", budget, 4)
    check_count("steps", steps, 4)
    shares = sorted(set(shares))
    if len(shares) < 2 or not 0 < shares[0] <= shares[-1] <= 1:
        raise ReszooError(
            f"shares: {shares} is invalid; expected two or more numbers > 0 and <= 1. "
            "Example: 0.1 1"
        )
    settings = {"depths": depths, "shares": shares, "budget": budget, "steps": steps}
    folder = claim_folder(out, "undertraining", settings)
    reporter = Reporter(log=folder / "undertraining.log", quiet=quiet)
    plan: dict[str, Recipe] = {}
    models = {}
    for number, kind in enumerate(KINDS):
        for share in shares:
            part = base_recipe("digits", max(4, round(share * budget)))
            front = f"{kind}-front-{share:g}"
            plan[front] = twin_recipes(depths[0], part, 0)[number]
            for way in WAYS:
                name = f"{kind}-{way}-{share:g}"
                plan[name] = twin_recipes(depths[-1], base_recipe("digits", steps), 0)[number]
                models[name] = partial(
                    grow_front,
                    front=folder / "runs" / front,
                    spec=plan[name].model.spec,
                    frozen=way == "frozen",
                )
    runs = train_all(folder / "runs", plan, devices=devices, reporter=reporter, models=models)
    rows: dict[str, list[JsonObject]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for share in shares:
            row: JsonObject = {"share": share}
            for way in ("front", *WAYS):
                run = runs[f"{kind}-{way}-{share:g}"]
                row[way] = {
                    "training_error": error_percent(run, "train"),
                    "test_error": error_percent(run),
                }
            rows[kind].append(row)
    results: JsonObject = {"rows": rows, "measures": {}}
    for kind in KINDS:
        pair = (runs[f"{kind}-{part}-{shares[-1]:g}"] for part in ("front", "trained"))
        results["measures"] |= {
            f"{kind}_{name}": value for name, value in compute_measures(rows[kind]).items()
        } | {f"{kind}_kept_cka": _kept_cka(*pair)}
    record = write_record(folder, "undertraining", settings=settings, results=results)
    write_report(folder)
    return record


def grow_front(pipeline: Pipeline, *, front: Path, spec: Spec, frozen: bool) -> keras.Model:
    """Return the model of a run, grown to `spec`, with the run's layers frozen or not."""
    model = grow(Run(front).load_model(), spec, images=sample_images(pipeline, "train", IMAGES))
    if frozen:
        for layer in model.layers:
            block = parse_block_layer(layer.name)
            is_new = block is not None and block.block_name in model.growth.added
            layer.trainable = is_new or layer.name == "head_dense"
    return model


def compute_measures(rows: Sequence[JsonObject]) -> JsonObject:
    """Return what one kind of model shows, in points of test error.

    loss: how much larger the error of the deep model is with the least trained front than with the
    most trained one. gain: error of the most trained front - error of the deep model.
    """
    found = {}
    for way in WAYS:
        errors = [row[way]["test_error"] for row in rows]
        found[f"{way}_loss"] = errors[0] - errors[-1]
        found[f"{way}_gain"] = rows[-1]["front"]["test_error"] - errors[-1]
        found[f"{way}_undertrained_gain"] = rows[-1]["front"]["test_error"] - errors[0]
    return found


def _kept_cka(front: Run, deep: Run) -> float:
    """Return the mean CKA of the blocks that both models have."""
    images = sample_images(front.open_pipeline(), "test", IMAGES)
    one, other = (similarity_profile(run.load_model(), images) for run in (front, deep))
    return float(np.diag(linear_cka(one, {name: other[name] for name in one}))[1:].mean())


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `undertraining` wrote."""
    settings, rows = record["settings"], record["results"]["rows"]
    found = record["results"]["measures"]
    shallow, deep = settings["depths"][0], settings["depths"][-1]
    first = rows["residual"][0]["share"]
    finding = (
        f"If the first {shallow} layers were trained for {100 * first:g} % of the steps and "
        f"frozen, residual models of {deep} layers end {found['residual_frozen_loss']:+.2f} points "
        f"of test error behind those with trained first layers, and plain ones "
        f"{found['plain_frozen_loss']:+.2f}; if all layers go on learning, it is "
        f"{found['residual_trained_loss']:+.2f} and {found['plain_trained_loss']:+.2f}."
    )
    cells = [
        [kind, f"{100 * row['share']:g} %"]
        + [f"{row[part][key]:.2f}" for part in ("front", *WAYS) for key in row[part]]
        for kind in rows
        for row in rows[kind]
    ]
    headers = ["", "training of the first layers"] + [
        f"{part}, {key}, %"
        for part in ("shallow model", "front frozen", "all trained")
        for key in ("training error", "test error")
    ]
    plot = Plot(
        "undertraining",
        f"Test error of {deep} layers that were grown from {shallow} layers and trained for "
        f"{settings['steps']} steps. Dotted: the {shallow} layers alone.",
        lambda figure, theme: _draw(figure, theme, rows),
        (9.0, 3.8),
    )
    note = f"Digits, one seed. 100 % are {settings['budget']} steps."
    table = Table(headers, cells, note)
    return Page("First layers that were trained for a part", finding, [Section("", [plot, table])])


def _draw(figure: Figure, theme: Theme, rows: JsonObject) -> None:
    panels = figure.subplots(1, len(rows), sharey=True)
    for axes, (kind, own) in zip(panels, rows.items(), strict=True):
        shares = [100 * row["share"] for row in own]
        styles = ((":", "shallow model"), ("-", "front frozen"), ("--", "all layers trained"))
        for part, (style, label) in zip(("front", *WAYS), styles, strict=True):
            color = theme.ink if part == "front" else getattr(theme, kind)
            values = [row[part]["test_error"] for row in own]
            axes.plot(shares, values, style, marker="o", color=color, label=label)
        axes.set_title(f"{kind} models", fontsize=11)
        axes.set(xlabel="training of the first layers, %", xscale="log", yscale="log")
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.xaxis.minorticks_off()
    errors = [
        row[part]["test_error"]
        for own in rows.values()
        for row in own
        for part in row
        if part != "share"
    ]
    log_ticks(panels[0].yaxis, max(0.1, min(errors)), 100)
    panels[0].set_ylabel("test error, %")
    panels[-1].legend(fontsize=8)
