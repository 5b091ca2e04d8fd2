"""Resuming with the same data wherever it lies, and what is rejected before training."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import reszoo
from reszoo.cli.main import main
from reszoo.config.recipe import Recipe
from reszoo.config.resolve import resolve_recipe
from reszoo.errors import ChangedDataError, ReszooError
from reszoo.trainer import Trainer, train
from reszoo.training import checkpoint, start
from reszoo.training.data_location import missing, relocate
from reszoo.training.run import Run

TINY: dict[str, Any] = {"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8}


def write_images(
    root: Path, classes: tuple[str, ...] = ("ant", "bee", "cow"), count: int = 10
) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            repaint(root / name / f"{index:02d}.png", 60 * number + index)
    return root


def recipe_for(data: Path, **tables: dict[str, Any]) -> Recipe:
    base: dict[str, dict[str, Any]] = {
        "model": TINY,
        "data": {"name": f"folder:{data}", "image_size": [8, 8], "normalize": "unit"},
        "train": {"steps": 4, "batch_size": 8, "checkpoint_every": 1, "export": False},
        "schedule": {"kind": "constant", "rate": 0.05},
    }
    return Recipe(name="tiny", **{key: base[key] | tables.get(key, {}) for key in base})


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos` and `run`, which was stopped at step 2 of 4."""
    root = tmp_path_factory.mktemp("stopped") / "work"
    write_images(root / "photos")
    begun = Trainer.prepare(recipe_for(root / "photos"), run_dir=root / "run", quiet=True)
    assert not begun.fit(2)
    return root


@pytest.fixture
def stopped(master: Path) -> Path:
    """The same, to be changed; at the same path, because the run names its data by it."""
    kept = master.parent / "kept"
    if not kept.exists():
        shutil.copytree(master, kept)
    shutil.rmtree(master)
    shutil.copytree(kept, master)
    return master


def resume(root: Path, **more: Any) -> list[int]:
    """Resume the run without a step; return the steps of its checkpoints."""
    begun = Trainer.prepare(
        Run(root / "run").recipe, run_dir=root / "run", resume=True, quiet=True, **more
    )
    assert begun.loop.step == 2
    return [int(path.stem[5:]) for path in checkpoint.steps(root / "run" / "checkpoints")]


def snapshot(root: Path) -> dict[str, bytes]:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in paths}


def repaint(path: Path, value: int) -> None:
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path, compress_level=0)


def test_a_renamed_class_is_rejected_with_one_line_and_status_2(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = Run(stopped / "run").meta["data"]["fingerprint"]
    assert set(found["splits"]) == {"train", "test"}
    assert found["compares"] == "file names, sizes, contents"
    (stopped / "photos" / "ant").rename(stopped / "photos" / "zebra_ant")
    before, run_dir = snapshot(stopped / "run"), str(stopped / "run")
    assert main(["train", "--resume", "--run-dir", run_dir]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "the class names differ: missing 'ant'; new 'zebra_ant'" in line
    assert f"resume with: reszoo train --resume --run-dir {run_dir} --data folder:PATH" in line
    assert snapshot(stopped / "run") == before


def test_other_images_are_rejected(stopped: Path) -> None:
    """By their digests; a run of version 0.1 recorded none, and has its counts compared."""
    photos, record = stopped / "photos" / "ant", stopped / "run" / "run.json"
    meta = json.loads(record.read_text())
    del meta["data"]["fingerprint"]
    record.write_text(json.dumps(meta))
    shutil.copy(photos / "00.png", photos / "99.png")
    with pytest.raises(ChangedDataError, match="train had 24 and has 25"):
        resume(stopped)
    (photos / "99.png").unlink()
    resume(stopped)
    assert Run(stopped / "run").meta["data"]["fingerprint"]["splits"]  # recorded from now on
    repaint(photos / "03.png", 255)
    for more in ({}, {"data": f"folder:{stopped / 'photos'}"}):
        with pytest.raises(ChangedDataError, match=r"the content of \w+ differs"):
            resume(stopped, **more)


def test_moved_images_are_found_with_data_and_their_location_is_recorded(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved, run_dir = stopped / "photos2", str(stopped / "run")
    (stopped / "photos").rename(moved)
    command = f"reszoo train --resume --run-dir {run_dir} --data folder:"
    for arguments, line in (
        ([], "photos does not exist; if the same images lie elsewhere now, resume with: "),
        (["--set", f"data.name=folder:{moved}"], f"resume with: {command}{moved}"),
    ):
        assert main(["train", "--resume", "--run-dir", run_dir, *arguments]) == 2
        assert line in capsys.readouterr().err
    assert resume(stopped, data=str(moved)) == [1, 2]  # with or without the prefix
    run = Run(stopped / "run")
    assert run.recipe.data.name == run.meta["data"]["name"] == f"folder:{moved}"
    steps = [(each["from"], each["to"]) for each in run.meta["moved"]]
    assert steps == [(f"folder:{stopped / 'photos'}", f"folder:{moved}")]
    assert run.open_pipeline().info.examples["test"] == 6
    done = train(run.recipe, run_dir=run.path, resume=True, quiet=True)
    assert done.finished and run.meta["moved"]  # the new location is the run's own


def test_other_data_is_rejected_though_it_is_named(stopped: Path) -> None:
    write_images(stopped / "photos2", ("ant", "bee", "dog"))
    with pytest.raises(ChangedDataError, match="missing 'cow'; new 'dog'"):
        resume(stopped, data=f"folder:{stopped / 'photos2'}")
    with pytest.raises(ReszooError):
        resume(stopped, data="digits")
    assert Run(stopped / "run").recipe.data.name == f"folder:{stopped / 'photos'}"


def test_a_run_that_was_trained_on_jax_does_not_resume(
    stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(stopped / "run")
    run.write_meta(backend="jax")
    before = snapshot(run.path)
    line = r"was trained on jax; .* Finish it with reszoo 0\.1, or train it anew: "
    with pytest.raises(ReszooError, match=line):
        resume(stopped)
    assert snapshot(run.path) == before
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    line = r"^KERAS_BACKEND: jax is invalid; .* Example: KERAS_BACKEND=tensorflow$"
    with pytest.raises(ReszooError, match=line):
        train("quickstart", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_names_the_images_of_a_new_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `data.name` does; the size that is found holds for the run, even if it were found anew."""
    photos = write_images(tmp_path / "photos")
    short = ["train.steps=1", "train.batch_size=8", "train.export=false", "model.widths=[4]"]
    short += ["model.depths=[1]", "model.stem_width=4", "schedule.warmup=0"]
    monkeypatch.chdir(tmp_path)
    assert main(["train", "folder", "--data", "photos", "--run-dir", "run", "--set", *short]) == 0
    assert "image size: 8x8, found from images of 8 x 8; data.image" in capsys.readouterr().out
    run = Run(tmp_path / "run")
    assert run.recipe.data.name == f"folder:{photos}" and run.recipe.data.image_size is None
    assert run.meta["data"]["examples"] == {"train": 19, "validation": 5, "test": 6}
    assert run.meta["data"]["found_size"]
    monkeypatch.setattr("reszoo.data.loading.find_shape", lambda *_: ((9, 9, 1), ""))
    assert run.open_pipeline().info.input_shape == (8, 8, 1)
    train(run.recipe, run_dir=run.path, resume=True, quiet=True)
    recipe = recipe_for(tmp_path / "other", train={"steps": 1})
    with pytest.raises(ReszooError, match=r"no folder '/.*/missing'"):
        train(recipe, data=str(tmp_path / "missing"), run_dir=tmp_path / "none", quiet=True)


def test_the_location_of_prepared_datasets_is_given_as_a_folder(tmp_path: Path) -> None:
    data = reszoo.load_recipe("cifar10_resnet20_cpu", ["data.dir=/gone"]).data
    assert missing(data) == "data.dir: /gone holds no prepared cifar10"
    assert relocate(data, str(tmp_path)).dir == str(tmp_path)
    assert relocate(data, "cifar10") == data
    with pytest.raises(ReszooError, match="expected the folder in which cifar10 is prepared now"):
        relocate(data, str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("table", "gone", "new"),
    [
        ("model", {"weights": "/gone/a.weights.h5"}, {"weights": "/new/a.weights.h5"}),
        ("train", {"grow_from": "/gone/run"}, {"grow_from": "/new/run"}),
    ],
)
def test_the_initial_weights_are_not_needed_once_a_checkpoint_exists(
    table: str, gone: dict[str, Any], new: dict[str, Any], stopped: Path
) -> None:
    run = Run(stopped / "run")
    before, elsewhere = (recipe_for(stopped / "photos", **{table: each}) for each in (gone, new))
    (run.path / "recipe.toml").write_text(before.to_toml())
    begun = Trainer.prepare(elsewhere, run_dir=run.path, resume=True, quiet=True)
    assert begun.loop.step == 2
    with pytest.raises(ReszooError, match=rf"another \[{table}\]"):
        run.reject_other(elsewhere)
    with pytest.raises(ReszooError, match="/new/"):
        start.check_start(elsewhere)


def test_evaluate_and_export_reject_changed_data_and_take_other_data(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from reszoo.exporting.export import export

    photos = stopped / "photos"
    run = train(Run(stopped / "run").recipe, run_dir=stopped / "run", resume=True, quiet=True).run
    (photos / "ant" / "00.png").rename(photos / "ant" / "0x.png")
    scores = (run.path / "test.json").read_text()
    assert main(["evaluate", str(run.path), "--devices", "cpu"]) == 2
    line = " differs (file names, sizes, contents); to use other images, give data (--data)"
    assert line in capsys.readouterr().err
    with pytest.raises(ChangedDataError, match="differs"):
        export(run, stopped / "served")
    assert not (stopped / "served").exists()
    own = reszoo.evaluate(run, data=str(photos), devices="cpu")
    assert own.examples == 6  # the same folder, named on purpose
    assert (run.path / "test.json").read_text() == scores  # kept: those images are other data
    shutil.rmtree(photos)
    line = r"photos does not exist; to use other images.* --data folder:PATH$"
    with pytest.raises(ReszooError, match=line):
        reszoo.evaluate(run, devices="cpu")


# Before training starts


def rejection(recipe: Recipe, run_dir: Path) -> str:
    with pytest.raises(ReszooError) as caught:
        train(recipe, run_dir=run_dir, quiet=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_locations_that_cannot_hold_a_run_are_rejected(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos")
    recipe = recipe_for(photos)
    assert "expected a folder outside the data" in rejection(recipe, photos / "runs" / "a")
    assert not (photos / "runs").exists()
    (tmp_path / "file").write_text("")
    assert "file is not a folder" in rejection(recipe, tmp_path / "file" / "run")
    assert "expected a path in UTF-8" in rejection(recipe, tmp_path / "caf\udce9")
    with pytest.raises(ReszooError, match="data.name"):
        resolve_recipe(recipe_for(tmp_path / "caf\udce9"))


def test_class_names_that_an_export_cannot_hold_are_rejected_at_once(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", ("a", "b\u2028c"))
    line = rejection(recipe_for(photos, train={"export": True}), tmp_path / "run")
    assert "line break" in line and not (tmp_path / "run").exists()


LARGER = {"depths": [1, 1, 1], "widths": [16, 32, 64], "stem_width": 16}
"""The fields of resnet8, whose weights outweigh the names in its checkpoints."""


def test_the_space_of_a_run_is_estimated_from_its_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that are kept and one more, and the model three times."""
    recipe = recipe_for(write_images(tmp_path / "photos"), model=LARGER)
    with monkeypatch.context() as patch:
        usage = SimpleNamespace(total=10**9, used=10**9 - 1000, free=1000)
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        assert "has 0 MB left; expected at least 3 MB" in rejection(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    begun = Trainer.prepare(recipe, run_dir=tmp_path / "run", quiet=True)
    begun.fit(2)
    needed = start.stored_bytes(begun.loop.model, begun.loop.stepper)
    weights = sum(array.nbytes for array in begun.loop.model.get_weights())
    sizes = [path.stat().st_size for path in (tmp_path / "run" / "checkpoints").glob("step-*.npz")]
    assert len(sizes) == 2 and needed == pytest.approx(sum(sizes) * 3 / 2 + 3 * weights, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp [lr=0.1]", "a\\b", 'it\'s "50%" {x}\nnew*?'])
def test_a_run_is_trained_resumed_and_exported_under_any_name(name: str, tmp_path: Path) -> None:
    photos = write_images(tmp_path / name / "photos")
    folder = tmp_path / name / "run"
    recipe = recipe_for(photos, train={"export": True})
    begun = Trainer.prepare(recipe, run_dir=folder, quiet=True)
    begun.fit(2)
    assert train(recipe, run_dir=folder, resume=True, quiet=True).finished
    assert Run(folder).meta["status"] == "finished"
    assert (folder / "export" / "1" / "saved_model.pb").is_file()
    assert os.listdir(folder / "tensorboard")
    from reszoo.serving.servable import Servable

    assert "serving_default" in Servable(folder / "export" / "1").signatures
    plain = tmp_path / "plain"
    shutil.copytree(folder / "export", plain)
    assert "serving_default" in tf.saved_model.load(str(plain / "1")).signatures
