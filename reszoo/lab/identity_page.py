"""The page of `reszoo lab identity`, from its record alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from reszoo.lab.identity_plots import (
    FLOOR,
    LINE_FLOOR,
    MAIN,
    TOP,
    Found,
    against_targets,
    by_target,
    line_errors,
    median,
    moves,
    over_depths,
    over_steps,
    say,
    steps_to,
)
from reszoo.lab.stacks import FORMS, HELD, PLAIN, RESIDUAL, SMALL, ZERO, Form
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot


def present(record: dict[str, Any]) -> Page:
    """Return the page of a record that `identity` wrote."""
    found = Found(record)
    deep = found.depths[-1]

    def errors(form: Form) -> str:
        near, far, against = (
            say(found.error(form, deep, target)) for target in ("identity", "G", "negation")
        )
        return f"{near} on the identity, {far} on a random net and {against} on -x"

    finding = (
        f"At depth {deep} residual stacks whose branches start small end with a relative error of {errors(SMALL)}; plain ones "
        f"with {errors(PLAIN)}; plain ones that start as the identity with {errors(HELD)}."
    )
    sections = [
        _errors(found),
        _gain(found),
        _pace(found),
        _moves(found),
        _line(found),
        _setup(found),
    ]
    return Page("How hard is the identity?", finding, sections)


def _errors(found: Found) -> Section:
    deep = found.depths[-1]
    rows = [
        [form.name, *(_range(found.seeds(form, deep, target)) for target in found.targets)]
        for form in FORMS
    ]
    ends = ", ".join(
        f"{say(found.error(form, deep, 'identity'))} ({form.name})"
        for form in (PLAIN, RESIDUAL, SMALL, ZERO)
    )
    shallow = [
        [form.name, *(say(found.error(form, depth, "identity")) for depth in found.depths)]
        for form in FORMS
    ]
    return Section(
        "Error against depth",
        [
            Plot(
                "error-depth",
                "Relative error at the end against depth, for each target. Mean and sample deviation of the logarithm over "
                f"seeds; values below {FLOOR:g} or above {TOP:g} are drawn there.",
                by_target(
                    found,
                    lambda axes, theme, target: over_depths(found, axes, theme, target),
                    FORMS,
                    "relative error",
                    4,
                ),
                (9.0, 6.0),
            ),
            Table(
                ["form", *found.targets],
                rows,
                f"Relative error at depth {deep}: median (lowest to highest) of the seeds.",
            ),
            Table(
                ["form", *(f"depth {depth}" for depth in found.depths)],
                shallow,
                "Relative error on the identity: median of the seeds.",
            ),
            Plot(
                "curves",
                f"Relative error on new examples against steps at depth {deep}, for each target; drawn as above. Where lines "
                "coincide, the last in the legend is visible.",
                by_target(
                    found,
                    lambda axes, theme, target: over_steps(found, axes, theme, target),
                    MAIN,
                    "relative error",
                    5,
                ),
                (9.0, 6.0),
            ),
        ],
        f"Median relative error on the identity at depth {deep}: {ends}.",
    )


def _gain(found: Found) -> Section:
    deep = found.depths[-1]
    pairs = [(target, depth) for target in found.targets for depth in found.depths]
    worse = sum(
        found.error(SMALL, depth, target) > found.error(PLAIN, depth, target)
        for target, depth in pairs
    )
    rows = [
        [
            target,
            *(
                _ratio(found.error(PLAIN, depth, target), found.error(SMALL, depth, target))
                for depth in found.depths
            ),
        ]
        for target in found.targets
    ]
    starts = []
    for target in (name for name in ("t = 0.5", "G") if name in found.targets):
        plain, held, zero = (found.error(form, deep, target) for form in (PLAIN, HELD, ZERO))
        share = "-"
        if np.isfinite([plain, held, zero]).all() and plain > zero > 0 and held > 0:
            share = f"{100 * np.log(plain / held) / np.log(plain / zero):.0f} %"
        starts.append([target, say(plain), say(held), say(zero), share])
    panels = sorted({found.depths[0], found.depths[len(found.depths) // 2], deep})
    return Section(
        "Gain near the identity, cost far from it",
        [
            Plot(
                "error-target",
                "Relative error at the end against the target's distance from the identity; at the right -x, its spread a "
                "bar. Drawn as above.",
                lambda figure, theme: against_targets(figure, theme, found, panels),
                (9.0, 4.2),
            ),
            Table(
                ["target", *(f"depth {depth}" for depth in found.depths)],
                rows,
                "Relative error of plain stacks divided by that of residual ones with a small start; above 1 the residual form "
                "is better.",
            ),
            Table(
                ["target", PLAIN.name, HELD.name, ZERO.name, "share of the start"],
                starts,
                f"Relative error at depth {deep}. Share: of the difference in orders of magnitude between plain stacks and "
                "residual ones, which starting plain stacks as the identity makes up.",
            ),
        ],
        f"The residual form with a small start has a larger error than the plain one in {worse} of {len(pairs)} pairs of target "
        "and depth.",
    )


def _pace(found: Found) -> Section:
    loose, tight = (f"{tolerance:g}" for tolerance in found.results["tolerances"])
    total = found.settings["seeds"] * len(found.depths) * len(found.targets)

    def reached(form: Form, tolerance: str) -> str:
        steps = [
            found.steps(form, depth, target, tolerance)
            for depth in found.depths
            for target in found.targets
        ]
        return str(sum(step is not None for own in steps for step in own))

    rows = [[form.name, reached(form, loose), reached(form, tight)] for form in FORMS]
    counts = ", ".join(f"{reached(form, loose)} ({form.name})" for form in (PLAIN, SMALL, ZERO))
    return Section(
        "Steps to a tolerance",
        [
            Plot(
                "steps",
                f"Steps until the relative error on new examples is below {loose}, measured every "
                f"{max(1, found.settings['steps'] // 100)} steps: median of the seeds; dots are seeds, crosses never.",
                by_target(
                    found,
                    lambda axes, theme, target: steps_to(found, axes, theme, target, loose),
                    MAIN,
                    "steps",
                    5,
                ),
                (9.0, 6.0),
            ),
            Table(
                ["form", f"below {loose}", f"below {tight}"],
                rows,
                f"Stacks of {total} that came below the error.",
            ),
        ],
        f"Of {total} stacks of each form, this many came below a relative error of {loose}: {counts}.",
    )


def _moves(found: Found) -> Section:
    deep = found.depths[-1]

    def move(form: Form) -> str:
        values = (
            f"{median(found.seeds(form, deep, target, 'move')):.2f}"
            for target in ("identity", "G", "negation")
        )
        return "{} on the identity, {} on G and {} on -x".format(*values)

    return Section(
        "How far a block moves its input",
        [
            Plot(
                "move",
                "norm(H(x) - x) / norm(x) of a block H after training, mean over blocks; mean and sample deviation over seeds.",
                lambda figure, theme: moves(figure, theme, found),
                (9.0, 4.0),
            )
        ],
        f"At depth {deep} blocks of residual stacks with a small start move x by {move(SMALL)} times its norm; blocks of plain "
        f"stacks by {move(PLAIN)}.",
    )


def _line(found: Found) -> Section:
    fits, curves = found.results["line"], found.results["polynomials"]
    noisy, deep = max(fit["noise"] for fit in fits), max(fit["depth"] for fit in fits)
    forms = [form for form in FORMS if form.name in {fit["form"] for fit in fits}]
    rows = []
    for points in sorted({fit["points"] for fit in fits}):
        for noise in sorted({fit["noise"] for fit in fits}):
            own = [
                (fit["form"], fit)
                for fit in fits
                if (fit["points"], fit["noise"], fit["depth"]) == (points, noise, deep)
            ]
            own += [
                (named(curve), curve)
                for curve in curves
                if (curve["points"], curve["noise"]) == (points, noise)
            ]
            for name, fit in own:
                training, fresh = median(fit["training"]), median(fit["fresh"])
                gap = median(
                    [_less(*pair) for pair in zip(fit["fresh"], fit["training"], strict=True)]
                )
                rows.append([str(points), f"{noise:g}", name, say(training), say(fresh), say(gap)])
    comparisons = []
    for curve in (curve for curve in curves if curve["noise"] == noisy and curve["degree"] > 1):
        alike = [fit for fit in fits if (fit["noise"], fit["points"]) == (noisy, curve["points"])]
        worst = max(median(fit["fresh"]) for fit in alike)
        comparisons.append(
            f"{say(worst)} against {say(median(curve['fresh']))} on {curve['points']} points"
        )
    return Section(
        "Do stacks overfit a line?",
        [
            Plot(
                "line",
                "Mean squared error on the line against depth: solid on new points (mean and sample deviation of the logarithm "
                "over seeds), dotted on the training points (mean); dashed the polynomial through all points on new points, "
                f"dash-dotted the straight line. Values below {LINE_FLOOR:g} are drawn there.",
                lambda figure, theme: line_errors(figure, theme, fits, curves, forms),
                (9.0, 6.2),
            ),
            Table(
                ["points", "noise", "model", "training error", "error on new points", "difference"],
                rows,
                f"Medians over seeds; stacks of depth {deep}. New points have noise of the same size.",
            ),
        ],
        f"With noise {noisy:g}, the error on new points of the worst stacks of any form and depth against that of the polynomial "
        f"is {', '.join(comparisons)}.",
    )


def _setup(found: Found) -> Section:
    settings, results = found.settings, found.results
    rows = [
        [
            "block",
            f"F(x) = relu(x W1 + b1) W2 + b2, width {settings['width']}, hidden width {2 * settings['width']}",
        ],
        [
            "plain stack, residual stack",
            "passes on F(x), passes on x + F(x); forms differ in this and in their start",
        ],
        ["target", "H(x) = (1 - t) x + t G(x), with G a random block; and -x"],
        [
            "training",
            f"{settings['steps']:,} steps of Adam on 32 new examples, x ~ N(0, I); {settings['seeds']} seeds",
        ],
        ["learning rate", f"from {settings['rate']:g} to 0"],
        [
            "relative error",
            "mean squared error over the target's mean square, on 4,096 new examples; of the answer 0 it is 1",
        ],
        ["diverged", f"{results['diverged']:,} of {results['members']:,} stacks"],
        [
            "line",
            "width 1, hidden width 16, y = x from equally spaced points on [-1, 1], all in each step",
        ],
    ]
    return Section("Setup", [Table([], rows)])


def named(curve: dict[str, Any]) -> str:
    """Return what the table calls a polynomial."""
    return "straight line" if curve["degree"] == 1 else f"polynomial of degree {curve['degree']}"


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _ratio(value: float, other: float) -> str:
    return "-" if other == 0 or not np.isfinite([value, other]).all() else say(value / other)


def _range(values: Sequence[float | None]) -> str:
    low, high = (
        say(choose(np.inf if value is None else value for value in values)) for choose in (min, max)
    )
    return say(median(values)) + ("" if low == high else f" ({low} to {high})")
