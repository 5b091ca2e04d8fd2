"""What the figures of all reports share: colors, files, bands, legends and axes."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator


@dataclass(frozen=True)
class Theme:
    """Colors that read on one background.

    `series` has six that are different to color-blind readers too.
    """

    name: str
    background: str
    ink: str
    grid: str
    series: tuple[str, ...]

    @property
    def plain(self) -> str:
        """The color of plain models in every figure."""
        return self.series[0]

    @property
    def residual(self) -> str:
        """The color of residual models in every figure."""
        return self.series[1]

    @property
    def others(self) -> tuple[str, ...]:
        """Colors of everything that is neither plain nor residual."""
        return self.series[2:]


# Paul Tol's bright scheme; its dark colors are lightened for the dark page.
LIGHT = Theme(
    "light",
    "#ffffff",
    "#222222",
    "#e4e4e4",
    ("#c1440e", "#1f5fa8", "#228833", "#aa3377", "#8a7a00", "#5b7083"),
)
DARK = Theme(
    "dark",
    "#16181c",
    "#e6e6e6",
    "#363a42",
    ("#ff8a5c", "#6cb0ff", "#6fd183", "#ee88c0", "#e3cf57", "#a9bccb"),
)

Draw = Callable[[Figure, Theme], None]


@dataclass(frozen=True)
class Plot:
    """A figure.

    name: of its files, without suffix. draw: adds axes to an empty figure. size: width and height
    in inches.
    """

    name: str
    caption: str
    draw: Draw
    size: tuple[float, float] = (8.0, 4.2)


def render(plot: Plot, theme: Theme, kind: str, *, dpi: int = 100) -> bytes:
    """Return a figure as the bytes of a "png" or "svg" file; equal inputs give equal bytes.

    Args:
        plot: The figure.
        theme: Its colors.
        kind: "png" or "svg".
        dpi: Dots per inch of a PNG file.
    """
    style = {
        "font.size": 10,
        "font.family": "sans-serif",
        "svg.fonttype": "none",
        "svg.hashsalt": plot.name,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.facecolor": theme.background,
        "figure.facecolor": theme.background,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.grid,
        "axes.grid": True,
        "axes.axisbelow": True,
        "legend.frameon": False,
        "text.parse_math": False,
    }
    out = io.BytesIO()
    with rc_context(style), warnings.catch_warnings():
        # Letters that the font lacks are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure = Figure(figsize=plot.size, dpi=dpi, layout="constrained")
        plot.draw(figure, theme)
        if kind == "png":
            FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
        else:
            FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    return out.getvalue()


def band(axes: Any, x: Any, runs: Any, color: str, label: str = "", **line: Any) -> None:
    """Draw the mean of `runs` [runs, points] over `x` [points], and the sample deviation as a band.

    Values that are not finite are excluded from both.
    """
    values = np.ma.masked_invalid(np.asarray(runs, np.float64))
    mean = values.mean(axis=0).filled(np.nan)
    axes.plot(x, mean, color=color, label=label, **{"linewidth": 1.8, **line})
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1).filled(np.nan)
        axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.18, linewidth=0)


def legend_below(figure: Figure, handles: Sequence[Any], columns: int = 0) -> None:
    """Draw one legend for all panels below them, in one row unless `columns` are given."""
    figure.legend(
        handles=handles, loc="outside lower center", ncols=columns or len(handles), fontsize=9
    )


def log_ticks(axis: Any, low: float, high: float) -> None:
    """Label round numbers between `low` and `high` on a logarithmic axis, at most six."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in (
        (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9),
        (1, 1.5, 2, 3, 5, 7),
        (1, 2, 5),
        (1, 3),
        (1,),
    ):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = [
            tick for tick in ticks if low / 1.0001 <= tick <= high * 1.0001
        ]  # 10.0**-2 is not quite 0.01
        if len(ticks) <= 6:
            break
    axis.set_major_locator(FixedLocator(ticks or [low, high]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _amount(value)))


def _amount(value: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
