"""Plain and residual stacks learn the identity, maps ever farther from it, and a line."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import tensorflow as tf

from reszoo.errors import ReszooError
from reszoo.files import write_json
from reszoo.lab.line import LINE_DEPTH, LINE_FORMS, fit_polynomials, train_line_stacks
from reszoo.lab.record import check_count, claim_folder, read_json, write_record
from reszoo.lab.report import write_report
from reszoo.lab.stacks import FORMS, PLAIN, RESIDUAL_SMALL, Form, Stacks, fit
from reszoo.lab.statistics import median, round_numbers
from reszoo.models.settings import fixed_settings
from reszoo.reporting.reporter import Reporter
from reszoo.types import Array, JsonObject, Tensor

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
EVALUATIONS = 100  # of the error during a training
FINAL_EXAMPLES, EXAMPLES = 4096, 512  # new ones, for the last error and for those before

Net = Callable[[Tensor], Tensor]
Part = tuple[str, int, Callable[[], JsonObject]]  # name, blocks, work


@fixed_settings()
def identity(
    out: str | os.PathLike[str],
    *,
    depths: Sequence[int] = (1, 2, 4, 8, 16, 32),
    seeds: int = 3,
    steps: int = 2000,
    width: int = 16,
    rate: float = 2e-3,
    quiet: bool = False,
) -> JsonObject:
    """Train stacks of every form and depth alike on every target; return the record of `out`.

    Each form and depth is a file in `out`/parts; the same call resumes after those that exist.

    Args:
        out: The folder of the experiment.
        depths: Blocks in a stack.
        seeds: Repeats, with seeds 0, 1, ...; each has its own weights, examples and random model G.
        steps: Steps of Adam, in batches of 32 new examples.
        width: Size of x; hidden layers have twice as many units.
        rate: The first learning rate; it falls to 0.
        quiet: Print nothing.

    Raises:
        ReszooError: For settings out of range, or a folder that holds another experiment.
    """
    for name, value in (("seeds", seeds), ("steps", steps), ("width", width)):
        check_count(name, value, 1)
    if isinstance(depths, str) or not depths:
        raise ReszooError(f"depths: {depths!r} is invalid; expected integers. Example: 1 4 16")
    for depth in depths:
        check_count("depths", depth, 1, 256)
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate <= 1:
        raise ReszooError(f"rate: {rate!r} is invalid; expected a number > 0 and <= 1")
    depths = sorted(set(depths))
    settings = {"depths": depths, "seeds": seeds, "steps": steps, "width": width, "rate": rate}
    folder = claim_folder(out, "identity", settings)
    reporter = Reporter(log=folder / "identity.log", quiet=quiet)

    stack_plan: list[Part] = [
        (_name(form, depth), depth, partial(train_stacks, form, depth, seeds, steps, width, rate))
        for form in FORMS
        for depth in depths
    ]
    line_plan: list[Part] = [
        (
            f"line-{_name(form, depth)}",
            depth,
            partial(train_line_stacks, form, depth, seeds, steps, rate),
        )
        for form in LINE_FORMS
        for depth in [depth for depth in depths if depth <= LINE_DEPTH] or depths[:1]
    ]
    parts = run_parts(folder / "parts", stack_plan + line_plan, reporter)
    stacks, lines = parts[: len(stack_plan)], parts[len(stack_plan) :]
    results = {
        "targets": {name: {"x": own, "G": other} for name, (own, other) in TARGETS.items()},
        "tolerances": TOLERANCES,
        "stacks": [{key: part[key] for key in part if key != "curves"} for part in stacks],
        "curves": [
            {"form": part["form"], "depth": part["depth"], **part["curves"]}
            for part in stacks
            if part["depth"] == depths[-1]
        ],
        "line": [fitted for part in lines for fitted in part["fits"]],
        "polynomials": fit_polynomials(seeds),
        "diverged": sum(
            error is None
            for part in stacks
            for found in part["targets"].values()
            for error in found["error"]
        ),
        "measures": _measures(stacks, depths),
        "members": len(stacks) * len(TARGETS) * seeds,
        "seconds": sum(part["seconds"] for part in parts),
    }
    record = write_record(folder, "identity", settings=settings, results=results)
    write_report(folder)
    return record


def _measures(stacks: Sequence[JsonObject], depths: Sequence[int]) -> JsonObject:
    """Return how many times larger the error of plain stacks is than that of residual ones.

    At the greatest depth, medians over seeds: for the identity, and for G.
    """
    errors = {part["form"]: part["targets"] for part in stacks if part["depth"] == depths[-1]}

    def ratio(target: str) -> float:
        plain, small = (
            median(errors[form.name][target]["error"]) for form in (PLAIN, RESIDUAL_SMALL)
        )
        return plain / small

    return {"identity_gain": ratio("identity"), "distant_gain": ratio("G")}


def random_net(width: int, seed: int) -> Net:
    """Return G of a seed: one random block, x [..., width] to float32 [..., width], never trained.

    Weights are those of a plain block, biases normal with deviation 0.5. Each output is shifted and
    scaled to mean 0 and variance 1 over x ~ N(0, I), measured on 65,536 examples.
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


def make_examples(x: Tensor, models: Sequence[Net]) -> tuple[Tensor, Tensor]:
    """Return inputs and targets [targets * seeds, examples, width]; seeds vary fastest.

    Args:
        x: [seeds, examples, width].
        models: The random model G of each seed.
    """
    other = tf.stack([model(own) for own, model in zip(tf.unstack(x), models, strict=True)])
    return (
        tf.tile(x, [len(TARGETS), 1, 1]),
        tf.concat([share * x + moved * other for share, moved in TARGETS.values()], 0),
    )


def train_stacks(
    form: Form, depth: int, seeds: int, steps: int, width: int, rate: float
) -> JsonObject:
    """Train one form at one depth on every target and seed, side by side.

    Returns:
        Per target, lists over seeds: `error`, the mean squared error over the mean square of the
        target, on new examples; `reached`, the first evaluated step with an error below a
        tolerance; `move`, `Stacks.relative_change`. None if not finite or never reached. `curves`:
        the errors during training.
    """
    begun = time.monotonic()
    nets = [random_net(width, seed) for seed in range(seeds)]
    held = np.stack(
        [
            np.random.default_rng([seed, 3]).normal(size=(FINAL_EXAMPLES, width))
            for seed in range(seeds)
        ]
    )
    inputs, wanted = make_examples(tf.constant(held, tf.float32), nets)
    stacks = Stacks(form, depth, width, 2 * width, list(range(seeds)) * len(TARGETS))

    def batch(step: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        draws = [
            tf.random.stateless_normal([BATCH, width], tf.stack([seed, step]))
            for seed in range(seeds)
        ]
        return *make_examples(tf.stack(draws), nets), tf.constant(1 / BATCH)

    def relative_errors(x: Tensor, target: Tensor) -> Array:
        error = tf.reduce_mean(tf.square(stacks(x) - target), (1, 2))
        return np.asarray(error / tf.reduce_mean(tf.square(target), (1, 2)))

    evaluated: list[int] = []
    errors: list[Array] = []

    def evaluate(step: int) -> None:
        evaluated.append(step)
        errors.append(relative_errors(inputs[:, :EXAMPLES], wanted[:, :EXAMPLES]))

    fit(stacks, batch, steps, rate, max(1, steps // EVALUATIONS), evaluate)
    curves = np.stack(errors)
    last, moved = relative_errors(inputs, wanted), stacks.relative_change(inputs)
    targets, lines = {}, {}
    for index, name in enumerate(TARGETS):
        own = slice(index * seeds, (index + 1) * seeds)
        targets[name] = {
            "error": round_numbers(last[own]),
            "reached": {
                f"{tolerance:g}": [
                    next((at for at, e in zip(evaluated, line, strict=True) if e < tolerance), None)
                    for line in curves[:, own].T
                ]
                for tolerance in TOLERANCES
            },
            "move": round_numbers(moved[own]),
        }
        lines[name] = [round_numbers(line) for line in curves[:, own].T]
    members = len(TARGETS) * seeds
    return {
        "form": form.name,
        "depth": depth,
        "parameters": sum(int(np.prod(weight.shape)) for weight in stacks.weights) // members,
        "targets": targets,
        "curves": {"steps": evaluated, "targets": lines},
        "seconds": round(time.monotonic() - begun, 1),
    }


def run_parts(folder: Path, plan: Sequence[Part], reporter: Reporter) -> list[JsonObject]:
    """Return the result of each part, from `folder`/NAME.json or computed and written there."""
    parts = {name: read_json(folder / f"{name}.json") for name, _, _ in plan}
    waiting = [part for part in plan if parts[part[0]] is None]
    ready = len(plan) - len(waiting)
    if ready:
        reporter.line(f"{ready} of {len(plan)} parts exist already")
    begun, left = time.monotonic(), sum(blocks for _, blocks, _ in waiting)
    done = 0
    for number, (name, blocks, work) in enumerate(waiting, ready + 1):
        parts[name] = work()
        write_json(folder / f"{name}.json", parts[name])
        done, left = done + blocks, left - blocks
        seconds = (time.monotonic() - begun) / done * left
        reporter.line(
            f"{number}/{len(plan)} {name}: {parts[name]['seconds']:.0f} s; "
            f"about {seconds:.0f} s left"
        )
    return list(parts.values())


def _name(form: Form, depth: int) -> str:
    return f"{form.name.replace(', ', '-').replace(' ', '-')}-depth{depth}"
