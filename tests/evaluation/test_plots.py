"""What the figures show, read from the figure before it is rendered, and their files."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from reszoo.errors import ReszooError
from reszoo.evaluation import plots
from reszoo.reporting.plots import LIGHT, Plot

HISTORY = [
    {
        "epoch": i,
        "step": 1000 * i,
        "rate": 0.1 if i < 6 else 0.01,
        "loss": 2 / i,
        "accuracy": 1 - 0.4 / i,
        "val_loss": 3 / i,
        "val_accuracy": 1 - 0.5 / i,
    }
    for i in range(1, 11)
]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that would have been written."""
    figures: list[Figure] = []

    def save(plot: Plot, path: object) -> None:
        figures.append(Figure(figsize=plot.size))
        plot.draw(figures[-1], LIGHT)

    monkeypatch.setattr(plots, "_save", save)
    return figures


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines}


def test_curves_show_error_in_percent_against_thousands_of_steps(drawn: list[Figure]) -> None:
    plots.draw_curves(HISTORY, "x.png", title="resnet20", published=8.75, source="Table 6")
    error, loss, rate = drawn[0].axes
    shown = lines(error)
    assert list(shown["validation"].get_xdata()) == list(range(1, 11))
    assert list(shown["validation"].get_ydata()) == pytest.approx([50 / i for i in range(1, 11)])
    assert list(shown["training"].get_ydata()) == pytest.approx([40 / i for i in range(1, 11)])
    assert shown["validation"].get_linewidth() > shown["training"].get_linewidth()
    published = shown["published, Table 6: 8.75 %"]
    assert set(published.get_ydata()) == {8.75} and published.get_linestyle() != "-"
    assert (error.get_ylabel(), error.get_xlabel()) == ("error (%)", "thousands of steps")
    assert list(lines(loss)["validation"].get_ydata()) == pytest.approx(
        [3 / i for i in range(1, 11)]
    )
    assert loss.get_yscale() == "log" and loss.get_ylim() == pytest.approx((2 / 10 / 1.1, 3 * 1.1))
    assert list(rate.lines[0].get_ydata()) == [0.1] * 5 + [0.01] * 5
    assert drawn[0].get_suptitle() == "resnet20"
    low, high = error.get_ylim()
    assert low == 0 and high > 25, "all rows are inside but the first tenth"


def drops(figure: Figure) -> list[float]:
    drawn = [line for line in figure.axes[0].lines if line.get_label()[0] == "_"]
    return [line.get_xdata()[0] for line in drawn if len(line.get_xdata()) == 2]


def test_every_steps_learning_rate_is_drawn_and_drops_of_a_stepped_one_are_marked(
    drawn: list[Figure],
) -> None:
    rates = [(step, 0.1 if step <= 5500 else 0.01) for step in range(1, 10_001)]
    plots.draw_curves(HISTORY, "x.png", rates=rates)
    plots.draw_curves(HISTORY, "x.png")
    plots.draw_curves([{**row, "rate": 0.3 - row["step"] / 4e4} for row in HISTORY], "x.png")
    line = drawn[0].axes[2].lines[0]
    assert list(line.get_xdata()) == pytest.approx([step / 1000 for step, _ in rates])
    assert list(line.get_ydata()) == [rate for _, rate in rates]
    assert [drops(figure) for figure in drawn] == [[5.5], [5.0], []]


def test_a_history_without_validation_has_only_the_training_curve(drawn: list[Figure]) -> None:
    plots.draw_curves(
        [{"step": 10 * i, "loss": 1 / i, "accuracy": 0.5, "val_accuracy": None} for i in (1, 2, 3)],
        "x.png",
    )
    error = drawn[0].axes[0]
    (legend,) = drawn[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["training"]
    assert error.get_xlabel() == "steps" and list(error.lines[0].get_xdata()) == [10, 20, 30]


def test_values_that_are_not_finite_leave_gaps(drawn: list[Figure]) -> None:
    plots.draw_curves(
        [row | {"loss": math.nan if row["epoch"] == 3 else row["loss"]} for row in HISTORY], "x.png"
    )
    plots.draw_curves([{"step": 1, "loss": math.inf, "accuracy": math.nan}], "x.png")
    assert np.isnan(lines(drawn[0].axes[1])["training"].get_ydata()[2])
    assert drawn[1].axes[1].lines[:] == []


def test_the_first_epochs_do_not_flatten_the_rest(drawn: list[Figure]) -> None:
    rows = [{"step": i, "val_accuracy": 0.1 if i < 5 else 0.9} for i in range(1, 101)]
    plots.draw_curves(rows, "x.png")
    assert drawn[0].axes[0].get_ylim()[1] < 12


def test_confusion_colors_shares_of_the_true_class_and_writes_counts(drawn: list[Figure]) -> None:
    plots.draw_confusion([[8, 2], [0, 50]], ["cat", "dog"], "x.png")
    axes = drawn[0].axes[0]
    assert [float(axes.images[0].norm(share)) for share in (0, 20, 50, 100)] == pytest.approx(
        [0, 0.2, 0.5, 1]
    )
    assert np.asarray(axes.images[0].get_array()).tolist() == [[80, 20], [0, 100]]
    assert {text.get_text(): text.get_position() for text in axes.texts} == {
        "8": (0, 0),
        "2": (1, 0),
        "50": (1, 1),
    }
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    plots.draw_confusion([[0, 0], [1, 1]], ["a", "b"], "x.png")
    assert drawn[1].axes[0].images[0].get_array().tolist() == [[0, 0], [50, 50]]


def test_large_matrices_carry_no_text_and_lose_no_confusion(drawn: list[Figure]) -> None:
    matrix = np.diag(np.full(1000, 50))
    matrix[3, 998] = 50
    for classes in (20, 21, 60, 61, 1000):
        plots.draw_confusion(matrix[:classes, :classes], [f"c{i}" for i in range(classes)], "x.png")
    axes = [figure.axes[0] for figure in drawn]
    assert [len(a.texts) for a in axes] == [20, 0, 0, 0, 0]
    assert [a.get_xlabel() for a in axes] == ["predicted class"] * 3 + [
        "predicted class (index)"
    ] * 2
    image = np.asarray(axes[-1].images[0].get_array())
    assert image.shape == (250, 250) and image[0, 249] == 50
    assert axes[-1].images[0].get_extent() == [-0.5, 999.5, 999.5, -0.5]


def test_an_empty_history_and_a_matrix_of_another_size_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match="no evaluated epoch"):
        plots.draw_curves([], tmp_path / "x.png")
    with pytest.raises(ReszooError, match=r"shape \(2, 2\) does not fit 3 class names"):
        plots.draw_confusion([[1, 0], [0, 1]], ["a", "b", "c"], tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


def test_any_name_can_be_drawn_in_both_files(tmp_path: Path) -> None:
    names = ["$x_{", "\N{CJK UNIFIED IDEOGRAPH-732B}" * 3, "%^\\frac{", "n" * 300]
    plots.draw_confusion(np.eye(4, dtype=int), names, tmp_path / "new" / "c.png", title="$a_{")
    plots.draw_curves(HISTORY, tmp_path / "h.png", title="$a_{", published=1, source="$b^{")
    assert imread(tmp_path / "new" / "c.png").std() > 0.05
    height, width, _ = imread(tmp_path / "h.png").shape
    assert 600 < height < width < 1700
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.png", "h.svg", "new"]
    assert (
        "$b^{: 1 %" in (tmp_path / "h.svg").read_text()
        and "$x_{" in (tmp_path / "new" / "c.svg").read_text()
    )


def test_a_figure_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "h.png").write_text("old")
    monkeypatch.setattr(plots, "render", full)
    with pytest.raises(OSError, match="No space left"):
        plots.draw_curves(HISTORY, tmp_path / "h.png")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_drawing_uses_neither_pyplot_nor_a_display(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams)\n"
        "from reszoo.evaluation import plots; plots.draw_confusion([[1]], ['a'], 'c.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules and 'tensorflow' not in sys.modules\n"
        "assert dict(matplotlib.rcParams) == before"
    )
    environment = os.environ | {"MPLBACKEND": "tkagg"}
    environment["PYTHONPATH"] = str(Path(plots.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
