"""What a report is made of: sections of words, tables and figures; drawn light and dark, and written as one HTML file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from reszoo.files import write_bytes, write_text


@dataclass(frozen=True)
class Theme:
    """Colours that read on one background. `series` tells up to six things apart, also for the colour-blind."""

    name: str
    background: str
    ink: str
    grid: str
    series: tuple[str, ...]

    @property
    def plain(self) -> str:
        """The colour of plain nets, in every figure."""
        return self.series[0]

    @property
    def others(self) -> tuple[str, ...]:
        """Colours for what is neither plain nor residual."""
        return self.series[2:]

    @property
    def residual(self) -> str:
        """The colour of residual nets, in every figure."""
        return self.series[1]


# Paul Tol's bright scheme, its dark members lightened for the dark page.
LIGHT = Theme(
    "light", "#ffffff", "#222222", "#e4e4e4", ("#c1440e", "#1f5fa8", "#228833", "#aa3377", "#8a7a00", "#5b7083")
)
DARK = Theme(
    "dark", "#16181c", "#e6e6e6", "#363a42", ("#ff8a5c", "#6cb0ff", "#6fd183", "#ee88c0", "#e3cf57", "#a9bccb")
)

Draw = Callable[[Figure, Theme], None]


@dataclass(frozen=True)
class Plot:
    """A figure: `draw` puts axes into an empty one. name: its file's, without suffix; size: inches (width, height)."""

    name: str
    caption: str
    draw: Draw
    size: tuple[float, float] = (8.0, 4.2)


@dataclass(frozen=True)
class Table:
    """Rows of cells under headers, numbers already spelt with their units."""

    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs of plain words, and what is to be looked at beneath them, in order."""

    title: str
    words: Sequence[str] = ()
    items: Sequence[Plot | Table] = field(default_factory=tuple)


def render(plot: Plot, theme: Theme, kind: str) -> bytes:
    """Return a figure as the bytes of a "png" (100 dots per inch) or an "svg" file; the same input gives the same bytes."""
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
    with rc_context(style):
        figure = Figure(figsize=plot.size, layout="constrained")
        plot.draw(figure, theme)
        if kind == "png":
            FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
        else:
            FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
    return out.getvalue()


def band(axes: Any, x: Any, runs: Any, color: str, label: str, **line: Any) -> None:
    """Draw the mean of `runs` [runs, points] over `x` [points], and its spread (sample deviation) as a band.

    Values that are not finite are left out of mean and band.
    """
    values = np.ma.masked_invalid(np.asarray(runs, np.float64))
    mean = values.mean(axis=0).filled(np.nan)
    axes.plot(x, mean, color=color, label=label, **{"linewidth": 1.8, **line})
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1).filled(np.nan)
        axes.fill_between(x, mean - spread, mean + spread, color=color, alpha=0.18, linewidth=0)


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """Return "mean ± deviation unit" of some seeds' values (sample deviation), the deviation left out for one value."""
    kept = [value for value in values if value is not None and np.isfinite(value)]
    if not kept:
        return "-"
    text = f"{np.mean(kept):.{digits}f}"
    if len(kept) > 1:
        text += f" ± {np.std(kept, ddof=1):.{digits}f}"
    return f"{text} {unit}".strip()


def write_page(folder: Path, title: str, lead: str, sections: Sequence[Section], foot: Sequence[str] = ()) -> Path:
    """Write `folder`/report.html, which needs nothing beside it, and each figure as a PNG and an SVG file; return the page."""
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="lead">{html.escape(lead)}</p>']
    for section in sections:
        body.append(f"<section><h2>{html.escape(section.title)}</h2>")
        body += [f"<p>{html.escape(text)}</p>" for text in section.words]
        for item in section.items:
            body.append(_table(item) if isinstance(item, Table) else _figure(folder, item))
        body.append("</section>")
    body.append("<footer>" + "".join(f"<p>{html.escape(line)}</p>" for line in foot) + "</footer>")
    page = folder / "report.html"
    write_text(page, _PAGE.format(title=html.escape(title), body="\n".join(body)))
    return page


def _figure(folder: Path, plot: Plot) -> str:
    write_bytes(folder / f"{plot.name}.png", render(plot, LIGHT, "png"))
    light, dark = render(plot, LIGHT, "svg"), render(plot, DARK, "svg")
    write_bytes(folder / f"{plot.name}.svg", light)
    caption = html.escape(plot.caption)
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{_uri(dark)}">'
        f'<img src="{_uri(light)}" alt="{caption}"></picture><figcaption>{caption}</figcaption></figure>'
    )


def _uri(svg: bytes) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg).decode()


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.headers)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    note = f"<p class=note>{html.escape(table.note)}</p>" if table.note else ""
    return f'<div class="table"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}'


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
:root {{ --paper: #ffffff; --ink: #222222; --soft: #5c5c5c; --line: #dddddd; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #16181c; --ink: #e6e6e6; --soft: #a5a5a5; --line: #363a42; }} }}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; padding: 1.2rem; max-width: 56rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; overflow-wrap: break-word; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: .4rem 0; }}
h2 {{ font-size: 1.2rem; margin: 2rem 0 .4rem; border-top: 1px solid var(--line); padding-top: 1rem; }}
.lead {{ font-size: 1.08rem; }}
figure {{ margin: 1rem 0; }}
picture {{ display: block; overflow-x: auto; }}
figure img {{ width: 100%; min-width: 36rem; height: auto; display: block; }}
figcaption, .note, footer {{ color: var(--soft); font-size: .88rem; }}
.table {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }}
th, td {{ text-align: left; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }}
footer {{ margin-top: 2.5rem; border-top: 1px solid var(--line); }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
