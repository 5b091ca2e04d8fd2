"""The page of `reszoo lab identity`: words and tables, all of them computed from the record."""

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
from reszoo.lab.page import Plot, Section, Table
from reszoo.lab.stacks import FORMS, HELD, LINEAR, LINEAR_SMALL, PLAIN, RESIDUAL, SMALL, ZERO, Form


def present(record: dict[str, Any]) -> tuple[str, str, list[Section]]:
    """Return title, finding and sections of the page."""
    found = Found(record)
    sections = [_errors(found), _gain(found), _pace(found), _moves(found), _line(found)]
    return "How hard is the identity?", lead(record), sections


def lead(record: dict[str, Any]) -> str:
    """Return in one sentence what the deepest stacks made of the identity and of what is far from it."""
    found = Found(record)
    deep = found.depths[-1]

    def said(form: Form) -> str:
        near, far, against = (say(found.error(form, deep, target)) for target in ("identity", "G", "negation"))
        return f"{near} on the identity, {far} on a random net and {against} on -x"

    return (
        f"At depth {deep} residual stacks whose branches start small end with a relative error of {said(SMALL)}; plain ones "
        f"with {said(PLAIN)}; plain ones that start as the identity with {said(HELD)}."
    )


def _errors(found: Found) -> Section:
    settings, results = found.settings, found.results
    deep, shallow = found.depths[-1], found.depths[0]

    def on_identity(form: Form, depth: int = deep) -> str:
        return say(found.error(form, depth, "identity"))

    words = [
        f"Stacks of blocks F(x) = relu(x W1 + b1) W2 + b2, x of width {settings['width']} and the hidden layer of twice "
        "that, learn H(x) = (1 - t) x + t G(x), where G is a random net of one such block, and -x, from fresh "
        f"x ~ N(0, I): {settings['steps']:,} steps of Adam on 32 examples, the rate falling from {settings['rate']:g} "
        f"to 0, {settings['seeds']} seeds. A plain block passes on F(x), and can be the identity, or G, exactly; a "
        "residual one passes on x + F(x). Forms differ in that and in their start alone.",
        "Relative error: mean squared error over the target's mean square, on 4,096 examples that no step saw; the answer 0 "
        f"has error 1. Numbers in words and tables are medians over seeds. {results['diverged']} of {results['members']} stacks diverged.",
        f"The identity at depth {deep}: plain {on_identity(PLAIN)}; residual from the same start {on_identity(RESIDUAL)}, "
        f"from branches that start small {on_identity(SMALL)}, from branches at zero {on_identity(ZERO)}, which is the "
        "identity before its first step.",
    ]
    if found.error(RESIDUAL, deep, "identity") > found.error(PLAIN, deep, "identity"):
        words.append(
            "So x + F(x) alone is no help at that depth. There is no normalisation here: each random block doubles the "
            f"mean square of what passes, 2^{deep} times over, and training does not undo it in these steps."
        )
    without = (
        f"Without ReLU, the identity: plain {on_identity(LINEAR, shallow)} at depth {shallow} and {on_identity(LINEAR)} at "
        f"{deep}; residual from small branches {on_identity(LINEAR_SMALL, shallow)} and {on_identity(LINEAR_SMALL)}."
    )
    if found.error(LINEAR, deep, "identity") > 10 * found.error(LINEAR, shallow, "identity"):
        without += " So plain stacks get worse with depth without it too: it is not what makes the identity hard."
    words.append(without)
    rows = [[form.name, *(_range(found.seeds(form, deep, target)) for target in found.targets)] for form in FORMS]
    return Section(
        "Error against depth",
        words,
        [
            Plot(
                "error-depth",
                "Relative error at the end against depth, for each target. Mean and sample deviation of the logarithm over "
                f"seeds; what is below {FLOOR:g} or above {TOP:g} is drawn there.",
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
            Plot(
                "curves",
                f"Relative error on fresh examples against steps at depth {deep}, for each target; drawn as above. Of lines on one "
                "another the last in the legend shows.",
                by_target(
                    found, lambda axes, theme, target: over_steps(found, axes, theme, target), MAIN, "relative error", 5
                ),
                (9.0, 6.0),
            ),
        ],
    )


def _gain(found: Found) -> Section:
    deep = found.depths[-1]
    rows = [
        [
            target,
            *(_ratio(found.error(PLAIN, depth, target), found.error(SMALL, depth, target)) for depth in found.depths),
        ]
        for target in found.targets
    ]
    words = []
    for target in (name for name in ("t = 0.5", "G") if name in found.targets):
        worst, held, zero = (found.error(form, deep, target) for form in (PLAIN, HELD, ZERO))
        text = (
            f"{target} at depth {deep}: plain from a random start {say(worst)}; plain, but started at the identity, {say(held)}; "
            f"residual started there too, {say(zero)}"
        )
        if np.isfinite([worst, held, zero]).all() and worst > zero > 0 and held > 0:
            part = np.log(worst / held) / np.log(worst / zero)
            text += f". The start alone makes {100 * part:.0f} % of the difference in orders of magnitude, the form of the block the rest"
        words.append(text + ".")
    worse = [
        f"{target} at depth {depth} ({say(found.error(SMALL, depth, target))} against {say(found.error(PLAIN, depth, target))})"
        for target in found.targets
        for depth in found.depths
        if found.error(SMALL, depth, target) > found.error(PLAIN, depth, target)
    ]
    words.append(
        f"The residual form (small start) did worse than the plain one on {', '.join(worse)}."
        if worse
        else "The residual form (small start) did worse than the plain one on no target at no depth."
    )
    panels = sorted({found.depths[0], found.depths[len(found.depths) // 2], deep})
    return Section(
        "What the residual form gains near the identity, and what it costs far from it",
        words,
        [
            Plot(
                "error-target",
                "Relative error at the end against how far the target is from the identity; at the right -x, its spread a "
                "bar. Drawn as above.",
                lambda figure, theme: against_targets(figure, theme, found, panels),
                (9.0, 4.2),
            ),
            Table(
                ["target", *(f"depth {depth}" for depth in found.depths)],
                rows,
                "Relative error of the plain stack over that of the residual one with a small start: above 1 the residual "
                "form gains, below 1 it costs.",
            ),
        ],
    )


def _pace(found: Found) -> Section:
    loose, tight = (f"{tolerance:g}" for tolerance in found.results["tolerances"])
    total = found.settings["seeds"] * len(found.depths) * len(found.targets)

    def reached(form: Form, tolerance: str) -> str:
        steps = [found.steps(form, depth, target, tolerance) for depth in found.depths for target in found.targets]
        return str(sum(step is not None for own in steps for step in own))

    rows = [[form.name, reached(form, loose), reached(form, tight)] for form in FORMS]
    return Section(
        "Steps to a tolerance",
        [
            f"Of {total} stacks of a form (all depths, targets and seeds) {reached(PLAIN, loose)} plain ones came below a "
            f"relative error of {loose}, {reached(SMALL, loose)} residual ones with a small start and {reached(ZERO, loose)} with "
            f"a zero start. It was looked for every {max(1, found.settings['steps'] // 100)} steps.",
        ],
        [
            Plot(
                "steps",
                f"Steps until the relative error on fresh examples is below {loose}: median of the seeds, dots are seeds, crosses never.",
                by_target(
                    found, lambda axes, theme, target: steps_to(found, axes, theme, target, loose), MAIN, "steps", 5
                ),
                (9.0, 6.0),
            ),
            Table(
                ["form", f"below {loose}", f"below {tight}"],
                rows,
                f"Stacks, of {total}, that came below a relative error at some look.",
            ),
        ],
    )


def _moves(found: Found) -> Section:
    deep = found.depths[-1]

    def move(form: Form, target: str) -> str:
        return f"{median(found.seeds(form, deep, target, 'move')):.2f}"

    return Section(
        "How far a block moves its input",
        [
            "norm(H(x) - x) / norm(x) of a block H, mean over the blocks of a stack, after training. For a residual block "
            "H(x) - x is F(x), for a plain one it is what F would have to be.",
            f"At depth {deep} a block of a residual stack (small start) moves x by {move(SMALL, 'identity')} of its norm for "
            f"the identity, {move(SMALL, 'G')} for G and {move(SMALL, 'negation')} for -x; a plain one by "
            f"{move(PLAIN, 'identity')}, {move(PLAIN, 'G')} and {move(PLAIN, 'negation')}.",
        ],
        [
            Plot(
                "move",
                "norm(H(x) - x) / norm(x), mean over blocks; mean and sample deviation over seeds.",
                lambda figure, theme: moves(figure, theme, found),
                (9.0, 4.0),
            )
        ],
    )


def _line(found: Found) -> Section:
    fits, curves = found.results["line"], found.results["polynomials"]
    noisy, deep = max(fit["noise"] for fit in fits), max(fit["depth"] for fit in fits)
    forms = [form for form in FORMS if form.name in {fit["form"] for fit in fits}]
    rows, words = [], []
    for points in sorted({fit["points"] for fit in fits}):
        for noise in sorted({fit["noise"] for fit in fits}):
            own = [
                (fit["form"], fit)
                for fit in fits
                if (fit["points"], fit["noise"], fit["depth"]) == (points, noise, deep)
            ]
            own += [(named(curve), curve) for curve in curves if (curve["points"], curve["noise"]) == (points, noise)]
            for name, fit in own:
                training, fresh = median(fit["training"]), median(fit["fresh"])
                gap = median([_less(*pair) for pair in zip(fit["fresh"], fit["training"], strict=True)])
                rows.append([str(points), f"{noise:g}", name, say(training), say(fresh), say(gap)])
            if noise == noisy:
                said = [f"{name} {say(median(fit['fresh']))} ({say(median(fit['training']))})" for name, fit in own]
                words.append(f"{points} points, noise {noise:g}, fresh error (training error): {', '.join(said)}.")
    still = [curve for curve in curves if curve["noise"] == 0 and curve["degree"] > 1]
    exact = max((median(curve["fresh"]) for curve in still), default=np.nan)
    few = min(fit["points"] for fit in fits)
    clean = [fit for fit in fits if (fit["noise"], fit["points"], fit["depth"]) == (0, few, deep)]
    bare = ", ".join(
        f"{fit['form']} {say(median(fit['fresh']))} ({say(median(fit['training']))} in training)" for fit in clean
    )
    calm: list[str] = []
    wild: list[str] = []
    for curve in (curve for curve in curves if curve["noise"] == noisy and curve["degree"] > 1):
        alike = [fit for fit in fits if (fit["noise"], fit["points"]) == (noisy, curve["points"])]
        worst, high = max(median(fit["fresh"]) for fit in alike), median(curve["fresh"])
        text = f"{curve['points']} points ({say(worst)} against {say(high)})"
        (calm if worst < high else wild).append(text)
    verdict = "With noise, the worst stacks of any form and depth err "
    verdict += " and ".join(
        f"{said} the polynomial on {', '.join(cases)}"
        for said, cases in (("less on fresh points than", calm), ("at least as much as", wild))
        if cases
    )
    deepest = found.depths[-1]
    if found.error(PLAIN, deepest, "identity") > 0.1:
        verdict += (
            f". Plain stacks of depth {deepest} fail on the identity where every example is fresh and nothing can be learnt by "
            f"heart (error {say(found.error(PLAIN, deepest, 'identity'))}): overfitting is not what fails them there"
        )
    return Section(
        'Do they "overfit wildly"?',
        [
            "A common explanation says that nonlinear layers asked for a linear map overfit as a high polynomial does on a "
            "line. The test: stacks of width 1, hidden layer 16, learn y = x from a few equally spaced points on [-1, 1], all "
            f"of them in each of {found.settings['steps']:,} steps; beside them, by least squares, the polynomial through all "
            "points and the straight line. Errors are mean squares, the fresh one over all of [-1, 1] and with noise of the "
            "same size, below whose variance nothing comes, so that the gap between the two is what was learnt by heart.",
            "Without noise the polynomial has nothing to overfit, for the line is a polynomial too: its fresh error is "
            f"{say(exact)} at most. The stacks of depth {deep} have, on {few} points, {bare}.",
            *words,
            f"{verdict}.",
        ],
        [
            Plot(
                "line",
                "Mean squared error on the line against depth: solid on fresh points (mean and sample deviation of the logarithm "
                "over seeds), dotted on the training points (mean); dashed the fresh error of the polynomial through all points, "
                f"dash-dotted that of the straight line. What is below {LINE_FLOOR:g} is drawn there.",
                lambda figure, theme: line_errors(figure, theme, fits, curves, forms),
                (9.0, 6.2),
            ),
            Table(
                ["points", "noise", "what", "training", "fresh", "gap"],
                rows,
                f"Medians over seeds; stacks of depth {deep}.",
            ),
        ],
    )


def named(curve: dict[str, Any]) -> str:
    return "straight line" if curve["degree"] == 1 else f"polynomial of degree {curve['degree']}"


def _less(value: float | None, other: float | None) -> float | None:
    return None if value is None or other is None else value - other


def _ratio(value: float, other: float) -> str:
    return "-" if other == 0 or not np.isfinite([value, other]).all() else say(value / other)


def _range(values: Sequence[float | None]) -> str:
    low, high = (say(choose(np.inf if value is None else value for value in values)) for choose in (min, max))
    return say(median(values)) + ("" if low == high else f" ({low} to {high})")
