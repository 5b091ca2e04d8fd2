"""The lines around a run: what is said of its data at the start and of unequal classes at the end."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from reszoo.config.data import DataConfig, NoCrop
from reszoo.config.load import load_recipe
from reszoo.config.model import Published
from reszoo.data.dataset import ArraySplit, ImageDataset
from reszoo.data.normalization import unnormalized
from reszoo.data.pipeline import Pipeline
from reszoo.evaluation.run_summary import describe_result, describe_start, error_rows
from reszoo.evaluation.scores import Scores


def of_counts(cats: int, dogs: int) -> Pipeline:
    labels = np.array([0] * cats + [1] * dogs, np.int32)
    part = ArraySplit(np.zeros((cats + dogs, 8, 8, 1), np.uint8), labels)
    images = ImageDataset("pets", ("cat", "dog"), {"train": part}, ("a/b.jpg",), {"HEIC": 3})
    return Pipeline(
        images, unnormalized((8, 8), 1, DataConfig(name="digits")), NoCrop(), batch_size=2, seed=0
    )


def test_a_run_opens_with_its_class_counts_and_files_not_read() -> None:
    run = SimpleNamespace(path=Path("x"))
    lines = describe_start(load_recipe("quickstart"), of_counts(30, 6), run, ["cpu"], 0, "resnet20")  # type: ignore[arg-type]
    assert "train images per class: cat 30, dog 6" in lines
    assert "files not read: 3 HEIC" in lines
    assert "skipped, cannot be decoded: a/b.jpg" in lines
    assert [line for line in lines if line.startswith("warning")] == [
        "warning: the classes are imbalanced: cat has 5 times the training images of dog (30 and 6); 83.3 % of all are cat; try train.class_weights=balanced or data.sampler=balanced"
    ]
    changes = {"train.class_weights": {"cat": 0.6, "dog": 3.0}, "data.sampler": "balanced"}
    lines = describe_start(
        load_recipe("quickstart", changes), of_counts(30, 6), run, ["cpu"], 0, "resnet20"
    )  # type: ignore[arg-type]
    (at,) = [at for at, line in enumerate(lines) if line.startswith("warning")]
    assert lines[at].endswith("% of all are cat")
    assert lines[at + 1 : at + 3] == [
        "class weights in the loss: cat 0.6, dog 3",
        "an epoch shows as many images of each class",
    ]


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
