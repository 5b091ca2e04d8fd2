"""Whether the first 20 layers of a model of 56 layers resemble the model of 20 layers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import combinations

import keras
import numpy as np

from reszoo.config.recipe import Recipe
from reszoo.errors import ReszooError
from reszoo.lab.degradation import KINDS, base_recipe, twin_recipes
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.resemblance_measures import compute_measures, pair_ckas
from reszoo.lab.runs import train_all
from reszoo.lab.similarity import (
    block_outputs,
    calibrate,
    linear_cka,
    predict,
    probe_accuracies,
    similarity_profile,
    stitch_error,
)
from reszoo.lab.trained import TrainedModel, open_trained
from reszoo.models.build import build
from reszoo.models.settings import fixed_settings
from reszoo.reporting.reporter import Reporter
from reszoo.types import JsonObject

DEPTHS = (20, 56)


@fixed_settings()
def resemblance(
    out: str | os.PathLike[str],
    *,
    models: Sequence[str] = (),
    data: str = "",
    depths: Sequence[int] = DEPTHS,
    seeds: int = 2,
    budget: int = 0,
    images: int = 1000,
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Compare shallow and deep models by CKA, linear probes and stitching; return the record.

    Without `models` it trains plain and residual models of `depths` on digits, as `degradation`
    does: `seeds` runs of the shallow one, one of the deep one. Stopped runs resume.

    Args:
        out: The folder of the experiment.
        models: Run folders, or NAME@WEIGHTS of published weights, of at least one kind, plain or
            residual: two or more of the smallest depth and one or more of the largest.
        data: The images; by default those of the first run.
        depths: Two depths to train.
        seeds: Runs of each shallow model to train.
        budget: Steps of each run; 0: the recipe's.
        images: Test images. As many training images fit a stitch, twice as many a probe.
        devices: As `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For unsuitable models, or a folder that holds another experiment.
    """
    check_count("seeds", seeds, 2)
    check_count("images", images, 20)
    models = [name for name in models if name]
    settings: JsonObject = {"images": images, "data": data}
    if models:
        settings["models"] = list(models)
    else:
        depths = sorted(set(depths))
        if len(depths) != 2:
            raise ReszooError(f"depths: {depths} is invalid; expected two. Example: 20 56")
        settings |= {"depths": depths, "seeds": seeds, "budget": budget}
    folder = claim_folder(out, "resemblance", settings)
    reporter = Reporter(log=folder / "resemblance.log", quiet=quiet)
    if not models:
        plan = plan_runs(depths, seeds, budget)
        train_all(folder / "runs", plan, devices=devices, reporter=reporter)
        models = [str(folder / "runs" / name) for name in plan]
    opened = open_trained(models, data)
    results: JsonObject = {"data": opened[0].pipeline.info.name, "kinds": {}}
    for kind in KINDS:
        shallow, deep = group_by_depth(opened, kind)
        if len(shallow) > 1 and deep:
            results["kinds"][kind] = _compare(shallow, deep, images, reporter)
    if not results["kinds"]:
        raise ReszooError(
            "models: too few; expected two or more of one depth and one or more of a larger depth, "
            "all plain or all residual. Example: two resnet20 and a resnet56"
        )
    results["measures"] = {
        f"{kind}_{name}": value
        for kind, found in results["kinds"].items()
        for name, value in found["measures"].items()
    }
    record = write_record(folder, "resemblance", settings=settings, results=results)
    write_report(folder)
    return record


def plan_runs(depths: Sequence[int], seeds: int, budget: int) -> dict[str, Recipe]:
    """Return the recipes to train: each shallow model with all seeds, each deep one with seed 0."""
    base = base_recipe("digits", budget)
    return {
        f"{recipe.model.name}-seed{seed}": recipe
        for seed in range(seeds)
        for depth in (depths if seed == 0 else depths[:1])
        for recipe in twin_recipes(depth, base, seed)
    }


def group_by_depth(
    models: Sequence[TrainedModel], kind: str
) -> tuple[list[TrainedModel], list[TrainedModel]]:
    """Return the models of a kind with the smallest depth of all models, and with the largest."""
    depths = [model.depth for model in models]
    own = [model for model in models if model.kind == kind]
    least, most = min(depths), max(depths)
    shallow = [model for model in own if model.depth == least < most]
    return shallow, [model for model in own if model.depth == most]


def _compare(
    shallow: Sequence[TrainedModel],
    deep: Sequence[TrainedModel],
    images: int,
    reporter: Reporter,
) -> JsonObject:
    """Return all comparisons of the models of one kind."""
    models = [*shallow, *deep]
    tests = [model.sample("test", images) for model in models]
    trains = [model.sample("train", 2 * images) for model in models]
    keras.utils.set_random_seed(0)
    count = len(shallow)
    untrained = []
    for position in (0, count):
        own = models[position].model
        shapes = {"input_shape": own.input_shape[1:], "classes": own.output_shape[1]}
        new = build(models[position].spec, **shapes)
        calibrate(new, trains[position][0])
        untrained.append((new, position))
    profiles = [
        similarity_profile(model.model, test[0][::2])
        for model, test in zip(models, tests, strict=True)
    ]
    fresh = similarity_profile(untrained[1][0], tests[untrained[1][1]][0][::2])
    reporter.line(f"{shallow[0].kind}: CKA of {len(models)} models")
    ckas = {
        "seeds": [linear_cka(a, b) for a, b in combinations(profiles[:count], 2)],
        "deep": [linear_cka(a, b) for a in profiles[:count] for b in profiles[count:]],
        "untrained": [linear_cka(a, fresh) for a in profiles[:count]],
        "within": [linear_cka(profiles[count], profiles[count])],
        "within_shallow": [linear_cka(profiles[0], profiles[0])],
    }
    names = [list(block_outputs(own.model)) for own in (shallow[0], deep[0])]
    probes = {
        name: probe_accuracies(model, trains[position], tests[position])
        for name, model, position in (
            ("shallow", shallow[0].model, 0),
            ("deep", deep[0].model, count),
            ("untrained", *untrained[1]),
        )
    }
    reporter.line(f"{shallow[0].kind}: linear probes")
    errors = [
        float(100 * (predict(model.model, test[0]).argmax(1) != test[1]).mean())
        for model, test in zip(models, tests, strict=True)
    ]
    stitches = []
    for what, front, back, at in _stitch_plan(names, models, untrained[0], count):
        model, position = front
        parts = trains[position][0][::2], trains[back][0][::2], trains[back][1][::2]
        error = stitch_error(model, models[back].model, at, parts, tests[position])
        row = {"what": what, "front": at[0], "back": at[1], "error": error, "own": errors[back]}
        stitches.append(row | {"penalty": error - errors[back]})
        reporter.line(f"{shallow[0].kind}: {what} stitched at {at[1]}: {error:.1f} %")
    means = {name: np.asarray(np.round(np.mean(each, 0), 4)) for name, each in ckas.items()}
    found = {
        "models": [
            {"name": model.name, "depth": model.depth, "error": error}
            for model, error in zip(models, errors, strict=True)
        ],
        "blocks": {"shallow": names[0], "deep": names[1]},
        "cka": means,
        "probes": {name: list(values.values()) for name, values in probes.items()},
        "stitches": stitches,
    }
    found["pairs"] = pair_ckas(names, means)
    found["measures"] = compute_measures(found, ckas["seeds"])
    return found


def _stitch_plan(
    names: Sequence[Sequence[str]],
    models: Sequence[TrainedModel],
    untrained: tuple[keras.Model, int],
    count: int,
) -> list[tuple[str, tuple[keras.Model, int], int, tuple[str, str]]]:
    """Return (what, (front, its images), back, blocks) of each stitch, at the ends of stages."""
    ends = [_stage_ends(each) for each in names]
    first, second, deep = (models[0].model, 0), (models[1].model, 1), (models[count].model, count)
    plan = []
    for shallow_end, deep_end in list(zip(*ends, strict=True))[:-1]:
        plan += [
            ("another seed", second, 0, (shallow_end, shallow_end)),
            ("deep front", deep, 0, (deep_end, shallow_end)),
            ("shallow front", first, count, (shallow_end, deep_end)),
            ("untrained front", untrained, count, (shallow_end, deep_end)),
        ]
    last = f"{ends[0][-1].split('_')[0]}_block1"
    return [*plan, ("later front", deep, 0, (ends[1][-1], last))]


def _stage_ends(names: Sequence[str]) -> list[str]:
    """Return the name of the last block of each stage."""
    return list({name.split("_")[0]: name for name in names[1:]}.values())
