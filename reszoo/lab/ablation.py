"""Ablation of the block: other shortcuts than the identity, and other orders of activations."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from reszoo.config.model import ModelConfig
from reszoo.config.overrides import Overrides, format_overrides
from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError, did_you_mean
from reszoo.lab.degradation import base_recipe
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.runs import error_curves, error_percent, train_all
from reszoo.reporting.reporter import Reporter
from reszoo.training.run import Run
from reszoo.types import JsonMapping, JsonObject

IDENTITY = "identity"
EARLY = 1 / 4  # of the steps, over which the training error at the beginning is a mean


class Variant(NamedTuple):
    """A block that differs from the original residual block.

    Attributes:
        table: Of arXiv 1603.05027.
        text: What differs.
        fields: Of the spec.
        published: Test error in percent of ResNet-110 on CIFAR-10, or "fail": above 20.
    """

    table: int
    text: str
    fields: JsonMapping
    published: str


def _gate(gate: str, bias: float, published: str) -> Variant:
    text = f"{gate.replace('_', '-')} gate, bias {bias:g}"
    return Variant(1, text, {"gate": gate, "gate_bias": bias}, published)


# Reference: arXiv 1603.05027, tables 1 and 2.
VARIANTS: Mapping[str, Variant] = {
    IDENTITY: Variant(0, "identity, original order", {}, "6.61"),
    "scaled": Variant(1, "shortcut scaled by 0.5", {"shortcut_scale": 0.5}, "fail"),
    "scaled_both": Variant(
        1,
        "shortcut and branch scaled by 0.5",
        {"shortcut_scale": 0.5, "branch_scale": 0.5},
        "12.35",
    ),
    "exclusive_0": _gate("exclusive", 0.0, "fail"),
    "exclusive_6": _gate("exclusive", -6.0, "8.70"),
    "shortcut_only_0": _gate("shortcut_only", 0.0, "12.86"),
    "shortcut_only_6": _gate("shortcut_only", -6.0, "6.91"),
    "projection": Variant(1, "1x1 convolution", {"shortcut": "C"}, "12.22"),
    "dropout": Variant(1, "dropout of 0.5", {"shortcut_dropout": 0.5}, "fail"),
    "bn_after_add": Variant(2, "batch norm after addition", {"order": "bn_after_add"}, "8.17"),
    "relu_before_add": Variant(2, "ReLU before addition", {"order": "relu_before_add"}, "7.84"),
    "relu_pre": Variant(2, "ReLU-only pre-activation", {"order": "relu_pre"}, "6.71"),
    "pre": Variant(2, "full pre-activation", {"order": "pre"}, "6.37"),
}


def ablation(
    out: str | os.PathLike[str],
    *,
    data: str = "digits",
    depth: int = 56,
    variants: Sequence[str] = ("all",),
    seeds: int = 2,
    budget: int = 0,
    overrides: Overrides = (),
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Train residual models that differ in shortcut or order of activations; return the record.

    All follow the recipe of `degradation`. Finished runs in `out`/runs are used, stopped ones
    resume; more variants and seeds may be asked for later.

    Args:
        out: The folder of the experiment.
        data: "digits", a dataset's name or `folder:PATH`.
        depth: As in the name `resnet{depth}`.
        variants: Of `VARIANTS`, or "all"; "identity" is always trained.
        seeds: Runs of each variant, with seeds 0, 1, ...
        budget: Steps of each run; 0: the recipe's, which for any dataset but digits are the
            paper's 64,000. The learning rate drops at the same shares of it.
        overrides: Recipe keys to change in all runs.
        devices: As `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For an unknown variant or depth, or a folder that holds another experiment.
    """
    check_count("seeds", seeds, 1)
    chosen = _choose(variants)
    base = base_recipe(data, budget, overrides)
    plan = {
        f"{name}-seed{seed}": variant_recipe(name, depth, base, seed)
        for seed in range(seeds)
        for name in chosen
    }
    settings = {"data": data, "depth": depth, "budget": budget}
    settings["overrides"] = format_overrides(overrides)
    folder = claim_folder(out, "ablation", settings)
    reporter = Reporter(log=folder / "ablation.log", quiet=quiet)
    runs = train_all(folder / "runs", plan, devices=devices, reporter=reporter)
    rows = {
        name: _measure([runs[f"{name}-seed{seed}"] for seed in range(seeds)]) for name in chosen
    }
    meta = next(iter(runs.values())).meta
    results = {
        "recipe": base.to_dict(),
        "data": meta["data"],
        "steps": meta["steps"],
        "variants": rows,
        "measures": compare_variants(rows),
    }
    settings["seeds"] = seeds
    record = write_record(folder, "ablation", settings=settings, results=results)
    write_report(folder)
    return record


def _choose(names: Sequence[str]) -> list[str]:
    """Return the identity and the named variants, in the order of `VARIANTS`."""
    for name in names:
        if name not in ("all", *VARIANTS):
            hint = (
                did_you_mean(name, VARIANTS) or f"; expected all or some of {', '.join(VARIANTS)}"
            )
            raise ReszooError(f"variants: '{name}' is invalid{hint}")
    return [name for name in VARIANTS if "all" in names or name in (IDENTITY, *names)]


def variant_recipe(name: str, depth: int, base: Recipe, seed: int) -> Recipe:
    """Return the recipe of a variant; only the fields of `VARIANTS` differ from the identity's."""
    fields = {**base.model.fields, **VARIANTS[name].fields}
    return base.replace(
        name=f"ablation_{name}",
        model=ModelConfig(name=f"resnet{depth}", **fields),
        train=base.train.replace(seed=seed),
    )


def _measure(runs: Sequence[Run]) -> JsonObject:
    """Return the errors in percent of the runs of one variant, one for each seed."""
    curves = [error_curves(run) for run in runs]
    return {
        "parameters": runs[0].meta["parameters"],
        "steps": curves[0]["steps"],
        "training_curve": [curve["training_error"] for curve in curves],
        "validation_curve": [curve["validation_error"] for curve in curves],
        "training_error": [error_percent(run, "train") for run in runs],
        "test_error": [error_percent(run) for run in runs],
        "seconds": [run.meta["seconds"] for run in runs],
    }


def compare_variants(rows: Mapping[str, JsonMapping]) -> JsonObject:
    """Return the numbers that claims are about, by variant, in points of error.

    test_error and training_error: means over seeds. early_error: training error, augmented, over
    the first quarter of the steps. test_gap, training_gap, early_gap: their differences from the
    identity's. gate_gain: test error with bias 0 minus that with bias -6. smallest_gap: of all
    other shortcuts, for each kind of error.
    """
    found: JsonObject = {}
    for name, row in rows.items():
        steps = np.array(row["steps"])
        early = np.array(row["training_curve"])[:, steps <= max(steps[0], EARLY * steps[-1])]
        found[name] = {
            "test_error": float(np.mean(row["test_error"])),
            "training_error": float(np.mean(row["training_error"])),
            "early_error": float(early.mean()),
        }
    for own in found.values():
        for key in ("test", "training", "early"):
            own[f"{key}_gap"] = own[f"{key}_error"] - found[IDENTITY][f"{key}_error"]
    for gate in ("exclusive", "shortcut_only"):
        if {f"{gate}_0", f"{gate}_6"} <= set(found):
            errors = [found[f"{gate}_{bias}"]["test_error"] for bias in (0, 6)]
            found[gate] = {"gate_gain": errors[0] - errors[1]}
    shortcuts = [name for name in rows if VARIANTS[name].table == 1]
    if shortcuts:
        found["smallest_gap"] = {
            key: min(found[name][f"{key}_gap"] for name in shortcuts)
            for key in ("test", "training")
        }
    return found
