"""How deep models can be trained, with and without shortcuts and normalization."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

from reszoo.config.load import load_recipe
from reszoo.data.embedded import load_digits
from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.lab.record import check_count, claim_folder, read_json, write_record
from reszoo.lab.report import write_report
from reszoo.lab.statistics import round_numbers
from reszoo.lazy import tf
from reszoo.models.build import build
from reszoo.models.settings import fixed_settings
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme
from reszoo.reporting.reporter import Reporter
from reszoo.training.memory import release_memory
from reszoo.training.optimizers import make_optimizer
from reszoo.training.step import Stepper
from reszoo.types import JsonObject

# Fields of each kind of model, by its name in records.
PLAIN: JsonObject = {"shortcut": "none", "norm": "none"}
FORMS: dict[str, JsonObject] = {
    "batch_norm": {"order": "pre"},
    "none": {"order": "pre", "norm": "none"},
    "rezero": {"order": "pre", "rezero": True},
    "skipinit": {"order": "pre", "norm": "none", "rezero": True},
    "fixup": {"norm": "none", "initialization": "fixup"},
    "plain_batch_norm": {"shortcut": "none"},
    "plain_orthogonal_relu": {**PLAIN, "initialization": "delta_orthogonal"},
    "plain_orthogonal_tanh": {**PLAIN, "initialization": "delta_orthogonal", "activation": "tanh"},
}
DEEPEST = "skipinit"  # has the fewest layers per block of the forms that train
WIDTHS = (8, 16, 32)
BATCH, WARMUP, LAST = 64, 20, 10
RATES = (0.2, 0.05)  # in turn, until one trains
TRAINED = 0.8  # of the loss of chance, at most
OVERRIDES = {"optimizer.weight_decay": 0.0, "train.clip_norm": 1.0}
MINUTE, GIGABYTE = 60, 1e6  # seconds, and kilobytes


@fixed_settings()
def depth(
    out: str | os.PathLike[str],
    *,
    depths: Sequence[int] = (20, 110, 1202),
    steps: int = 40,
    deepest: int = 10_004,
    deepest_steps: int = 20,
    quiet: bool = False,
) -> JsonObject:
    """Train models of several depths on digits for a few steps; return the record of `out`.

    A form that does not train at a depth is not tried at larger ones. Finished parts are used.

    Args:
        out: The folder of the experiment.
        depths: Depths as in the names `resnet{depth}`.
        steps: Steps of each model, on 64 images.
        deepest: Depth of one more model, with SkipInit; 0 for none.
        deepest_steps: Its steps.
        quiet: Print nothing.

    Raises:
        ReszooError: For settings out of range, or a folder that holds another experiment.
    """
    depths = sorted(set(depths))
    if not depths:
        raise ReszooError("depths: [] is invalid; expected at least one. Example: 20 110")
    for each in depths:
        check_count("depths", each, 8, deepest or None)
        if each % 6 != 2:
            raise ReszooError(f"depths: {each} is invalid; expected 6n + 2. Example: 20 110")
    check_count("steps", steps, 2)
    check_count("deepest", deepest, 0)
    check_count("deepest_steps", deepest_steps, 2)
    settings = {
        "depths": depths, "steps": steps, "deepest": deepest, "deepest_steps": deepest_steps,
    }  # fmt: skip
    folder = claim_folder(out, "depth", settings)
    reporter = Reporter(log=folder / "depth.log", quiet=quiet)
    (folder / "parts").mkdir(exist_ok=True)
    rows: list[JsonObject] = []
    for form in FORMS:
        for layers in depths:
            row = _train_part(folder, form, layers, steps, RATES, reporter)
            rows.append(row)
            if not row["trained"]:
                break
    results: JsonObject = {"rows": rows, "chance": math.log(10)}
    if deepest:
        rates = RATES[:1]
        results["deepest"] = _train_part(folder, DEEPEST, deepest, deepest_steps, rates, reporter)
    results["measures"] = _measures(results)
    record = write_record(folder, "depth", settings=settings, results=results)
    write_report(folder)
    return record


def _train_part(
    folder: Path, form: str, layers: int, steps: int, rates: Sequence[float], reporter: Reporter
) -> JsonObject:
    """Return the row of a form and depth, at the first rate that trains, or else the best."""
    path = folder / "parts" / f"{form}-{layers}.json"
    row: JsonObject | None = read_json(path)
    if row is None:
        tried = []
        for rate in rates:
            tried.append(train(form, layers, steps, rate))
            if tried[-1]["trained"]:
                break
        row = min(tried, key=lambda each: each["last"] if each["last"] is not None else math.inf)
        write_json(path, row)
    loss = "not finite" if row["last"] is None else f"{row['last']:.2f}"
    reporter.line(
        f"{form}, {layers} layers: loss {loss}; {row['build_seconds']:.0f} s to build, "
        f"{row['first_seconds']:.0f} s for the first step, {row['step_seconds']:.2f} s per step"
    )
    return row


def train(form: str, layers: int, steps: int, rate: float) -> JsonObject:
    """Train a new model and return its losses and costs.

    Each step takes 64 random images. The gradient's norm is at most 1. The learning rate rises
    linearly in the first 20 steps. Batch norm uses the statistics of the batch.

    Args:
        form: A key of `FORMS`.
        layers: The depth.
        steps: The number of steps.
        rate: The learning rate.

    Returns:
        `loss`: of each step. `last`: mean of the last 10, or of a quarter if there are fewer than
        40. `trained`: whether that is at most 0.8 of the loss of chance, log(10). Seconds, also of
        the processor (`processor_seconds`, all cores), and the peak memory of the process in GB.
    """
    split = load_digits()["train"]
    images = split.images.astype(np.float32)
    images = (images - images.mean()) / images.std()
    keras.utils.set_random_seed(0)
    draw = np.random.default_rng(0)
    begun, processor = time.perf_counter(), time.process_time()
    fields = {"widths": WIDTHS, "stem_width": WIDTHS[0], **FORMS[form]}
    fields["depths"] = ((layers - 2) // 6,) * 3
    model = build("resnet20", input_shape=images.shape[1:], **fields)
    model.compile()
    recipe = load_recipe("lab_digits", OVERRIDES)
    step = Stepper(
        model,
        make_optimizer(recipe.optimizer, rate),
        recipe.train,
        recipe.optimizer,
        tf.distribute.get_strategy(),
    )
    moments, losses = [time.perf_counter()], []
    for number in range(1, steps + 1):
        chosen = draw.integers(0, len(images), BATCH)
        batch = tf.constant(images[chosen]), tf.constant(split.labels[chosen])
        step.totals.assign(tf.zeros(4, tf.float64))
        step(*batch, rate * min(1, number / WARMUP))
        losses.append(float(step.totals[0]) / BATCH)
        moments.append(time.perf_counter())
    last = float(np.mean(losses[-min(LAST, max(1, steps // 4)) :]))
    row = {
        "form": form,
        "layers": layers,
        "parameters": model.count_params(),
        "rate": rate,
        "loss": round_numbers(losses),
        "last": last if math.isfinite(last) else None,
        "trained": last <= TRAINED * math.log(10),
        "build_seconds": moments[0] - begun,
        "first_seconds": moments[1] - moments[0],
        "step_seconds": float(np.median(np.diff(moments[1:]))),
        "processor_seconds": time.process_time() - processor,
        "gigabytes": _peak_memory(),
    }
    del model, step
    release_memory()
    return row


def _peak_memory() -> float | None:
    """Return the peak memory of this process in GB; None where it is not known."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / GIGABYTE


def _measures(results: JsonObject) -> JsonObject:
    """Return the numbers that claims are about, by name."""
    found: JsonObject = {}
    for form in FORMS:
        own = [row for row in results["rows"] if row["form"] == form]
        found[f"{form}_layers"] = max((row["layers"] for row in own if row["trained"]), default=0)
    found["batch_norm_gain"] = found["batch_norm_layers"] / max(1, found["none_layers"])
    found["fixup_gain"] = found["fixup_layers"] / max(1, found["batch_norm_layers"])
    if row := results.get("deepest"):
        found["deepest_layers"] = row["layers"]
        found["deepest_loss_share"] = row["last"] / row["loss"][0] if row["last"] else None
        steps = len(row["loss"]) - 1
        seconds = row["build_seconds"] + row["first_seconds"]
        found["deepest_minutes_to_first_step"] = seconds / MINUTE
        found["deepest_processor_minutes"] = row["processor_seconds"] / MINUTE
        found["deepest_minutes"] = (seconds + steps * row["step_seconds"]) / MINUTE
        found["deepest_gigabytes"] = row["gigabytes"]
    return found


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `depth` wrote."""
    results, settings, found = record["results"], record["settings"], record["results"]["measures"]
    deepest = settings["depths"][-1]
    able = [form.replace("_", " ") for form in FORMS if found[f"{form}_layers"] == deepest]
    unable = [form.replace("_", " ") for form in FORMS if found[f"{form}_layers"] < deepest]
    finding = (
        f"In {settings['steps']} steps models of {deepest:,} layers learn with "
        f"{', '.join(able) or 'no form'}, and do not with {', '.join(unable) or 'any other'}."
    )
    rows = [_cells(row) for row in results["rows"]]
    note = (
        f"Loss: mean of the last steps; {results['chance']:.2f} is chance, and at most "
        f"{TRAINED * results['chance']:.2f} counts as trained. A form that fails is not tried "
        "deeper. Memory: peak of the process so far."
    )
    headers = (
        *("form", "layers", "learning rate", "loss", "build, s", "first step, s"),
        *("step, s", "memory, GB"),
    )
    tables = [Table(headers, rows, note)]
    if row := results.get("deepest"):
        text = f"{settings['deepest_steps']} steps; loss of the first: {row['loss'][0]:.2f}."
        tables.append(Table(headers, [_cells(row)], text))
    plot = Plot(
        "depth",
        "Training loss of models of several depths on digits, by step. Dotted: plain models. "
        "Thin line: chance.",
        lambda figure, theme: _draw(figure, theme, results),
        (9.0, 4.8),
    )
    numbers = [[name.replace("_", " "), f"{value:.4g}"] for name, value in found.items() if value]
    sections = [
        Section("Loss", [plot]),
        Section("Models", tables),
        Section("Measures", [Table(["measure", "value"], numbers)]),
    ]
    return Page("How deep models can be trained", finding, sections)


def _cells(row: JsonObject) -> list[str]:
    return [
        row["form"].replace("_", " "),
        f"{row['layers']:,}",
        f"{row['rate']:g}",
        "not finite" if row["last"] is None else f"{row['last']:.2f}",
        *(f"{row[f'{part}_seconds']:.2f}" for part in ("build", "first", "step")),
        "-" if row["gigabytes"] is None else f"{row['gigabytes']:.1f}",
    ]


def _draw(figure: Figure, theme: Theme, results: JsonObject) -> None:
    depths = sorted({row["layers"] for row in results["rows"]})
    panels = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    colors = dict(zip(FORMS, (*theme.series, theme.ink, *theme.series), strict=False))
    for row in results["rows"]:
        losses = [np.nan if loss is None else loss for loss in row["loss"]]
        style = ":" if row["form"].startswith("plain") else "-"
        panel, steps = panels[depths.index(row["layers"])], range(1, len(losses) + 1)
        label = row["form"].replace("_", " ")
        panel.plot(steps, losses, style, color=colors[row["form"]], label=label)
    for panel, layers in zip(panels, depths, strict=True):
        panel.axhline(results["chance"], color=theme.ink, linewidth=0.6)
        panel.set_title(f"{layers:,} layers", fontsize=11)
        panel.set(xlabel="steps", ylim=(0, 3.2))
    panels[0].set_ylabel("training loss")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
