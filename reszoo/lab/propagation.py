"""What a model computes before training: maps, correlations of gradients, tangent kernels."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np

from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.statistics import round_numbers
from reszoo.lab.tangent_kernel import measure_kernels
from reszoo.models.build import build
from reszoo.models.settings import fixed_settings
from reszoo.reporting.reporter import Reporter
from reszoo.types import Array, JsonObject
from reszoo.zoo.spec import Spec

BATCH = 8
# Zeros around a map make it smaller from the edge inwards, so only the middle is measured.
SIDE, EDGE = 64, 24
# Fields of each kind of model whose maps are measured, by its name in records.
FORMS: dict[str, JsonObject] = {
    "batch_norm": {"order": "pre"},
    "none": {"order": "pre", "norm": "none"},
    "skipinit": {"order": "pre", "norm": "none", "rezero": True},
    "fixup": {"norm": "none", "initialization": "fixup"},
    "scaled_weight": {"order": "pre", "norm": "scaled_weight", "branch_scale": 0.2},
    "post_activation": {},
    "plain": {"shortcut": "none"},
    "plain_none": {"shortcut": "none", "norm": "none"},
}
# Layers of each kind of stack whose gradients are compared.
STACKS: dict[str, tuple[int, ...]] = {
    "plain_batch_norm": (1, 2, 3, 4, 5, 6),
    "plain": (1, 2, 3, 4, 6, 8),
    "residual": (1, 2, 4, 8, 16),
    "residual_batch_norm": (4, 8, 16, 32, 64),
}
NEURONS, INPUTS = 256, 128


@fixed_settings()
def propagation(
    out: str | os.PathLike[str],
    *,
    blocks: int = 27,
    width: int = 32,
    seeds: int = 3,
    quiet: bool = False,
) -> JsonObject:
    """Measure maps, gradients and kernels of untrained models; return the record of `out`.

    Args:
        out: The folder of the experiment.
        blocks: Blocks of each model, in one stage: 27 as in resnet56.
        width: Channels of each model.
        seeds: Initial weights of each model, and repeats of each stack.
        quiet: Print nothing.

    Raises:
        ReszooError: For settings out of range, or a folder that holds another experiment.
    """
    check_count("blocks", blocks, 4, 500)
    check_count("width", width, 1)
    check_count("seeds", seeds, 1)
    settings = {"blocks": blocks, "width": width, "seeds": seeds}
    folder = claim_folder(out, "propagation", settings)
    reporter = Reporter(log=folder / "propagation.log", quiet=quiet)
    maps: JsonObject = {}
    for form, fields in FORMS.items():
        spec = Spec(
            name=form, block="basic", depths=(blocks,), widths=(width,), stem="cifar",
            stem_width=width, **{"shortcut": "A", **fields},
        )  # fmt: skip
        maps[form] = [measure_maps(spec, seed) for seed in range(seeds)]
        reporter.line(f"{form}: {blocks} blocks")
    correlations: JsonObject = {}
    for stack, depths in STACKS.items():
        found = [gradient_correlation(stack, depth, seeds) for depth in depths]
        correlations[stack] = {"depths": depths, "correlation": round_numbers(found)}
        reporter.line(f"{stack}: gradients of {depths[-1]} layers")
    results = {"maps": maps, "correlations": correlations, "kernels": measure_kernels()}
    reporter.line("tangent kernels of the digits")
    results["measures"] = _measures(results)
    record = write_record(folder, "propagation", settings=settings, results=results)
    write_report(folder)
    return record


def measure_maps(spec: Spec, seed: int) -> JsonObject:
    """Return the mean squares of a new model's maps on normal images.

    Batch norm uses the statistics of the batch.

    Args:
        spec: A model of one stage.
        seed: Of the weights and images.

    Returns:
        `entry`: the mean square of the map that enters the first block. `x`: of each block's
        output. `branch`: of each block's residual branch; its output in a plain model.
    """
    keras.utils.set_random_seed(seed)
    model = build(spec, input_shape=(SIDE, SIDE, 3))
    by_name = {layer.name: layer for layer in model.layers}
    names = [f"stage1_block{index + 1}" for index in range(spec.depths[0])]
    end = "relu2" if spec.order == "post" else "add"
    x = [by_name[f"{name}_{end}"].output for name in names]
    branches = x if spec.shortcut == "none" else [by_name[f"{name}_add"].input[1] for name in names]
    entry = by_name["stem_relu1"].output
    maps = keras.Model(model.input, [_mean_square(tensor) for tensor in (entry, *x, *branches)])
    images = np.random.default_rng(seed).normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    found = [float(np.ravel(value)[0]) for value in maps(images, training=True)]
    count = len(names)
    return {
        "entry": found[0],
        "x": round_numbers(found[1 : count + 1]),
        "branch": round_numbers(found[count + 1 :]),
    }


def _mean_square(tensor: keras.KerasTensor) -> keras.KerasTensor:
    middle = keras.ops.square(tensor[:, EDGE:-EDGE, EDGE:-EDGE])
    return keras.ops.expand_dims(keras.ops.mean(middle), 0)


def gradient_correlation(stack: str, depth: int, repeats: int) -> float:
    """Return the mean correlation of the gradients at pairs of independent inputs.

    The gradient is that of a random linear function of the last layer with respect to the input.
    Layers are dense, 256 wide, with ReLU before the weights and variance 2 / width of them. A
    residual layer without batch norm is divided by sqrt(2), which keeps its variance.

    Args:
        stack: A key of `STACKS`.
        depth: The number of layers.
        repeats: Sets of weights and inputs over which the mean is taken.

    Reference: arXiv 1702.08591, section 2 and theorems 1 to 3.
    """
    normalizes, residual = stack.endswith("batch_norm"), stack.startswith("residual")
    shrink = 1.0 if normalizes or not residual else 2**-0.5
    means = []
    for repeat in range(repeats):
        draw = np.random.default_rng([repeat, depth])
        x = draw.standard_normal((INPUTS, NEURONS))
        layers = []
        for _ in range(depth):
            weights = draw.standard_normal((NEURONS, NEURONS)) * np.sqrt(2 / NEURONS)
            deviation = np.sqrt(x.var(0) + 1e-5) if normalizes else np.ones(NEURONS)
            centered = (x - x.mean(0)) / deviation if normalizes else x
            active = centered > 0
            layers.append((active, weights, deviation))
            branch = (centered * active) @ weights
            x = (x + branch) * shrink if residual else branch
        gradient = np.repeat(draw.standard_normal((1, NEURONS)), INPUTS, 0)
        for active, weights, deviation in reversed(layers):
            branch = (gradient @ weights.T) * active / deviation
            gradient = (gradient + branch) * shrink if residual else branch
        norms = np.linalg.norm(gradient, axis=1)
        correlations = gradient @ gradient.T / np.outer(norms, norms)
        means.append(correlations[np.triu_indices(INPUTS, 1)].mean())
    return float(np.mean(means))


def _measures(results: JsonObject) -> JsonObject:
    """Return the numbers that claims are about, by name."""
    maps = results["maps"]
    blocks = np.arange(1, len(maps["none"][0]["x"]) + 1)

    def mean(form: str, key: str) -> Array:
        return np.asarray(np.mean([seed[key] for seed in maps[form]], axis=0))

    def slope(x: Any, y: Any) -> float:
        return float(np.polyfit(x, y, 1)[0])

    batch, half = mean("batch_norm", "x"), len(blocks) // 2
    share = mean("batch_norm", "branch") / batch
    found = {
        "batch_norm_growth": slope(blocks, batch),
        "batch_norm_branch_share": float((blocks * share)[half:].mean()),
        "batch_norm_branch_slope": slope(np.log(blocks[half:]), np.log(np.sqrt(share[half:]))),
    }
    # The mean of the factors is that of the theory; the mean of their logarithms is smaller, the
    # more so the narrower the model.
    for form in ("none", "plain_none", "post_activation", "plain"):
        x = np.array([seed["x"] for seed in maps[form]])
        found[f"{form}_factor"] = float((x[:, 1:] / x[:, :-1]).mean())
    for form in ("skipinit", "fixup"):
        entry = np.mean([seed["entry"] for seed in maps[form]])
        found[f"{form}_growth"] = float(mean(form, "x")[-1] / entry)
    scaled = mean("scaled_weight", "branch")
    found["scaled_weight_branch_ratio"] = float(scaled[half:].mean() / scaled[:half].mean())
    for stack, row in results["correlations"].items():
        depths, values = np.array(row["depths"]), np.array(row["correlation"], float)
        found[f"{stack}_correlation_log2"] = slope(depths, np.log2(values))
        found[f"{stack}_correlation_power"] = slope(np.log(depths), np.log(values))
    depths = np.array(results["kernels"]["depths"])
    for kind, row in results["kernels"].items():
        if kind != "depths":
            found[f"{kind}_kernel_mean"] = row["mean"][-1]
            found[f"{kind}_kernel_deviation_kept"] = row["deviation"][-1] / row["deviation"][0]
            found[f"{kind}_kernel_error_growth"] = row["error"][-1] - row["error"][0]
    change = results["kernels"]["residual"]["change"]
    found["residual_kernel_change_power"] = slope(np.log(depths[-3:]), np.log(change[-3:]))
    return found
