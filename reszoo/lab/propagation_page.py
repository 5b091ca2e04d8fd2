"""The report of `reszoo lab propagation`."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme, band, log_ticks
from reszoo.types import JsonObject


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `propagation` wrote."""
    results, found = record["results"], record["results"]["measures"]
    finding = (
        f"Without normalization the mean square of a residual model's maps grows by a factor of "
        f"{found['none_factor']:.2f} per block; with batch norm on the branch it grows by "
        f"{found['batch_norm_growth']:.2f} per block, so later branches change their input less."
    )
    maps = Plot(
        "maps",
        "Mean square of each block's output divided by that of the first block's input, on images "
        "of normal numbers, before training. Bands: deviation over seeds.",
        lambda figure, theme: _draw_maps(figure, theme, results["maps"]),
    )
    gradients = Plot(
        "gradients",
        "Mean correlation of the gradients at two independent inputs, dense stacks. Dotted: the "
        "theorems' 2^-L, (3/4)^L and 1/sqrt(L).",
        lambda figure, theme: _draw_gradients(figure, theme, results["correlations"]),
    )
    kernels = Plot(
        "kernels",
        "Infinitely wide models on digits. Left: tangent kernel of two different images divided by "
        "that of equal ones, mean and deviation over pairs; dotted: 1/4. Right: test error of "
        "kernel regression. Residual: branches scaled by 1 / depth; unscaled: by 1.",
        lambda figure, theme: _draw_kernels(figure, theme, results["kernels"]),
        (9.0, 4.0),
    )
    rows = [[name, f"{value:.3f}"] for name, value in found.items()]
    note = (
        "growth: added to the mean square per block, or last / first (SkipInit, Fixup). factor: "
        "mean of a block's mean square over that of the block before. log2, power: slope of the "
        "correlation's logarithm over the depth and over the depth's logarithm. kernel: at the "
        "largest depth; deviation over pairs of images and error in points against depth 1."
    )
    sections = [
        Section("Size of the maps", [maps]),
        Section("Correlation of gradients", [gradients]),
        Section("Tangent kernels", [kernels]),
        Section("Measures", [Table(["measure", "value"], rows, note)]),
    ]
    return Page("Propagation before training", finding, sections)


def _draw_maps(figure: Figure, theme: Theme, maps: JsonObject) -> None:
    axes = figure.subplots()
    colors = dict(zip(maps, (*theme.series, theme.ink, theme.series[0]), strict=True))
    for form, seeds in maps.items():
        values = [np.array(seed["x"]) / seed["entry"] for seed in seeds]
        style = ":" if form.startswith("plain") else "-"
        blocks = np.arange(1, len(values[0]) + 1)
        band(axes, blocks, values, colors[form], form.replace("_", " "), linestyle=style)
    axes.set(xlabel="block", ylabel="mean square / that of the input", yscale="log")
    axes.set_ylim(1e-3, 1e8)
    axes.set_yticks([1e-3, 0.1, 1, 10, 1e3, 1e5, 1e7], "0.001 0.1 1 10 1,000 100k 10M".split())
    axes.yaxis.minorticks_off()
    axes.legend(ncols=2, fontsize=8)


def _draw_gradients(figure: Figure, theme: Theme, correlations: JsonObject) -> None:
    axes = figure.subplots()
    theorems = {
        "plain_batch_norm": lambda depth: 0.5**depth,
        "residual": lambda depth: 0.75**depth,
        "residual_batch_norm": lambda depth: depth**-0.5,
    }
    for color, (stack, row) in zip(theme.series, correlations.items(), strict=False):
        depths = np.array(row["depths"], float)
        axes.plot(depths, row["correlation"], "o-", color=color, label=stack.replace("_", " "))
        if stack in theorems:
            axes.plot(depths, theorems[stack](depths), ":", color=color)
    axes.set(xlabel="layers", ylabel="correlation", yscale="log", xscale="log")
    log_ticks(axes.xaxis, 1, 64)
    log_ticks(axes.yaxis, 0.01, 1)
    axes.set_ylim(0.008, 1)
    axes.legend(fontsize=8)


def _draw_kernels(figure: Figure, theme: Theme, kernels: JsonObject) -> None:
    left, right = figure.subplots(1, 2)
    depths = np.array(kernels["depths"])
    kinds = [kind for kind in kernels if kind != "depths"]
    for color, kind in zip(theme.series, kinds, strict=False):
        row = kernels[kind]
        mean, deviation = np.array(row["mean"]), np.array(row["deviation"])
        label = kind.replace("_", " ")
        left.fill_between(depths, mean - deviation, mean + deviation, color=color, alpha=0.2)
        left.plot(depths, mean, "o-", color=color, markersize=4, label=label)
        right.plot(depths, row["error"], "o-", color=color, markersize=4)
    left.axhline(0.25, color=theme.ink, linestyle=":")
    for panel, text in ((left, "kernel / that of equal images"), (right, "test error (%)")):
        panel.set(xlabel="layers or blocks", ylabel=text, xscale="log", ylim=(0, None))
        panel.set_xticks(depths, [f"{depth}" for depth in depths])
        panel.xaxis.minorticks_off()
    left.legend(fontsize=8)
