"""How hard is the identity? Plain and residual stacks learn maps ever farther from it, and a line from a few points."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.polynomial import Chebyshev

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.lab.grid import Tell
from reszoo.lab.identity_page import present as present
from reszoo.lab.record import claim, write_record
from reszoo.lab.report import report
from reszoo.lab.stacks import FORMS, PLAIN, RESIDUAL, ZERO, Form, Stacks, fit
from reszoo.models.settings import fixed_settings

# H(x) = (1 - t) x + t G(x), and -x: as shares (of x, of G).
TARGETS = {
    "identity": (1.0, 0.0),
    "t = 0.25": (0.75, 0.25),
    "t = 0.5": (0.5, 0.5),
    "t = 0.75": (0.25, 0.75),
    "G": (0.0, 1.0),
    "negation": (-1.0, 0.0),
}
TOLERANCES = (0.1, 0.01)
BATCH = 32
LOOKS = 100  # looks at the error in a run
SAMPLES, GLANCE = 4096, 512  # fresh examples for the last error, and for those on the way

LINE_FORMS = (PLAIN, RESIDUAL, ZERO)
LINE_HIDDEN = 16
LINE_DEPTH = 16  # at most
POINTS = (8, 16, 32)
NOISES = (0.0, 0.1)
GRID = 1001


@fixed_settings()
def identity(
    out: str | os.PathLike[str],
    *,
    depths: Sequence[int] = (1, 2, 4, 8, 16, 32),
    seeds: int = 3,
    steps: int = 2000,
    width: int = 16,
    rate: float = 2e-3,
    tell: Tell = print,
) -> dict[str, Any]:
    """Train stacks of every form and depth on every target, alike, and write record, figures and page into `out`.

    depths: blocks in a stack. seeds: repeats with seeds 0, 1, ..., each with weights, examples and a random net G of its own.
    steps: of Adam, batches of 32 fresh examples, in which the rate falls from `rate` to 0; width: numbers in x, the blocks' hidden
    layers having twice as many. Nothing is set for one form alone but its start. Each form and depth is a file in `out`/parts: the same
    command goes on after those that are there. Returns the record.
    Raises ReszooError for settings out of range, or a folder that holds another experiment.
    """
    for name, value, least in (("seeds", seeds, 1), ("steps", steps, 1), ("width", width, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ReszooError(
                f"{name} is {value!r}, but must be a whole number of at least {least}"
            )
    if isinstance(depths, str) or not depths:
        raise ReszooError(f"depths is {depths!r}, but must be numbers of blocks such as 1 4 16")
    for depth in depths:
        if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= 256:
            raise ReszooError(
                f"depths holds {depth!r}, but each must be a whole number from 1 to 256, such as 1 4 16"
            )
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1:
        raise ReszooError(f"rate is {rate!r}, but must be above 0 and at most 1, such as 0.002")
    settings: dict[str, Any] = {
        "depths": sorted(set(depths)),
        "seeds": seeds,
        "steps": steps,
        "width": width,
        "rate": rate,
    }
    folder = claim(out, "identity", settings)

    plan: list[tuple[str, int, Callable[[], dict[str, Any]]]] = []
    for form in FORMS:
        for depth in settings["depths"]:
            plan.append(
                (_name(form, depth), depth, _later(learn, form, depth, seeds, steps, width, rate))
            )
    for form in LINE_FORMS:
        for depth in _line_depths(settings["depths"]):
            plan.append(
                (
                    f"line-{_name(form, depth)}",
                    depth,
                    _later(learn_line, form, depth, seeds, steps, rate),
                )
            )
    pieces = _all(folder / "parts", plan, tell)

    stacks = [piece for name, piece in pieces.items() if not name.startswith("line-")]
    results = {
        "targets": {name: {"x": own, "G": other} for name, (own, other) in TARGETS.items()},
        "tolerances": TOLERANCES,
        "stacks": [
            {key: value for key, value in piece.items() if key != "curves"} for piece in stacks
        ],
        "curves": [
            {"form": piece["form"], "depth": piece["depth"], **piece["curves"]}
            for piece in stacks
            if piece["depth"] == settings["depths"][-1]
        ],
        "line": [
            fitted
            for name, piece in pieces.items()
            if name.startswith("line-")
            for fitted in piece["fits"]
        ],
        "polynomials": polynomials(seeds),
        "diverged": sum(
            error is None
            for piece in stacks
            for found in piece["targets"].values()
            for error in found["error"]
        ),
        "members": len(stacks) * len(TARGETS) * seeds,
        "seconds": sum(piece["seconds"] for piece in pieces.values()),
    }
    record = write_record(folder, "identity", settings=settings, results=results)
    report(folder)
    return record


def random_net(width: int, seed: int) -> Callable[[Any], Any]:
    """Return G of a seed: one block's worth of random net, x [..., width] to float32 [..., width], never trained.

    Weights as a plain block's, biases normal with deviation 0.5; each output is shifted and scaled to mean 0 and variance 1 over
    x ~ N(0, I), measured on 65,536 examples.
    """
    hidden = 2 * width
    draw = np.random.default_rng([seed, 2])
    first = draw.normal(0, width**-0.5, (width, hidden)).astype(np.float32)
    bias = draw.normal(0, 0.5, hidden).astype(np.float32)
    second = draw.normal(0, (2 / hidden) ** 0.5, (hidden, width)).astype(np.float32)
    x = draw.normal(size=(1 << 16, width)).astype(np.float32)
    raw = np.maximum(x @ first + bias, 0) @ second
    scale = (1 / raw.std(axis=0, dtype=np.float64)).astype(np.float32)
    shift = raw.mean(axis=0, dtype=np.float64).astype(np.float32)
    return lambda x: (tf.nn.relu(x @ first + bias) @ second - shift) * scale


def examples(x: Any, nets: Sequence[Callable[[Any], Any]]) -> tuple[Any, Any]:
    """Return inputs and targets [targets * seeds, examples, width], seeds fastest, for one x [seeds, examples, width]."""
    other = tf.stack([net(own) for own, net in zip(tf.unstack(x), nets, strict=True)])
    return (
        tf.tile(x, [len(TARGETS), 1, 1]),
        tf.concat([share * x + moved * other for share, moved in TARGETS.values()], 0),
    )


def learn(
    form: Form, depth: int, seeds: int, steps: int, width: int, rate: float
) -> dict[str, Any]:
    """Train one form at one depth on every target and seed, side by side; return what was measured.

    A relative error is the mean squared error over the mean square of the target, on examples that no step saw; null where it is
    no finite number any more. reached: the first look with an error under a tolerance, null if none was. move: `Stacks.move`.
    """
    begun = time.monotonic()
    nets = [random_net(width, seed) for seed in range(seeds)]
    held = [np.random.default_rng([seed, 3]).normal(size=(SAMPLES, width)) for seed in range(seeds)]
    inputs, wanted = examples(tf.constant(np.stack(held), tf.float32), nets)
    stacks = Stacks(form, depth, width, 2 * width, list(range(seeds)) * len(TARGETS))

    def batch(step: Any) -> tuple[Any, Any, Any]:
        draws = [
            tf.random.stateless_normal([BATCH, width], tf.stack([seed, step]))
            for seed in range(seeds)
        ]
        return *examples(tf.stack(draws), nets), tf.constant(1 / BATCH)

    def relative(x: Any, target: Any) -> Any:
        return tf.reduce_mean(tf.square(stacks(x) - target), (1, 2)) / tf.reduce_mean(
            tf.square(target), (1, 2)
        )

    looks: list[int] = []
    errors: list[np.ndarray] = []

    def look(step: int) -> None:
        looks.append(step)
        errors.append(relative(inputs[:, :GLANCE], wanted[:, :GLANCE]).numpy())

    fit(stacks, batch, steps, rate, max(1, steps // LOOKS), look)
    curves = np.stack(errors)
    last, moved = relative(inputs, wanted).numpy(), stacks.move(inputs)
    found: dict[str, Any] = {}
    lines: dict[str, Any] = {}
    for index, name in enumerate(TARGETS):
        own = slice(index * seeds, (index + 1) * seeds)
        reached = {
            f"{tolerance:g}": [
                next(
                    (look for look, error in zip(looks, line, strict=True) if error < tolerance),
                    None,
                )
                for line in curves[:, own].T
            ]
            for tolerance in TOLERANCES
        }
        found[name] = {
            "error": _numbers(last[own]),
            "reached": reached,
            "move": _numbers(moved[own]),
        }
        lines[name] = [_numbers(line) for line in curves[:, own].T]
    return {
        "form": form.name,
        "depth": depth,
        "parameters": sum(int(np.prod(weight.shape)) for weight in stacks.weights)
        // (len(TARGETS) * seeds),
        "targets": found,
        "curves": {"steps": looks, "targets": lines},
        "seconds": round(time.monotonic() - begun, 1),
    }


def points(count: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x, `count` points equally spaced on [-1, 1], and y = x + noise N(0, 1) of a seed, float64 [count] each."""
    x = np.linspace(-1, 1, count)
    return x, x + noise * np.random.default_rng([seed, count, 4]).normal(size=count)


def learn_line(form: Form, depth: int, seeds: int, steps: int, rate: float) -> dict[str, Any]:
    """Train stacks of width 1 on y = x from each number of points and noise, all points in every step; return their errors.

    training: mean squared error at the points. fresh: that over [-1, 1] from x, plus the noise's variance: what points of the
    same kind, not trained on, would give. Lists over seeds.
    """
    begun = time.monotonic()
    cases = [(count, noise, seed) for count in POINTS for noise in NOISES for seed in range(seeds)]
    x, y, weight = (np.zeros((len(cases), max(POINTS), 1), np.float32) for _ in range(3))
    for row, (count, noise, seed) in enumerate(cases):
        x[row, :count, 0], y[row, :count, 0] = points(count, noise, seed)
        weight[row, :count] = 1 / count
    stacks = Stacks(form, depth, 1, LINE_HIDDEN, [seed for _, _, seed in cases])
    fit(stacks, lambda step: (x, y, weight), steps, rate, steps, lambda step: None)
    grid = np.tile(np.linspace(-1, 1, GRID, dtype=np.float32)[None, :, None], (len(cases), 1, 1))
    off = [
        np.square(stacks(tf.constant(own)).numpy() - wanted, dtype=np.float64)
        for own, wanted in ((x, y), (grid, grid))
    ]
    training, fresh = (weight * off[0]).sum(axis=(1, 2)), off[1].mean(axis=(1, 2))
    fits = []
    for start in range(0, len(cases), seeds):
        count, noise, _ = cases[start]
        own = slice(start, start + seeds)
        errors = {"training": _numbers(training[own]), "fresh": _numbers(fresh[own] + noise**2)}
        fits.append({"form": form.name, "depth": depth, "points": count, "noise": noise, **errors})
    return {"fits": fits, "seconds": round(time.monotonic() - begun, 1)}


def polynomials(seeds: int) -> list[dict[str, Any]]:
    """Return the errors, as in `learn_line`, of least squares by a line and by the polynomial through all points."""
    grid = np.linspace(-1, 1, GRID)
    found = []
    for count in POINTS:
        for noise in NOISES:
            for degree in (1, count - 1):
                training, fresh = [], []
                for seed in range(seeds):
                    x, y = points(count, noise, seed)
                    # Of Chebyshev polynomials: powers of x would lose all digits at degree 31.
                    curve = Chebyshev.fit(x, y, degree, domain=(-1, 1))
                    training.append(np.mean((curve(x) - y) ** 2))
                    fresh.append(np.mean((curve(grid) - grid) ** 2) + noise**2)
                errors = {"training": _numbers(training), "fresh": _numbers(fresh)}
                found.append({"degree": degree, "points": count, "noise": noise, **errors})
    return found


def _all(
    folder: Path, plan: Sequence[tuple[str, int, Callable[[], dict[str, Any]]]], tell: Tell
) -> dict[str, dict[str, Any]]:
    """Return each piece of the plan (name, blocks, work), read from `folder`/NAME.json or made and written there."""
    pieces = {name: _read(folder / f"{name}.json") for name, _, _ in plan}
    waiting = [(name, blocks, work) for name, blocks, work in plan if pieces[name] is None]
    if len(waiting) < len(plan):
        tell(f"{len(plan) - len(waiting)} of {len(plan)} pieces are there already")
    begun, done, blocks_all = time.monotonic(), 0, sum(blocks for _, blocks, _ in waiting)
    for number, (name, blocks, work) in enumerate(waiting, len(plan) - len(waiting) + 1):
        pieces[name] = piece = work()
        write_json(folder / f"{name}.json", piece)
        done += blocks
        left = (time.monotonic() - begun) / done * (blocks_all - done)
        tell(f"{number}/{len(plan)} {name}: {piece['seconds']:.0f} s; about {left:.0f} s left")
    return {name: piece for name, piece in pieces.items() if piece is not None}


def _read(path: Path) -> dict[str, Any] | None:
    try:
        piece: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return piece
    except FileNotFoundError:
        return None
    except ValueError:
        raise ReszooError(
            f"{path} is not JSON; it was changed or damaged: delete it, and it is made again"
        ) from None


def _later(work: Callable[..., dict[str, Any]], *args: Any) -> Callable[[], dict[str, Any]]:
    return lambda: work(*args)


def _name(form: Form, depth: int) -> str:
    return f"{form.name.replace(', ', '-').replace(' ', '-')}-depth{depth}"


def _line_depths(depths: Sequence[int]) -> list[int]:
    return [depth for depth in depths if depth <= LINE_DEPTH] or [min(depths)]


def _numbers(values: Any) -> list[float | None]:
    """Return numbers to six digits, as JSON has them; what is not finite becomes None."""
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values]
