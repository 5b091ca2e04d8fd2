"""The lines at the start of a run: what is said of its data."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np

from reszoo.config.data import DataConfig, NoCrop
from reszoo.config.load import load_recipe
from reszoo.data.dataset import ArraySplit, ImageDataset
from reszoo.data.normalization import unnormalized
from reszoo.data.pipeline import Pipeline
from reszoo.training.start_summary import describe_start


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
