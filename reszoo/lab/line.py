"""Stacks of width 1 and polynomials, fitted to a line from a few noisy points."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf
from numpy.polynomial import Chebyshev

from reszoo.lab.stacks import PLAIN, RESIDUAL, RESIDUAL_ZERO, Form, Stacks, fit
from reszoo.lab.statistics import round_numbers
from reszoo.types import Array, JsonObject

LINE_FORMS = (PLAIN, RESIDUAL, RESIDUAL_ZERO)
LINE_DEPTH = 16  # at most
HIDDEN = 16
COUNTS = (8, 16, 32)
NOISES = (0.0, 0.1)
GRID = 1001


def make_points(count: int, noise: float, seed: int) -> tuple[Array, Array]:
    """Return x, equally spaced on [-1, 1], and y = x + noise N(0, 1) of a seed, float64 [count]."""
    x = np.linspace(-1, 1, count)
    return x, x + noise * np.random.default_rng([seed, count, 4]).normal(size=count)


def train_line_stacks(form: Form, depth: int, seeds: int, steps: int, rate: float) -> JsonObject:
    """Train stacks on y = x from each number of points and noise, all points in every step.

    Returns:
        "fits": per number of points and noise, lists over seeds of `training`, the mean squared
        error at the points, and `fresh`, that over [-1, 1] plus the noise's variance, which is the
        expected error on new points.
    """
    begun = time.monotonic()
    cases = [(count, noise, seed) for count in COUNTS for noise in NOISES for seed in range(seeds)]
    x, y, weight = (np.zeros((len(cases), max(COUNTS), 1), np.float32) for _ in range(3))
    for row, (count, noise, seed) in enumerate(cases):
        x[row, :count, 0], y[row, :count, 0] = make_points(count, noise, seed)
        weight[row, :count] = 1 / count
    stacks = Stacks(form, depth, 1, HIDDEN, [seed for _, _, seed in cases])
    fit(stacks, lambda step: (x, y, weight), steps, rate, steps, lambda step: None)
    grid = np.tile(np.linspace(-1, 1, GRID, dtype=np.float32)[None, :, None], (len(cases), 1, 1))
    at_points, on_grid = (
        np.square(stacks(tf.constant(own)).numpy() - wanted, dtype=np.float64)
        for own, wanted in ((x, y), (grid, grid))
    )
    training, fresh = (weight * at_points).sum(axis=(1, 2)), on_grid.mean(axis=(1, 2))
    fits = []
    for start in range(0, len(cases), seeds):
        count, noise, _ = cases[start]
        own = slice(start, start + seeds)
        fits.append(
            {
                "form": form.name,
                "depth": depth,
                "points": count,
                "noise": noise,
                "training": round_numbers(training[own]),
                "fresh": round_numbers(fresh[own] + noise**2),
            }
        )
    return {"fits": fits, "seconds": round(time.monotonic() - begun, 1)}


def fit_polynomials(seeds: int) -> list[JsonObject]:
    """Return errors, as `train_line_stacks`, of a line and of a polynomial through all points."""
    grid = np.linspace(-1, 1, GRID)
    found = []
    cases = [(count, noise) for count in COUNTS for noise in NOISES]
    for count, noise, degree in ((*case, degree) for case in cases for degree in (1, case[0] - 1)):
        training: list[float] = []
        fresh: list[float] = []
        for seed in range(seeds):
            x, y = make_points(count, noise, seed)
            # Of Chebyshev polynomials: powers of x lose all digits at degree 31.
            curve = Chebyshev.fit(x, y, degree, domain=(-1, 1))
            training.append(float(np.mean((curve(x) - y) ** 2)))
            fresh.append(float(np.mean((curve(grid) - grid) ** 2)) + noise**2)
        errors = {"training": round_numbers(training), "fresh": round_numbers(fresh)}
        found.append({"degree": degree, "points": count, "noise": noise, **errors})
    return found
