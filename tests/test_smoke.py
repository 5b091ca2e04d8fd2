"""A run of two steps from the command line to a prediction. `pytest -m smoke` runs this and others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import reszoo
from reszoo.cli.main import main


@pytest.mark.smoke
def test_two_steps_give_a_run_that_can_predict(tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes = ["model.name=resnet8", "train.steps=2", "train.batch_size=32", "data.examples=64"]
    changes += ["data.validation=32", "schedule.warmup=0", "train.export=false"]
    assert main(["train", "quickstart", "--run-dir", str(run), "--set", *changes]) == 0
    opened = reszoo.Run.open(run)
    assert opened.meta["status"] == "finished"
    assert opened.history[-1]["step"] == 2
    (prediction,) = reszoo.predict(run, [np.zeros((8, 8, 1), np.uint8)], top=10)
    assert sorted(prediction.labels) == sorted(opened.class_names)
    assert sum(prediction.probabilities) == pytest.approx(1)
