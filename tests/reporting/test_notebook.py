"""What a notebook shows of results, and progress in the output of a cell."""

from __future__ import annotations

import base64
import io
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import reszoo
from reszoo.evaluation.run_summary import Result
from reszoo.evaluation.scores import Scores
from reszoo.reporting.notebook import html_image, html_table, in_notebook
from reszoo.reporting.reporter import Reporter


def cells(html: str) -> list[list[str]]:
    """Return the text of each row's cells."""
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    return [re.findall(r"<t[hd]>(.*?)</t[hd]>", row) for row in rows]


def test_text_of_a_table_is_escaped() -> None:
    html = html_table(("<b>", 1), [("a & b", '<img src="x">')], title="<script>")
    assert re.findall(r"<(\w+)", html) == ["table", "caption", "tr", "th", "th", "tr", "th", "td"]
    assert cells(html) == [
        ["&lt;b&gt;", "1"],
        ["a &amp; b", "&lt;img src=&quot;x&quot;&gt;"],
    ]


def test_a_count_shows_its_layers_and_their_sum() -> None:
    rows = cells(reszoo.count("resnet20")._repr_html_())
    assert [row[0] for row in rows[1:]] == ["stem", "stage1", "stage2", "stage3", "head", "all"]
    numbers = [[int(cell.replace(",", "")) for cell in row[2:]] for row in rows[1:]]
    assert np.sum(numbers[:-1], axis=0).tolist() == numbers[-1]
    assert len(repr(reszoo.count("resnet1202"))) < 200  # without its thousands of layers


def test_scores_are_shown_in_percent() -> None:
    scores = Scores(
        examples=8,
        top1=0.75,
        top5=0.875,
        loss=0.5,
        calibration_error=0.1,
        per_class=[1.0, 0.5],
        precision=[4 / 6, 1.0],
        f1=[0.8, 4 / 6],
        class_names=("cat", "dog"),
        confusion=[[4, 0], [2, 2]],
    )
    expected = [["images", "8"], ["top-1 error", "25.00 %"], ["top-5 error", "12.50 %"]]
    expected += [["balanced accuracy", "75.00 %"], ["macro F1", "73.33 %"]]
    expected += [["calibration error", "10.00 %"], ["loss", "0.5000"]]
    expected += [["class", "precision", "recall", "F1"]]
    expected += [["cat", "66.67 %", "100.00 %", "80.00 %"]]
    expected += [["dog", "100.00 %", "50.00 %", "66.67 %"]]
    assert cells(scores._repr_html_())[1:] == expected
    few = replace(scores, top5=None, not_finite=2)
    assert ["images with non-finite logits, counted as wrong", "2"] in cells(few._repr_html_())
    assert "top-5" not in few._repr_html_()


def test_a_list_of_weights_is_a_table() -> None:
    weights = reszoo.list_weights("resnet50")
    rows = cells(weights._repr_html_())
    assert rows[0] == ["model", "weights", "data", "image", "top-1", "top-5", "license"]
    assert [row[1] for row in rows[1:]] == [each.tag for each in weights]


def test_a_result_shows_scores_and_curves(digits_run: Path) -> None:
    run = reszoo.Run.open(digits_run)
    result = Result(run, reszoo.evaluate(run, out=digits_run.parent / "scores"))
    html = result._repr_html_()
    assert ["test error", f"{result.test and result.test.error:.2f} %", ""] in cells(html)
    (data,) = re.findall(r'src="data:image/png;base64,([^"]*)"', html)
    assert len(data) < 100_000
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.width == 900
    stopped = Result(reszoo.Run("<b>"), None)._repr_html_()
    assert cells(stopped)[1] == ["&lt;b&gt;", "stopped"]


def test_an_image_keeps_its_colors(tmp_path: Path) -> None:
    Image.new("RGB", (30, 20), (200, 30, 10)).save(tmp_path / "red.png")
    html = html_image(tmp_path / "red.png", 'a "red" image')
    assert 'alt="a &quot;red&quot; image"' in html
    data = base64.b64decode(re.findall(r"base64,([^\"]*)", html)[0])
    with Image.open(io.BytesIO(data)) as image:
        pixel = np.array(image.convert("RGB"))[0, 0].astype(int)
    assert np.abs(pixel - [200, 30, 10]).max() < 3


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """What a stand-in for a notebook's kernel shows, in order."""
    contents: list[dict[str, str]] = []

    def display(data: dict[str, str], **options: Any) -> Any:
        assert options == {"raw": True, "display_id": True}
        contents.append(data)
        return SimpleNamespace(update=lambda data, raw: contents.append(data))

    ipython, module = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: SimpleNamespace(kernel=object())  # type: ignore[attr-defined]
    module.display = display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return contents


def test_a_cell_shows_one_bar_that_moves(
    shown: list[dict[str, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_notebook()
    reporter = Reporter()
    reporter.start_bar(10, 3)
    reporter.update_bar(4, lambda: pytest.fail("it was updated just now"))
    reporter.line("a line")
    reporter.update_bar(10, lambda: "loss <1>")
    reporter.stop_bar()
    assert [each["text/plain"] for each in shown] == ["3/10", "10/10  loss <1>"]
    assert '<progress value="10" max="10">' in shown[1]["text/html"]
    assert "loss &lt;1&gt;" in shown[1]["text/html"]
    assert capsys.readouterr().out == "a line\n"


def test_a_quiet_cell_shows_nothing(shown: list[dict[str, str]]) -> None:
    reporter = Reporter(quiet=True)
    reporter.start_bar(1)
    reporter.update_bar(1, str)
    assert not shown


def test_a_shell_of_ipython_is_not_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in (None, SimpleNamespace()):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda s=shell: s))
        assert not in_notebook()
