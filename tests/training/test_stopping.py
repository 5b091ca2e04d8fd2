"""Training ends early by its history alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from reszoo.config.training import TrainConfig
from reszoo.errors import ReszooError
from reszoo.trainer import Trainer
from reszoo.training.stopping import is_out_of_patience
from tests.training.test_loop import make_recipe


@pytest.mark.parametrize(
    ("key", "scores", "patience", "expected"),
    [
        ("accuracy", [0.1, 0.3, 0.2], 2, False),
        ("accuracy", [0.1, 0.3, 0.2, 0.3], 2, True),  # as good is not better
        ("accuracy", [0.1, 0.3, 0.2, 0.31], 2, False),
        ("accuracy", [0.3, 0.2], 1, True),
        ("accuracy", [0.3], 1, False),
        ("accuracy", [0.3, 0.2, 0.1], 0, False),
        ("loss", [0.3, 0.2, 0.1], 1, False),
        ("loss", [0.1, 0.2, 0.05, 0.2, 0.3], 2, True),
    ],
)
def test_patience_counts_rows_since_the_best(
    key: str, scores: list[float], patience: int, expected: bool
) -> None:
    given = {"patience_on": key} if patience else {}
    train = TrainConfig(batch_size=1, steps=1, patience=patience, **given)  # type: ignore[arg-type]
    history = [{"val_accuracy": 0.5, "val_loss": 0.5, f"val_{key}": score} for score in scores]
    assert is_out_of_patience(history, train) == expected


def test_a_run_ends_when_its_score_stands_still(tmp_path: Path) -> None:
    """After the second of six epochs, whose weights are those of the first; also when resumed."""
    recipe = make_recipe(schedule={"kind": "constant", "rate": 1e-12}, epochs=6, patience=1)
    trainer = Trainer.prepare(recipe, run_dir=tmp_path / "run", quiet=True)
    assert trainer.fit()
    assert [row["epoch"] for row in trainer.run.history] == [1, 2]
    line = "training ends early: 1 evaluations without a better validation accuracy"
    assert line in (trainer.run.path / "train.log").read_text()
    again = Trainer.prepare(recipe, run_dir=tmp_path / "run", resume=True, quiet=True)
    assert again.loop.complete and again.loop.step == 8
    without = recipe.replace(data=recipe.data.replace(validation=0))
    with pytest.raises(ReszooError, match=r"train.patience: 1 is invalid; expected 0, because dig"):
        Trainer.prepare(without, run_dir=tmp_path / "none", quiet=True)
