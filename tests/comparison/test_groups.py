"""Which runs are found, and which of them belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reszoo.comparison.groups import find_runs, group_runs
from reszoo.training.metrics import write_metrics
from tests.comparison.written import make_recipe, write_run


def test_runs_are_found_once_and_other_folders_are_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (1, 0):
        write_run(tmp_path / "series" / f"seed-{seed}", make_recipe(), 5.0, seed=seed)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes.txt").touch()
    (tmp_path / "series" / "seeds.json").touch()
    found = find_runs([*sorted(tmp_path.iterdir()), tmp_path / "series" / "seed-0"])
    assert [run.path.name for run in found] == ["seed-0", "seed-1"]
    assert capsys.readouterr().err == f"{tmp_path / 'notes'}: holds no run, skipped\n"


def test_recipes_differ_by_what_is_trained_not_by_seed_or_texts(tmp_path: Path) -> None:
    plain = make_recipe("a")
    others = [
        make_recipe("b"),  # the same but for its name
        make_recipe("a", schedule={"rate": 0.1}),
        make_recipe("a", schedule={"rate": 0.1}, model={"name": "plain8"}),
    ]
    for number, recipe in enumerate([plain, plain, *others]):
        write_run(tmp_path / str(number), recipe, 5.0 + number, seed=number)
    groups = group_runs(find_runs([tmp_path]))
    assert [[run.seed for run in group.runs] for group in groups] == [[0, 1, 2], [3], [4]]
    assert [group.settings for group in groups] == [
        {"model.name": "resnet8", "schedule.rate": "0.05"},
        {"model.name": "resnet8", "schedule.rate": "0.1"},
        {"model.name": "plain8", "schedule.rate": "0.1"},
    ]
    assert len({group.label for group in groups}) == 3
    assert groups[2].label == "a model.name=plain8 schedule.rate=0.1"


def test_how_a_run_is_carried_out_and_where_the_images_lie_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    carried_out = {"jit": True, "export": True, "evaluate_every": 2, "checkpoint_every": 10}
    elsewhere = {"name": f"folder:{tmp_path / 'images'}", "on_device": True}
    write_run(tmp_path / "0", make_recipe(), 5.0, seed=0)
    write_run(tmp_path / "1", make_recipe(train=carried_out, data=elsewhere), 6.0, seed=1)
    (group,) = group_runs(find_runs([tmp_path]))
    assert len(group.runs) == 2 and group.settings == {}
    for name, every in (("2", 1), ("3", 2)):  # the best of fewer evaluations is another
        train = {"select": "best", "evaluate_every": every}
        write_run(tmp_path / name, make_recipe(train=train), 5.0)
    settings = [group.settings for group in group_runs(find_runs([tmp_path]))]
    assert [each["train.evaluate_every"] for each in settings] == ["-", "1", "2"]


def test_runs_on_other_images_are_groups_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path / "0", make_recipe(), 5.0)
    write_run(tmp_path / "1", make_recipe(), 6.0, digest="b")
    found = [group.settings for group in group_runs(find_runs([tmp_path]))]
    assert [list(settings) for settings in found] == [["images"], ["images"]]
    assert found[0] != found[1]
    write_run(tmp_path / "2", make_recipe(data={"name": "synthetic"}), 7.0, digest="c")
    names = [group.settings.get("data.name") for group in group_runs(find_runs([tmp_path]))]
    assert names == ["digits", "digits", "synthetic"]


def test_a_curve_has_the_epochs_that_all_runs_evaluated(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / str(seed), make_recipe(), 6.0, seed=seed) for seed in (0, 1)]
    runs += [write_run(tmp_path / "2", make_recipe(), None, seed=2)]  # stopped after epoch 1
    write_metrics(runs[1].path, [row for row in runs[1].history if row["epoch"] != 2])
    (group,) = group_runs(runs)
    epochs, errors = group.curve("val_accuracy")
    assert epochs == [1, 3] and np.isfinite(errors[:2]).all()
    assert np.isnan(errors[2]).tolist() == [False, True]


def test_runs_of_one_seed_count_once(tmp_path: Path) -> None:
    for number, (seed, error) in enumerate([(0, 8.0), (0, 9.0), (1, 7.0), (2, None)]):
        write_run(tmp_path / str(number), make_recipe(), error, seed=seed)
    (group,) = group_runs(find_runs([tmp_path]))
    assert group.values("error") == {0: pytest.approx(8.5), 1: pytest.approx(7.0)}
    epochs, errors = group.curve("val_accuracy")
    assert epochs == [1, 2, 3] and np.shape(errors) == (4, 3)
    assert errors[2] == pytest.approx([21.0, 10.5, 7.0]) and np.isnan(errors[3][1:]).all()
