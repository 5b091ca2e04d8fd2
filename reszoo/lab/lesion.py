"""Delete and reorder the blocks of trained models, and follow gradients along single paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from math import comb

import numpy as np
from scipy.stats import kendalltau, linregress, spearmanr

from reszoo.lab.digit_models import MODELS, deepest_measures, model_kind, open_or_train
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.statistics import round_numbers
from reszoo.lab.trained import TrainedModel
from reszoo.lab.units import CutModel, cut_model
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.reporting.reporter import Reporter
from reszoo.types import Array, JsonObject, Tensor

BATCH, GRADIENT_BATCH = 250, 32
PAPER_BLOCKS = 54  # of the residual model of 110 layers in arXiv 1605.06431
MOST = 20  # deletions and swaps at once
UNNOTICED = 5.0  # points of error

Order = Sequence[tuple[int, bool]]
"""Units in the order in which they are applied: (index, whether its branch is deleted)."""


@fixed_settings()
def lesion(
    out: str | os.PathLike[str],
    *,
    models: Sequence[str] = MODELS,
    data: str = "",
    images: int = 1000,
    repeats: int = 5,
    budget: int = 0,
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Damage trained models at test time and measure their error; return the record of `out`.

    Batch norm uses the statistics of training throughout; nothing is trained again.

    Args:
        out: The folder of the experiment.
        models: Folders of finished runs, NAME@WEIGHTS, or names of models that are trained on
            digits first.
        data: The dataset of published weights.
        images: Test images at most.
        repeats: Random choices of blocks for each number of deletions, swaps or path length.
        budget: Steps of training on digits; 0: the recipe's.
        devices: Of the training, as `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For a model that is unknown or cannot be cut, or settings out of range.
    """
    check_count("images", images, 10)
    check_count("repeats", repeats, 1)
    settings = {"models": list(models), "data": data, "images": images, "repeats": repeats}
    settings["budget"] = budget
    folder = claim_folder(out, "lesion", settings)
    reporter = Reporter(log=folder / "lesion.log", quiet=quiet)
    found = open_or_train(
        models, folder / "runs", data=data, budget=budget, devices=devices, reporter=reporter
    )
    results: JsonObject = {"paths": {"effective_percent": 100 * share_of_paths(5, 17)}}
    results["models"] = {}
    for key, model in found.items():
        results["models"][key] = measured = damage_model(model, images, repeats)
        reporter.line(f"{key}: error {measured['error']:.2f} %, {len(measured['units'])} units")
    results["measures"] = deepest_measures(results["models"])
    record = write_record(folder, "lesion", settings=settings, results=results)
    write_report(folder)
    return record


def damage_model(trained: TrainedModel, images: int, repeats: int) -> JsonObject:
    """Return the errors of a model with units deleted and reordered, and its gradients per path."""
    cut, (x, labels) = cut_model(trained.model), trained.sample("test", images)
    draw, units = np.random.default_rng(0), cut.units
    whole = [(index, False) for index in range(len(units))]
    deletable = [index for index, unit in enumerate(units) if unit.is_block or unit.keeps_shape]
    # Every order is measured in one pass over the images.
    counts = [count for count in range(1, MOST + 1) if count < len(deletable)]
    several = [
        [delete(whole, draw.choice(deletable, count, replace=False)) for _ in range(repeats)]
        for count in counts
    ]
    swaps = [count for count in range(1, MOST + 1) if count < len(units)]
    reordered = [[swap(cut, count, draw) for _ in range(repeats)] for count in swaps]
    orders = [whole, *(delete(whole, [index]) for index in deletable)]
    orders += [order for group in (*several, *reordered) for order in group]
    errors = altered_errors(cut, x, labels, orders)
    alone = dict(zip(deletable, errors[1:], strict=False))
    rest = np.reshape(errors[1 + len(deletable) :], (-1, repeats)).round(4).tolist()
    measured: JsonObject = {
        "kind": model_kind(trained),
        "depth": trained.depth,
        "data": trained.pipeline.info.name,
        "images": len(x),
        "chance": 100 * (1 - 1 / trained.pipeline.info.classes),
        "error": errors[0],
        "units": [
            {"name": unit.name, "keeps_shape": unit.keeps_shape, "error": alone.get(index)}
            for index, unit in enumerate(units)
        ],
        "several": [
            {"deleted": count, "errors": row}
            for count, row in zip(counts, rest[: len(counts)], strict=True)
        ],
        "reordered": [
            {"swaps": count, "tau": [rank_order(order) for order in group], "errors": row}
            for count, group, row in zip(swaps, reordered, rest[len(counts) :], strict=True)
        ],
    }
    if cut.is_residual:
        batch = x[:GRADIENT_BATCH], labels[:GRADIENT_BATCH]
        measured["gradient"] = round_numbers(gradient_norms(cut, *batch, repeats, draw))
    measured["measures"] = _measures(measured)
    return measured


def delete(order: Order, indexes: Sequence[int] | Array) -> Order:
    """Return an order with the branches of some units deleted."""
    return [(index, gone or index in indexes) for index, gone in order]


def swap(cut: CutModel, count: int, draw: np.random.Generator) -> Order:
    """Return the units with `count` random pairs of equal shape swapped, one pair after another."""
    order = list(range(len(cut.units)))
    groups: dict[object, list[int]] = {}
    for place, unit in enumerate(cut.units):
        if unit.keeps_shape:
            groups.setdefault(unit.shapes, []).append(place)
    pairs = [
        (one, other)
        for places in groups.values()
        for number, one in enumerate(places)
        for other in places[:number]
    ]
    for chosen in draw.integers(len(pairs), size=count) if pairs else ():
        one, other = pairs[chosen]
        order[one], order[other] = order[other], order[one]
    return [(index, False) for index in order]


def rank_order(order: Order) -> float:
    """Return Kendall's tau of an order with the original one: 1 if they are the same."""
    return float(kendalltau(range(len(order)), [index for index, _ in order]).statistic)


def altered_errors(cut: CutModel, x: Array, labels: Array, orders: Sequence[Order]) -> list[float]:
    """Return the top-1 error in percent for each order of the units, in inference."""
    apply = [tf.function(unit, reduce_retracing=True) for unit in cut.units]
    skip = [tf.function(unit.delete, reduce_retracing=True) for unit in cut.units]
    wrong = np.zeros(len(orders))
    for start in range(0, len(x), BATCH):
        maps = [cut.stem(x[start : start + BATCH], training=False)]
        for function in apply:
            maps.append(function(maps[-1]))
        for number, order in enumerate(orders):
            changed = (at for at, step in enumerate(order) if step != (at, False))
            first = next(changed, len(order))  # what comes before is computed
            features = maps[first]
            for index, gone in order[first:]:
                features = (skip if gone else apply)[index](features)
            chosen = np.argmax(cut.head(features, training=False), axis=1)
            wrong[number] += (chosen != labels[start : start + BATCH]).sum()
    return [round(100 * float(value) / len(x), 4) for value in wrong]


def path_gradient(cut: CutModel, x: Tensor, labels: Tensor, branches: Tensor) -> Tensor:
    """Return the gradient of each image's loss along one path from the logits to the image.

    All maps are those of the whole model. The gradient passes each block through its branch or
    through its shortcut. The sum over all choices is the whole gradient.

    Args:
        cut: A residual model.
        x: Images [n, h, w, c].
        labels: [n].
        branches: 1 for each block whose branch the path takes, else 0.

    Reference: arXiv 1605.06431, section 5.
    """
    with tf.GradientTape() as tape:
        tape.watch(x)
        features = cut.stem(x, training=False)
        for taken, unit in zip(tf.unstack(branches), cut.units, strict=True):
            shortcut, branch = unit.split(features)
            total = _scale_gradient(shortcut, 1 - taken) + _scale_gradient(branch, taken)
            features = unit.join(total)
        logits = cut.head(features, training=False)
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return tape.gradient(loss, x)


def _scale_gradient(x: Tensor, factor: Tensor) -> Tensor:
    return factor * x + tf.stop_gradient((1 - factor) * x)


def gradient_norms(
    cut: CutModel, x: Array, labels: Array, repeats: int, draw: np.random.Generator
) -> list[float]:
    """Return the mean norm of an image's gradient along a path through 0, 1, ... branches."""
    count, means = len(cut.units), []
    function = tf.function(lambda *batch: path_gradient(cut, *batch))
    for length in range(count + 1):
        norms = []
        for _ in range(4 * repeats if 0 < length < count else 1):
            taken = np.zeros(count, np.float32)
            taken[draw.choice(count, length, replace=False)] = 1
            rows = np.reshape(function(tf.constant(x), tf.constant(labels), taken), (len(x), -1))
            norms.append(np.linalg.norm(rows.astype(np.float64), axis=1).mean())
        means.append(float(np.mean(norms)))
    return means


def share_of_paths(least: int, most: int, blocks: int = PAPER_BLOCKS) -> float:
    """Return the share of a residual model's 2^blocks paths with so many branches."""
    return float(sum(comb(blocks, length) for length in range(least, most + 1)) / 2**blocks)


def _measures(model: JsonObject) -> JsonObject:
    """Return the numbers that claims are about, by name."""
    rows = [unit for unit in model["units"] if unit["error"] is not None]
    same = np.array([unit["error"] for unit in rows if unit["keeps_shape"]])
    other = np.array([unit["error"] for unit in rows if not unit["keeps_shape"]])
    errors = [np.mean(row["errors"]) for row in model["several"]]
    found: JsonObject = {
        "unnoticed_share": float((same - model["error"] < UNNOTICED).mean()),
        "chance_share": float((same >= model["chance"] - 10).mean()),
        "largest_error": float(same.max()),
        "several_rank": _rank([row["deleted"] for row in model["several"]], errors),
        "reordered_rank": _rank(
            [np.mean(row["tau"]) for row in model["reordered"]],
            [np.mean(row["errors"]) for row in model["reordered"]],
        ),
    }
    if len(other):
        found["downsampling_extra"] = float(other.mean() - same.mean())
    if norms := model.get("gradient"):
        blocks, lengths = len(norms) - 1, np.arange(len(norms))
        fit = linregress(lengths, np.log10(norms))
        total = np.array(norms) * [comb(blocks, int(length)) for length in lengths]
        short = lengths * PAPER_BLOCKS <= 17 * blocks
        found |= {
            "gradient_per_block": float(10**fit.slope),
            "gradient_fit": float(fit.rvalue**2),
            "gradient_short_share": float(total[short].sum() / total.sum()),
            "gradient_peak": int(total.argmax()) / blocks,
        }
    return found


def _rank(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation; 0 if one side is constant."""
    return float(spearmanr(x, y).statistic) if len(set(x)) > 1 and len(set(y)) > 1 else 0.0
