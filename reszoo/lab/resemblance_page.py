"""The report of `reszoo lab resemblance`, from its record alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from reszoo.reporting.page import Page, Section, Table
from reszoo.reporting.plots import Plot, Theme
from reszoo.types import JsonObject

PAIRINGS = {
    "literal": "first layers",
    "by_stage": "first blocks of each stage",
    "relative": "same share of each stage",
}


def make_page(record: JsonObject) -> Page:
    """Return the report of a record that `resemblance` wrote."""
    kinds, measures = record["results"]["kinds"], record["results"]["measures"]
    finding = " ".join(_describe(kind, found, measures) for kind, found in kinds.items())
    rows = []
    for kind in kinds:
        for pairing, text in PAIRINGS.items():
            own = [measures[f"{kind}_{pairing}_{name}"] for name in ("cka", "floor", "share")]
            rows.append(
                [kind, text, *(f"{value:.2f}" for value in own[:2])]
                + [f"{measures[f'{kind}_ceiling']:.2f}", f"{100 * own[2]:.0f} %"]
            )
    headers = ["", "compared blocks", "CKA", "floor", "ceiling", "share of the ceiling"]
    pairs = Table(
        headers,
        rows,
        "Means over the blocks of the shallow model. Ceiling: another seed of the shallow model. "
        "Floor: an untrained deep model. Share: (CKA - floor) / (ceiling - floor).",
    )
    stitches = Table(
        ["", "front", "blocks", "error, %", "of the back alone, %", "penalty, points"],
        [
            [
                kind,
                row["what"],
                f"{row['front']}, {row['back']}",
                f"{row['error']:.2f}",
                f"{row['own']:.2f}",
                f"{row['penalty']:+.2f}",
            ]
            for kind, found in kinds.items()
            for row in found["stitches"]
        ],
        "The back belongs to the shallow model, and to the deep one below a shallow or untrained "
        "front. A trained 1x1 convolution connects them; both models are frozen.",
    )
    models = Table(
        ["model", "test error, %"],
        [
            [model["name"], f"{model['error']:.2f}"]
            for found in kinds.values()
            for model in found["models"]
        ],
        f"On the {record['settings']['images']:,} images of the measurements at most.",
    )
    maps = Plot(
        "cka",
        "Linear CKA of the outputs of blocks, from the stem at the top left. Line: the first "
        "layers; dotted: the same share of each stage.",
        lambda figure, theme: _draw_maps(figure, theme, kinds),
        (9.0, 2.6 * len(kinds)),
    )
    lines = Plot(
        "pairs",
        "CKA of each block of the shallow model with the block of the deep one that it is compared "
        "with. Dashed: another seed. Dotted: an untrained deep model, first layers.",
        lambda figure, theme: _draw_pairs(figure, theme, kinds),
        (9.0, 3.8),
    )
    probes = Plot(
        "probes",
        "Accuracy of a linear classifier on the output of each block.",
        lambda figure, theme: _draw_probes(figure, theme, kinds),
        (9.0, 3.8),
    )
    sections = [
        Section("Similarity of blocks", [maps, lines, pairs]),
        Section("Stitching", [stitches]),
        Section("Linear probes", [probes]),
        Section("Models", [models]),
    ]
    return Page("Do the first layers of a deep model resemble a shallow one?", finding, sections)


def _describe(kind: str, found: JsonObject, measures: JsonObject) -> str:
    shares = [100 * measures[f"{kind}_{pairing}_share"] for pairing in PAIRINGS]
    depths = sorted({model["depth"] for model in found["models"]})
    return (
        f"{kind.capitalize()} models: the first layers of {depths[-1]} resemble the {depths[0]} "
        f"layers by {shares[0]:.0f} % of what another seed does, the first blocks of each stage "
        f"by {shares[1]:.0f} %, and blocks at the same share of each stage by {shares[2]:.0f} %."
    )


def _draw_maps(figure: Figure, theme: Theme, kinds: JsonObject) -> None:
    grid = figure.subplots(len(kinds), 3, squeeze=False, width_ratios=[1, 2.4, 1.3])
    colors = LinearSegmentedColormap.from_list("cka", [theme.background, theme.series[1]])
    for row, (kind, found) in zip(grid, kinds.items(), strict=True):
        parts = [("seeds", "another seed"), ("deep", "deep"), ("within", "deep with itself")]
        for axes, (name, text) in zip(row, parts, strict=True):
            values = np.array(found["cka"][name])
            axes.imshow(values, cmap=colors, vmin=0, vmax=1, aspect="auto")
            axes.set_title(f"{kind}: {text}", fontsize=10)
            axes.grid(False)
        shallow, deep = found["blocks"]["shallow"], found["blocks"]["deep"]
        at, ratio = np.arange(1, len(shallow)), (len(deep) - 1) // (len(shallow) - 1)
        for axes in row[:2]:
            axes.plot(at, at, color=theme.ink, linewidth=1.2)
        row[1].plot(ratio * at, at, ":", color=theme.ink, linewidth=1.2)
        row[0].set_ylabel("block, shallow")
    for axes in grid[-1]:
        axes.set_xlabel("block")
    figure.colorbar(grid[0, 0].images[0], ax=list(grid.ravel()), shrink=0.8, label="CKA")


def _draw_pairs(figure: Figure, theme: Theme, kinds: JsonObject) -> None:
    panels = _panels(figure, kinds)
    for axes, found in zip(panels, kinds.values(), strict=True):
        pairs = found["pairs"]
        at = np.arange(1, len(pairs["ceiling"]) + 1)
        for color, (pairing, text) in zip(theme.others, PAIRINGS.items(), strict=False):
            axes.plot(at, pairs[pairing]["deep"], "o-", color=color, label=text, markersize=4)
        axes.plot(at, pairs["ceiling"], "--", color=theme.ink, label="another seed")
        axes.plot(at, pairs["literal"]["untrained"], ":", color=theme.ink, label="untrained")
        axes.set(xlabel="block of the shallow model", ylim=(0, 1.02))
    panels[0].set_ylabel("CKA")
    panels[-1].legend(fontsize=8)


def _draw_probes(figure: Figure, theme: Theme, kinds: JsonObject) -> None:
    panels = _panels(figure, kinds)
    styles = {"shallow": "--", "deep": "-", "untrained": ":"}
    for axes, (kind, found) in zip(panels, kinds.items(), strict=True):
        color = theme.plain if kind == "plain" else theme.residual
        for name, style in styles.items():
            values = 100 * np.array(found["probes"][name])
            label = f"{name} deep" if name == "untrained" else name
            axes.plot(np.arange(len(values)), values, style, color=color, label=label)
        axes.set(xlabel="block (0: stem)", ylim=(0, 101))
        axes.legend(fontsize=8)
    panels[0].set_ylabel("test accuracy of the probe, %")


def _panels(figure: Figure, kinds: JsonObject) -> Sequence[Axes]:
    panels: Sequence[Axes] = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        axes.set_title(f"{kind} models", fontsize=11)
    return panels
