"""The loss around trained models: along lines and on planes of filter-normalized directions."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import keras
import numpy as np

from reszoo.errors import ReszooError
from reszoo.lab.degradation import base_recipe, check_depths, twin_recipes
from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.runs import train_all
from reszoo.lab.statistics import round_numbers
from reszoo.lab.trained import open_trained
from reszoo.lazy import tf
from reszoo.models.settings import fixed_settings
from reszoo.reporting.reporter import Reporter
from reszoo.types import Array, JsonObject, Tensor

LossFunction: TypeAlias = Callable[[float, float], float]

REACH = 1.0  # of lines and planes: 1 adds a direction as large as the weights
STATISTICS = ("trained", "batch")  # of batch norm
RATIO = 0.1  # |smallest / largest curvature| above which a point counts as not convex
FLAT = 1e-6  # curvature, as a share of the range of the loss, that is rounding
NEAR = 0.5  # sharpness is the increase of the loss at this distance


@fixed_settings()
def landscape(
    out: str | os.PathLike[str],
    *,
    models: Sequence[str] = (),
    data: str = "",
    depths: Sequence[int] = (20, 56),
    budget: int = 0,
    images: int = 256,
    points: int = 13,
    devices: str = "auto",
    quiet: bool = False,
) -> JsonObject:
    """Measure the training loss around trained models; return the record of `out`.

    Without `models` it trains plain and residual models of `depths` on digits, as `degradation`
    does with one seed. Stopped runs resume.

    Args:
        out: The folder of the experiment.
        models: Run folders, or NAME@WEIGHTS of published weights.
        data: The images; by default those of the first run.
        depths: Depths to train.
        budget: Steps of each run; 0: the recipe's.
        images: Training images, not augmented, over which the loss is the mean.
        points: Points of each side of a plane, odd. A line has twice as many intervals.
        devices: As `reszoo train --devices`.
        quiet: Print nothing.

    Raises:
        ReszooError: For settings out of range, or a folder that holds another experiment.

    Reference: arXiv 1712.09913, sections 4 and 5.
    """
    check_count("images", images, 10)
    check_count("points", points, 5)
    if not points % 2:
        raise ReszooError(f"points: {points} is invalid; expected an odd number. Example: 13")
    models = [name for name in models if name]
    settings: JsonObject = {"images": images, "points": points, "data": data}
    if models:
        settings["models"] = models
    else:
        depths = check_depths(depths)
        settings |= {"depths": depths, "budget": budget}
    folder = claim_folder(out, "landscape", settings)
    reporter = Reporter(log=folder / "landscape.log", quiet=quiet)
    if not models:
        base = base_recipe("digits", budget)
        plan = {
            recipe.model.name: recipe for depth in depths for recipe in twin_recipes(depth, base, 0)
        }
        train_all(folder / "runs", plan, devices=devices, reporter=reporter)
        models = [str(folder / "runs" / name) for name in plan]
    found = []
    for trained in open_trained(models, data):
        sample = trained.sample("train", images)
        row: JsonObject = {"name": trained.name, "kind": trained.kind, "depth": trained.depth}
        for statistics in STATISTICS:
            row[statistics] = measure_surface(trained.model, *sample, points, statistics)
            share = 100 * row[statistics]["nonconvex"]
            reporter.line(f"{trained.name}, statistics {statistics}: {share:.0f} % not convex")
        found.append(row)
    results = {"models": found, "measures": compute_measures(found)}
    record = write_record(folder, "landscape", settings=settings, results=results)
    write_report(folder)
    return record


def random_direction(model: keras.Model, seed: int) -> list[Array]:
    """Return a random direction per trainable weight of a model, filter-normalized.

    Each filter of a kernel, and each unit of a dense layer, has the norm of the model's own.
    The direction is 0 in biases and batch norms.

    Reference: arXiv 1712.09913, section 4.
    """
    draw = np.random.default_rng(seed)
    direction = []
    for weight in model.trainable_weights:
        value = keras.ops.convert_to_numpy(weight)
        if value.ndim < 2:
            direction.append(np.zeros_like(value))
            continue
        random = draw.standard_normal(value.shape).astype(value.dtype)
        axes = tuple(range(value.ndim - 1))
        norms = [np.sqrt((each**2).sum(axes, keepdims=True)) for each in (value, random)]
        direction.append(random * (norms[0] / (norms[1] + 1e-10)))
    return direction


def measure_surface(
    model: keras.Model, images: Array, labels: Array, points: int, statistics: str
) -> JsonObject:
    """Return the loss around a model on a plane and on two lines.

    Args:
        model: From images to logits. Its weights are as before afterwards.
        images: float32 [n, h, w, c].
        labels: [n].
        points: Points of each side of the plane.
        statistics: Of batch norm: "trained" (those of training, as in the paper) or "batch" (those
            of `images`, at every point).

    Returns:
        `plane`: losses [points, points]. `lines`: losses [2, 2 * points - 1] along the plane's two
        directions. `nonconvex`: see `nonconvex_share`. `sharpness`: the mean increase of the loss
        at a distance of 0.5 on the lines.
    """
    directions = [random_direction(model, seed) for seed in (0, 1)]
    sides = [np.linspace(-REACH, REACH, count) for count in (points, 2 * points - 1)]
    with _loss_function(model, images, labels, directions, statistics) as loss:
        plane = np.array([[loss(a, b) for b in sides[0]] for a in sides[0]])
        lines = np.array([[loss(a, 0.0) for a in sides[1]], [loss(0.0, b) for b in sides[1]]])
        near = np.array([loss(*at) for at in ((NEAR, 0), (-NEAR, 0), (0, NEAR), (0, -NEAR))])
        center = loss(0.0, 0.0)
    return {
        "plane": [round_numbers(row) for row in plane],
        "lines": [round_numbers(row) for row in lines],
        "center": center,
        "nonconvex": nonconvex_share(plane),
        "sharpness": float(near.mean() - center),
    }


@contextmanager
def _loss_function(
    model: keras.Model,
    images: Array,
    labels: Array,
    directions: Sequence[Sequence[Array]],
    statistics: str,
) -> Iterator[LossFunction]:
    """Yield a function from two coordinates to the loss. Restores the model at the end."""
    weights = model.trainable_weights
    start = [keras.ops.convert_to_numpy(weight) for weight in weights]
    norms = [each for each in model.layers if isinstance(each, keras.layers.BatchNormalization)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0  # moving statistics stay as they are
    batch = tf.constant(images), tf.constant(labels, tf.int64)

    @tf.function  # type: ignore[untyped-decorator]
    def loss(a: Tensor, b: Tensor) -> Tensor:
        for weight, value, one, other in zip(weights, start, *directions, strict=True):
            if value.ndim > 1:
                weight.assign(value + a * one + b * other)
        logits = model(batch[0], training=statistics == "batch")
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(batch[1], logits))

    try:
        yield lambda a, b: float(loss(*(tf.constant(each, tf.float32) for each in (a, b))))
    finally:
        for weight, value in zip(weights, start, strict=True):
            weight.assign(value)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def nonconvex_share(plane: Array) -> float:
    """Return the share of inner points of a plane at which the loss is not convex.

    A point is not convex if the smallest curvature is negative, and more than a tenth of the
    largest in size. Curvatures are the eigenvalues of the Hessian by finite differences. Points
    whose differences are not finite count as not convex.
    """
    plane = np.asarray(plane, np.float64)
    middle = plane[1:-1, 1:-1]
    with np.errstate(invalid="ignore", over="ignore"):
        first = plane[2:, 1:-1] - 2 * middle + plane[:-2, 1:-1]
        second = plane[1:-1, 2:] - 2 * middle + plane[1:-1, :-2]
        mixed = (plane[2:, 2:] - plane[2:, :-2] - plane[:-2, 2:] + plane[:-2, :-2]) / 4
        mean = (first + second) / 2
        radius = np.sqrt(((first - second) / 2) ** 2 + mixed**2)
        least, most = mean - radius, mean + radius
        size = np.maximum(np.abs(least), np.abs(most))
        convex = (least >= -RATIO * size) | (size <= FLAT * np.ptp(plane))
    return float(1 - convex.mean())


def compute_measures(models: Sequence[JsonObject]) -> JsonObject:
    """Return the numbers that claims are about, by name, for both statistics of batch norm.

    The shallowest and the deepest model of each kind are compared, each the first of its depth.
    """
    depths = sorted({model["depth"] for model in models})
    places = {"shallow": depths[0], "deep": depths[-1]}
    found: dict[str, float] = {}
    for statistics in STATISTICS:
        own = {
            (model["kind"], place): model[statistics]
            for model in reversed(models)
            for place, depth in places.items()
            if model["depth"] == depth
        }
        if len(own) < 4:
            continue
        share = {key: each["nonconvex"] for key, each in own.items()}
        found |= {f"{statistics}_{kind}_{place}": value for (kind, place), value in share.items()}
        for place in places:
            plain, residual = own["plain", place], own["residual", place]
            found[f"{statistics}_sharper_{place}"] = plain["sharpness"] / residual["sharpness"]
            # One cell at least, so that the ratio exists.
            least = 1 / (len(plain["plane"]) - 2) ** 2
            ratio = max(plain["nonconvex"], least) / max(residual["nonconvex"], least)
            found[f"{statistics}_ratio_{place}"] = ratio
        for kind in ("plain", "residual"):
            found[f"{statistics}_{kind}_change"] = share[kind, "deep"] - share[kind, "shallow"]
    return found
