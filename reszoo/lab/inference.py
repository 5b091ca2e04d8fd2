"""What each block of trained models adds: a step along the negative gradient, or new features."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from reszoo.lab.digit_models import MODELS, deepest_measures, model_kind, open_or_train
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.similarity import probe_accuracies
from reszoo.lab.statistics import round_numbers
from reszoo.lab.trained import TrainedModel
from reszoo.lab.units import CutModel, cut_model
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.reporting.reporter import Reporter
from reszoo.types import Array, JsonObject, Tensor

BATCH = 100
BORDERLINE = 0.1  # of probability between the right class and the best other one
LAST_BLOCKS = 5
UNROLLED = 20
PLATEAU = 0.95  # of the best accuracy of a probe


@fixed_settings()
def inference(
    out: str | os.PathLike[str],
    *,
    models: Sequence[str] = MODELS,
    data: str = "",
    images: int = 1000,
    budget: int = 0,
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Measure what each block of trained models adds to its input; return the record of `out`.

    Batch norm uses the statistics of training.

    Args:
        out: The folder of the experiment.
        models: Folders of finished runs, NAME@WEIGHTS, or names of models that are trained on
            digits first.
        data: The dataset of published weights.
        images: Test images at most; twice as many training images fit the linear probes.
        budget: Steps of training on digits; 0: the recipe's.
        devices: Of the training, as `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For a model that is unknown or cannot be cut, or settings out of range.
    """
    check_count("images", images, 10)
    settings = {"models": list(models), "data": data, "images": images, "budget": budget}
    folder = claim_folder(out, "inference", settings)
    reporter = Reporter(log=folder / "inference.log", quiet=quiet)
    found = open_or_train(
        models, folder / "runs", data=data, budget=budget, devices=devices, reporter=reporter
    )
    results: JsonObject = {"models": {}}
    for key, model in found.items():
        results["models"][key] = measured = read_model(model, images)
        reporter.line(f"{key}: {len(measured['units'])} units read")
    results["measures"] = deepest_measures(results["models"])
    record = write_record(folder, "inference", settings=settings, results=results)
    write_report(folder)
    return record


def read_model(trained: TrainedModel, images: int) -> JsonObject:
    """Return what the units of a model do to test images, and what can be read from their maps."""
    cut, (x, labels) = cut_model(trained.model), trained.sample("test", images)
    train = trained.sample("train", 2 * images)
    probes = list(probe_accuracies(trained.model, train, (x, labels)).values())
    measured: JsonObject = {
        "kind": model_kind(trained),
        "depth": trained.depth,
        "data": trained.pipeline.info.name,
        "images": len(x),
        "units": [
            {"name": unit.name, "stage": unit.stage, "keeps_shape": unit.keeps_shape}
            for unit in cut.units
        ],
        "probes": round_numbers(probes),
        "exits": early_exits(cut, x, labels),
        "unrolled_norm": unroll(cut, x),
    }
    if cut.is_residual:
        parts = block_steps(cut, x, labels), estimation_errors(cut, x)
        for unit, step, error in zip(measured["units"], *parts, strict=True):
            unit |= step | error
    measured["measures"] = _measures(measured)
    return measured


def block_steps(cut: CutModel, x: Array, labels: Array) -> list[JsonObject]:
    """Return for each block, as means over images, how far and whereto its branch steps.

    Returns:
        `ratio`: |F| / |x|, of the branch and the shortcut. `cosine`: of F and the gradient of the
        loss with respect to the block's input; None if the block changes the shape. Negative: the
        step decreases the loss.

    Reference: arXiv 1710.04773, sections 4.1 and 4.2.
    """

    @tf.function  # type: ignore[untyped-decorator]
    def gradients(batch: Tensor, classes: Tensor) -> tuple[list[Tensor], ...]:
        with tf.GradientTape() as tape:
            features = cut.stem(batch, training=False)
            tape.watch(features)
            inputs, shortcuts, branches = [], [], []
            for unit in cut.units:
                shortcut, branch = unit.split(features)
                inputs.append(features)
                shortcuts.append(shortcut)
                branches.append(branch)
                features = unit.join(shortcut + branch)
            logits = cut.head(features, training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(classes, logits)
        return shortcuts, branches, tape.gradient(loss, inputs)

    ratios: list[list[Array]] = [[] for _ in cut.units]
    cosines: list[list[Array]] = [[] for _ in cut.units]
    for start in range(0, len(x), BATCH):
        batch = tf.constant(x[start : start + BATCH]), tf.constant(labels[start : start + BATCH])
        for index, tensors in enumerate(zip(*gradients(*batch), strict=True)):
            shortcut, branch, gradient = (
                np.reshape(tensor, (len(tensor), -1)).astype(np.float64) for tensor in tensors
            )
            size = np.linalg.norm(branch, axis=1)
            ratios[index].append(size / np.linalg.norm(shortcut, axis=1))
            if cut.units[index].keeps_shape:
                length = size * np.linalg.norm(gradient, axis=1)
                products = np.einsum("ij,ij->i", branch, gradient)
                cosines[index].append(products[length > 0] / length[length > 0])
    return [
        {
            "ratio": float(np.concatenate(ratio).mean()),
            "cosine": float(np.concatenate(cosine).mean()) if cosine else None,
        }
        for ratio, cosine in zip(ratios, cosines, strict=True)
    ]


def estimation_errors(cut: CutModel, x: Array) -> list[JsonObject]:
    """Return how far each block's output is from that of the last block of its stage.

    Returns:
        `bias` and `spread`: mean and standard deviation of the difference over images, pixels and
        channels, divided by the standard deviation of the last output.

    Reference: arXiv 1612.07771: blocks of a stage refine estimates of the same features.
    """
    sums: Array = np.zeros((len(cut.units), 3))  # of differences, their squares, and the number
    last_moments: Array = np.zeros((len(cut.units), 2))
    stages = [unit.stage for unit in cut.units]
    lasts = [len(stages) - 1 - stages[::-1].index(stage) for stage in stages]
    for start in range(0, len(x), BATCH):
        maps = _unit_maps(cut, x[start : start + BATCH])
        for index, last in enumerate(lasts):
            difference = maps[index] - maps[last]
            sums[index] += difference.sum(), (difference**2).sum(), difference.size
            last_moments[index] += maps[last].sum(), (maps[last] ** 2).sum()
    means, squares = sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]
    moments = last_moments / sums[:, 2:]
    scale = np.sqrt(moments[:, 1] - moments[:, 0] ** 2)
    spreads = np.sqrt(np.maximum(squares - means**2, 0))
    return [
        {"bias": float(bias), "spread": float(spread)}
        for bias, spread in zip(means / scale, spreads / scale, strict=True)
    ]


def early_exits(cut: CutModel, x: Array, labels: Array) -> list[JsonObject]:
    """Return how the model's own head classifies the output of each unit of the last stage.

    Returns:
        `unit`, `accuracy`, and `borderline`: the number of images whose right class and best other
        class differ by less than 10 % of probability at the unit *before*, and how many of them
        are right there and here.

    Reference: arXiv 1710.04773, sections 4.2 and 4.3.
    """
    rows: list[JsonObject] = []
    last = cut.units[-1]
    names = [unit.name for unit in cut.units if unit.shapes[1] == last.shapes[1]]
    margins = [[] for _ in names]  # type: list[list[Array]]
    for start in range(0, len(x), BATCH):
        maps = _unit_maps(cut, x[start : start + BATCH])[-len(names) :]
        classes = labels[start : start + BATCH]
        for row, features in zip(margins, maps, strict=True):
            shares = np.asarray(tf.nn.softmax(cut.head(features, training=False)), np.float64)
            right = shares[np.arange(len(classes)), classes]
            shares[np.arange(len(classes)), classes] = -1
            row.append(right - shares.max(1))
    before: Array | None = None
    for name, parts in zip(names, margins, strict=True):
        margin = np.concatenate(parts)
        near = np.abs(before) < BORDERLINE if before is not None else np.zeros(len(x), bool)
        rows.append(
            {
                "unit": name,
                "accuracy": float((margin > 0).mean()),
                "borderline": {
                    "images": int(near.sum()),
                    "right_before": int((before[near] > 0).sum()) if before is not None else 0,
                    "right": int((margin[near] > 0).sum()),
                },
            }
        )
        before = margin
    return rows


def unroll(cut: CutModel, x: Array) -> list[float]:
    """Return the norm of the map as the last unit is applied again and again, first norm 1.

    Reference: arXiv 1710.04773, section 4.4.
    """
    features = _unit_maps(cut, x[:BATCH])[-1]
    first, norms = float(np.linalg.norm(features)), [1.0]
    for _ in range(UNROLLED if cut.units[-1].keeps_shape else 0):
        features = cut.units[-1](features)
        norms.append(float(np.linalg.norm(features)) / first)
    return [float(value) for value in np.nan_to_num(norms, posinf=1e30)]


def _unit_maps(cut: CutModel, x: Array) -> list[Array]:
    """Return the output of each unit."""
    maps = [cut.stem(x, training=False)]
    for unit in cut.units:
        maps.append(unit(maps[-1]))
    return [np.asarray(features) for features in maps[1:]]


def _measures(model: JsonObject) -> JsonObject:
    """Return the numbers that claims are about, by name."""
    probes, exits = np.array(model["probes"]), model["exits"]
    accuracies = [row["accuracy"] for row in exits]
    near = [row["borderline"] for row in exits[-LAST_BLOCKS + 1 :]]
    images = sum(row["images"] for row in near)
    gained = sum(row["right"] - row["right_before"] for row in near)
    found: JsonObject = {
        "exit_rank": _rank(accuracies),
        "exit_first": 100 * accuracies[0],
        "exit_last": 100 * accuracies[-1],
        "borderline_images": images,
        "borderline_gain": 100 * gained / max(images, 1),
        "unrolled_norm": model["unrolled_norm"][-1],
        "probe_rank": _rank(probes),
        "effective_depth": float((probes >= PLATEAU * probes.max()).argmax() / (len(probes) - 1)),
    }
    same = [unit for unit in model["units"] if unit.get("cosine") is not None]
    if not same:
        return found
    cosines, third = np.array([unit["cosine"] for unit in same]), -(-len(same) // 3)
    falls, ranks, biases = [], [], []
    for stage in dict.fromkeys(unit["stage"] for unit in model["units"]):
        units = [unit for unit in model["units"] if unit["stage"] == stage]
        ratios = np.array([unit["ratio"] for unit in units if unit["cosine"] is not None])
        if len(ratios) > 1:
            falls.append(ratios[len(ratios) // 2 :].mean() / ratios[: len(ratios) // 2].mean())
            ranks.append(_rank([unit["spread"] for unit in units]))
        biases += [abs(unit["bias"]) for unit in units[:-1]]
    return found | {
        "negative_share": float((cosines < 0).mean()),
        "late_minus_early": float(cosines[-third:].mean() - cosines[:third].mean()),
        "last_cosine": float(cosines[-1]),
        "ratio_fall": float(np.mean(falls)) if falls else 1.0,
        "estimate_rank": float(np.mean(ranks)) if ranks else 0.0,
        "estimate_bias": float(np.max(biases)) if biases else 0.0,
    }


def _rank(values: Sequence[float] | Array) -> float:
    """Return Spearman's rank correlation of values with their places; 0 if all are equal."""
    if len(set(values)) < 2:
        return 0.0
    return float(spearmanr(range(len(values)), values).statistic)
