"""Linear residual layers: how small they may stay, and how well posed learning them is at zero."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reszoo.lab.record import check_count, claim_folder, write_record
from reszoo.lab.report import write_report
from reszoo.lab.statistics import round_numbers
from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme, log_ticks
from reszoo.reporting.reporter import Reporter
from reszoo.types import Array, JsonObject

SIZE = 10  # of the map that is learned
LAYERS = (1, 2, 3)  # that a shortcut may pass
HESSIAN_SIZE, HESSIAN_DEPTH = 3, 16
STEPS = 4000


def linear(
    out: str | os.PathLike[str],
    *,
    depths: Sequence[int] = (2, 4, 8, 16, 32),
    seeds: int = 3,
    quiet: bool = False,
) -> JsonObject:
    """Learn a linear map by residual and plain stacks; return the record of `out`.

    Args:
        out: The folder of the experiment.
        depths: Layers of a stack, and blocks for the Hessian.
        seeds: Maps to learn.
        quiet: Print nothing.

    Raises:
        ReszooError: For settings out of range, or a folder that holds another experiment.
    """
    for depth in depths:
        check_count("depths", depth, 2, 128)
    check_count("seeds", seeds, 1)
    depths = sorted(set(depths))
    settings = {"depths": depths, "seeds": seeds}
    folder = claim_folder(out, "linear", settings)
    reporter = Reporter(log=folder / "linear.log", quiet=quiet)
    stacks: dict[str, list[JsonObject]] = {"residual": [], "plain": []}
    for form, rows in stacks.items():
        for depth in depths:
            found = [learn(random_map(seed), depth, form, seed) for seed in range(seeds)]
            errors, norms = zip(*found, strict=True)
            rows.append(
                {"depth": depth, "error": round_numbers(errors), "norm": round_numbers(norms)}
            )
            reporter.line(f"{form} stack of {depth} layers: error {np.median(errors):.1e}")
    shallow = [depth for depth in depths if depth <= HESSIAN_DEPTH] or depths[:1]
    hessians = []
    for layers in LAYERS:
        spectra = [hessian_at_zero(layers, depth) for depth in shallow]
        hessians.append(
            {
                "layers": layers,
                "condition": round_numbers([spectrum["condition"] for spectrum in spectra]),
                "largest": round_numbers([spectrum["largest"] for spectrum in spectra]),
            }
        )
        reporter.line(f"Hessian at zero, shortcuts over {layers} layers")
    results = {"stacks": stacks, "blocks": shallow, "hessians": hessians}
    results["measures"] = _measures(results)
    record = write_record(folder, "linear", settings=settings, results=results)
    write_report(folder)
    return record


def random_map(seed: int) -> Array:
    """Return a matrix [10, 10] of positive determinant with singular values from 0.5 to 2."""
    draw = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(draw.standard_normal((SIZE, SIZE)))
    rotation[:, 0] *= np.sign(np.linalg.det(rotation))
    return np.asarray(rotation @ np.diag(np.linspace(0.5, 2, SIZE)))


def learn(target: Array, depth: int, form: str, seed: int) -> tuple[float, float]:
    """Learn a linear map by gradient descent on all entries of its error.

    Args:
        target: The map, [n, n].
        depth: The number of layers.
        form: "residual", a product of I + A, with A near 0 at first; or "plain", a product of A
            with entries of variance 1 / n.
        seed: Of the first weights.

    Returns:
        The squared error over the target's squares; the largest spectral norm of an A.

    Reference: arXiv 1611.04231, section 2.
    """
    size, residual = len(target), form == "residual"
    draw = np.random.default_rng([seed, depth])
    scale = 1e-3 / depth if residual else size**-0.5
    layers = draw.standard_normal((depth, size, size)) * scale
    identity = np.eye(size) * residual
    rate = (0.1 if residual else 0.01) / depth
    for _ in range(STEPS):
        below = [np.eye(size)]
        for layer in layers:
            below.append((identity + layer) @ below[-1])
        above = error = below[-1] - target
        for index in range(depth - 1, -1, -1):
            gradient = above @ below[index].T
            above = (identity + layers[index]).T @ above
            layers[index] -= rate * gradient
    largest = max(np.linalg.norm(layer, 2) for layer in layers)
    return float((error**2).sum() / (target**2).sum()), float(largest)


def hessian_at_zero(layers: int, blocks: int) -> dict[str, float]:
    """Return the spectrum of the Hessian where all weights are zero.

    The model is a product of `blocks` maps I + W_m ... W_1, with m = `layers`. The loss is half
    the squared error of the product against a random map, so that E = I - map is the error at zero.
    At zero a term of the second order is E times two weights, or the square of the sum of all
    weights for m = 1; for m > 2 there is none.

    Returns:
        `condition`: largest over smallest absolute eigenvalue, infinite without second order.
        `largest`: the largest absolute eigenvalue.

    Reference: arXiv 1611.01186, section 3.
    """
    size = HESSIAN_SIZE
    error = np.eye(size) - random_map(7)[:size, :size]
    weights = blocks * layers * size * size
    units = np.eye(weights).reshape(weights, blocks, layers, size, size)

    def loss(points: Array) -> Array:
        product = np.broadcast_to(np.eye(size), (len(points), size, size))
        for block in range(blocks):
            branch = points[:, block, 0]
            for layer in range(1, layers):
                branch = points[:, block, layer] @ branch
            product = product + branch @ product
        difference = product - np.eye(size) + error
        return np.asarray(0.5 * (difference**2).sum((1, 2)))

    # The loss is a polynomial, so differences with a step this small are exact to 1e-6.
    step = 1e-3
    hessian = np.empty((weights, weights))
    for row in range(weights):
        both = [
            loss(sign * step * units[row] + other * step * units)
            for sign, other in ((1, 1), (1, -1), (-1, 1), (-1, -1))
        ]
        hessian[row] = (both[0] - both[1] - both[2] + both[3]) / (4 * step**2)
    sizes = np.abs(np.linalg.eigvalsh((hessian + hessian.T) / 2))
    least = sizes.min()
    condition = sizes.max() / least if least > 1e-4 else np.inf
    return {"condition": float(condition), "largest": float(sizes.max())}


def _measures(results: JsonObject) -> JsonObject:
    """Return the numbers that claims are about, by name."""
    rows = results["stacks"]["residual"]
    long = [row for row in rows if row["depth"] >= 8] or rows
    depths = [row["depth"] for row in long]
    norms = [float(np.median(row["norm"])) for row in long]
    plain = results["stacks"]["plain"][-1]["error"]
    one, two, three = results["hessians"]
    return {
        "norm_power": _power(depths, norms),
        "residual_error": float(np.max([row["error"] for row in rows])),
        "plain_error": float(np.median(plain)),
        "two_layer_condition_ratio": two["condition"][-1] / two["condition"][0],
        "one_layer_condition_power": _power(results["blocks"], one["condition"]),
        "three_layer_largest": float(np.max(three["largest"])),
    }


def _power(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return the exponent of the power law through points; None for a single point."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(x) > 1 else None


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `linear` wrote."""
    results, found = record["results"], record["results"]["measures"]
    deepest = results["stacks"]["plain"][-1]["depth"]
    finding = (
        f"Residual stacks of every depth learn the map (error at most "
        f"{found['residual_error']:.0e}), and their layers are the smaller the deeper the stack; "
        f"plain stacks of {deepest} layers keep an error of {found['plain_error']:.2g}."
    )
    norms = Plot(
        "norms",
        "Largest spectral norm of a layer's A after training, by depth. Points: maps. Dotted: "
        "proportional to 1 / depth.",
        lambda figure, theme: _draw_norms(figure, theme, results["stacks"]["residual"]),
    )
    hessians = Plot(
        "hessians",
        "Condition number of the Hessian where all weights are zero, by number of blocks and by "
        "the layers that a shortcut passes. Over three layers the Hessian is zero.",
        lambda figure, theme: _draw_hessians(figure, theme, results),
    )
    rows = [[name, f"{value:.3g}"] for name, value in found.items() if value is not None]
    sections = [
        Section("How small the layers stay", [norms]),
        Section("Why a block has two layers", [hessians]),
        Section("Measures", [Table(["measure", "value"], rows)]),
    ]
    return Page("Linear residual layers", finding, sections)


def _draw_norms(figure: Figure, theme: Theme, rows: Sequence[JsonObject]) -> None:
    axes = figure.subplots()
    depths = np.array([row["depth"] for row in rows], float)
    norms = np.array([row["norm"] for row in rows], float)
    axes.plot(depths, norms, "o", color=theme.residual, markersize=4)
    axes.plot(depths, np.median(norms, 1)[-1] * depths[-1] / depths, ":", color=theme.ink)
    axes.set(xlabel="layers", ylabel="largest norm of A", xscale="log", yscale="log")
    _set_ticks(axes, depths, norms.min(), norms.max())


def _draw_hessians(figure: Figure, theme: Theme, results: JsonObject) -> None:
    axes = figure.subplots()
    for row, color in zip(results["hessians"], theme.series, strict=False):
        values = [np.nan if value is None else value for value in row["condition"]]
        if not np.isnan(values).all():
            label = f"{row['layers']} layer{'s' * (row['layers'] > 1)}"
            axes.plot(results["blocks"], values, "o-", color=color, label=label)
    axes.set(xlabel="blocks", ylabel="condition number", xscale="log", yscale="log")
    found = [value for row in results["hessians"] for value in row["condition"] if value]
    _set_ticks(axes, results["blocks"], min(found), max(found))
    axes.legend()


def _set_ticks(axes: Axes, counts: Iterable[float], low: float, high: float) -> None:
    axes.set_xticks(list(counts), [f"{count:g}" for count in counts])
    axes.xaxis.minorticks_off()
    log_ticks(axes.yaxis, low, high)
