"""The lines at the end of a run: what is said of unequal classes and published errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reszoo.config.model import Published
from reszoo.evaluation.run_summary import describe_result, error_rows
from reszoo.evaluation.scores import Scores


def scores(confusion: list[list[int]]) -> Scores:
    right, sizes = [confusion[i][i] for i in range(len(confusion))], [sum(row) for row in confusion]
    return Scores(
        examples=sum(sizes),
        top1=sum(right) / sum(sizes),
        top5=None,
        loss=1.0,
        calibration_error=0.125,
        per_class=[one / size if size else None for one, size in zip(right, sizes, strict=True)],
        precision=[],
        f1=[0.5, None, 1.0],
        confusion=confusion,
    )


@pytest.mark.parametrize(
    ("confusion", "rows"),
    [
        (
            [[90, 0], [10, 0]],
            {
                "test error": "10.00 %",
                "balanced accuracy": "50.00 %",
                "always 'cat'": "10.00 %",
                "macro F1": "75.00 %",
                "calibration error": "12.50 %",
            },
        ),
        ([[5, 5], [0, 10]], {"test error": "25.00 %"}),
    ],
)
def test_unequal_classes_are_not_summed_up_by_accuracy_alone(
    confusion: list[list[int]], rows: dict[str, str]
) -> None:
    run: Any = SimpleNamespace(
        meta={"parameters": 1, "seconds": 2.0},
        recipe=SimpleNamespace(published=None),
        history=[{"accuracy": 0.5}],
        path=Path("x"),
        class_names=("cat", "dog"),
    )
    lines = describe_result(run, scores(confusion))
    for name, value in rows.items():
        assert any(name in line and value in line for line in lines), name
    assert any("always" in line for line in lines) == ("always 'cat'" in rows)


def test_a_published_error_of_another_test_is_not_compared() -> None:
    published = Published(metric="error", value=3, source="me", test="10-crop")
    one, ten = (
        scores([[9, 1], [0, 10]]),
        dataclasses.replace(scores([[9, 1], [0, 10]]), test="10-crop"),
    )
    assert error_rows(None, one) == [("test error", "5.00 %", "")]
    assert error_rows(published, ten) == [("test error", "5.00 %", "3 % (error; me)")]
    assert error_rows(published, one) == [
        ("test error", "5.00 %", ""),
        ("test error, 10-crop", "not measured", "3 % (error; me)"),
    ]
