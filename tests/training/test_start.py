"""Resuming: with the same data wherever it lies, never with other data; and what is refused before training starts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
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
from reszoo.training.data_location import missing, relocated
from reszoo.training.run import Run

TINY: dict[str, Any] = {"name": "resnet8", "depths": [1], "widths": [8], "stem_width": 8}


def write_images(
    root: Path, classes: tuple[str, ...] = ("ant", "bee", "cow"), count: int = 10
) -> Path:
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            image = np.full((8, 8, 3), 60 * number + index, np.uint8)
            Image.fromarray(image).save(root / name / f"{index:02d}.png", compress_level=0)
    return root


def recipe_for(data: Path, **more: Any) -> Recipe:
    tables = {
        "name": "tiny",
        "model": {**TINY, **more.pop("model", {})},
        "data": {
            "name": f"folder:{data}",
            "image_size": [8, 8],
            "normalize": "unit",
            **more.pop("data", {}),
        },
        "train": {
            "steps": 4,
            "batch_size": 8,
            "checkpoint_every": 1,
            "export": False,
            **more.pop("train", {}),
        },
        "schedule": {"kind": "constant", "rate": 0.05},
    }
    return Recipe(**(tables | more))


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
    """The same, to be changed; it lies at the same place, because the run names its data by its path."""
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
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_run_json_records_the_fingerprint(stopped: Path) -> None:
    found = Run(stopped / "run").meta["data"]["fingerprint"]
    assert (
        set(found["splits"]) == {"train", "test"}
        and found["compares"] == "file names, sizes, contents"
    )


def test_a_renamed_class_is_refused_with_one_line_and_status_2(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stopped / "photos" / "ant").rename(stopped / "photos" / "zebra_ant")
    before = snapshot(stopped / "run")
    assert main(["train", "--resume", "--run-dir", str(stopped / "run")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "the class names differ: missing 'ant'; new 'zebra_ant'" in said
    assert (
        f"resume with: reszoo train --resume --run-dir {stopped / 'run'} --data folder:PATH" in said
    )
    assert snapshot(stopped / "run") == before


@pytest.mark.parametrize("record", ["fingerprint", "version 0.1"])
def test_other_images_are_refused(record: str, stopped: Path) -> None:
    meta = json.loads((stopped / "run" / "run.json").read_text())
    if record == "version 0.1":
        del meta["data"]["fingerprint"]
        (stopped / "run" / "run.json").write_text(json.dumps(meta))
        shutil.copy(stopped / "photos" / "ant" / "00.png", stopped / "photos" / "ant" / "99.png")
        with pytest.raises(ChangedDataError, match="train had 24 and has 25"):
            resume(stopped)
        (stopped / "photos" / "ant" / "99.png").unlink()
        resume(stopped)
        assert Run(stopped / "run").meta["data"]["fingerprint"]["splits"], "recorded from now on"
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(
        stopped / "photos" / "ant" / "03.png", compress_level=0
    )
    with pytest.raises(ChangedDataError, match=r"the content of \w+ differs"):
        resume(stopped)
    with pytest.raises(ChangedDataError, match=r"the content of \w+ differs"):
        resume(stopped, data=f"folder:{stopped / 'photos'}")


def test_moved_images_are_found_with_data_and_their_place_is_recorded(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = stopped / "photos2"
    (stopped / "photos").rename(moved)
    run_dir = str(stopped / "run")
    assert main(["train", "--resume", "--run-dir", run_dir]) == 2
    assert (
        "photos does not exist; if the same images lie elsewhere now, resume with: "
        in capsys.readouterr().err
    )
    assert (
        main(["train", "--resume", "--run-dir", run_dir, "--set", f"data.name=folder:{moved}"]) == 2
    )
    advice = f"resume with: reszoo train --resume --run-dir {run_dir} --data folder:{moved}"
    assert advice in capsys.readouterr().err
    assert main(["train", "--resume", "--run-dir", run_dir, "--data", str(moved)]) == 2
    assert f"expected folder:PATH. Example: --data folder:{moved}" in capsys.readouterr().err
    assert resume(stopped, data=f"folder:{moved}") == [1, 2]
    run = Run(stopped / "run")
    assert run.recipe.data.name == run.meta["data"]["name"] == f"folder:{moved}"
    assert [(one["from"], one["to"]) for one in run.meta["moved"]] == [
        (f"folder:{stopped / 'photos'}", f"folder:{moved}")
    ]
    assert resume(stopped) == [1, 2], "the new place is the run's own"
    assert run.open_pipeline().info.examples["test"] == 6
    done = train(run.recipe, run_dir=run.path, resume=True, quiet=True)
    assert done.finished and run.meta["moved"], "it ends, and keeps what was recorded"


def test_other_data_is_refused_though_it_is_named(stopped: Path) -> None:
    write_images(stopped / "photos2", ("ant", "bee", "dog"))
    with pytest.raises(ChangedDataError, match="missing 'cow'; new 'dog'"):
        resume(stopped, data=f"folder:{stopped / 'photos2'}")
    with pytest.raises(ReszooError):
        resume(stopped, data="digits")
    assert Run(stopped / "run").recipe.data.name == f"folder:{stopped / 'photos'}"


def test_a_run_that_was_trained_on_jax_does_not_resume(stopped: Path) -> None:
    run = Run(stopped / "run")
    run.write_meta(backend="jax")
    before = snapshot(run.path)
    with pytest.raises(
        ReszooError, match=r"was trained on jax; .* Finish it with reszoo 0\.1, or train it anew: "
    ):
        resume(stopped)
    assert snapshot(run.path) == before


def test_another_backend_is_an_error_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.config, "backend", lambda: "jax")
    with pytest.raises(
        ReszooError, match=r"^KERAS_BACKEND: jax is invalid; .* Example: KERAS_BACKEND=tensorflow$"
    ):
        train("quickstart", run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_is_for_resuming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "quickstart", "--data", "folder:my photos"]) == 2
    assert "For a new run: --set 'data.name=folder:my photos'" in capsys.readouterr().err
    with pytest.raises(ReszooError, match="For a new run: --set data.name=digits"):
        train("quickstart", data="digits", run_dir=tmp_path / "run")


def test_the_place_of_prepared_datasets_is_given_as_a_folder(tmp_path: Path) -> None:
    data = reszoo.load_recipe("cifar10_resnet20_cpu", ["data.dir=/gone"]).data
    assert missing(data) == "data.dir: /gone holds no prepared cifar10"
    assert (
        relocated(data, str(tmp_path)).dir == str(tmp_path) and relocated(data, "cifar10") == data
    )
    with pytest.raises(ReszooError, match="expected the folder in which cifar10 is prepared now"):
        relocated(data, str(tmp_path / "nothing"))


def test_what_training_started_from_is_not_needed_once_there_is_a_checkpoint(stopped: Path) -> None:
    """The file of `model.weights` or the run of `train.grow_from` may be gone, or lie elsewhere."""
    run = Run(stopped / "run")
    for change, other in (
        ({"model": {**TINY, "weights": "/gone/a.weights.h5"}}, {"weights": "/new/a.weights.h5"}),
        (
            {"train": {**run.recipe.to_dict()["train"], "grow_from": "/gone/run"}},
            {"grow_from": "/new/run"},
        ),
    ):
        tables = run.recipe.to_dict() | change
        (run.path / "recipe.toml").write_text(Recipe(**tables).to_toml())
        assert resume(stopped) == [1, 2]
        ((table, fields),) = change.items()
        elsewhere = Recipe(**(tables | {table: {**fields, **other}}))
        begun = Trainer.prepare(elsewhere, run_dir=run.path, resume=True, quiet=True)
        assert begun.loop.step == 2
        with pytest.raises(ReszooError, match=rf"another \[{table}\]"):
            run.refuse_other(elsewhere)
        (run.path / "recipe.toml").write_text(
            Recipe(**(tables | {table: {**fields, **other}})).to_toml()
        )
        with pytest.raises(ReszooError, match="/new/"):
            start.check_start(elsewhere)
        (run.path / "recipe.toml").write_text(recipe_for(stopped / "photos").to_toml())


def test_evaluate_and_export_refuse_changed_data_and_take_other_data(
    stopped: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from reszoo.exporting.export import export

    run = train(Run(stopped / "run").recipe, run_dir=stopped / "run", resume=True, quiet=True).run
    own = f"folder:{stopped / 'photos'}"
    (stopped / "photos" / "ant" / "00.png").rename(stopped / "photos" / "ant" / "0x.png")
    scores = (run.path / "test.json").read_text()
    assert main(["evaluate", str(run.path), "--devices", "cpu"]) == 2
    said = capsys.readouterr().err
    assert " differs (file names, sizes, contents); to use other images, give data (--data)" in said
    with pytest.raises(ChangedDataError, match="differs"):
        export(run, stopped / "served")
    assert not (stopped / "served").exists() and (run.path / "test.json").read_text() == scores
    assert reszoo.evaluate(run, data=own, devices="cpu").examples == 6, (
        "the same folder, named on purpose"
    )
    assert (run.path / "test.json").read_text() == scores, "kept: those images are other data"
    write_images(stopped / "photos2", count=20)
    assert reszoo.evaluate(run, data=f"folder:{stopped / 'photos2'}", devices="cpu").examples == 12
    shutil.rmtree(stopped / "photos")
    with pytest.raises(
        ReszooError, match=r"photos does not exist; to use other images.* --data folder:PATH$"
    ):
        reszoo.evaluate(run, devices="cpu")


# Before training starts


def refusal(recipe: Recipe, run_dir: Path) -> str:
    with pytest.raises(ReszooError) as caught:
        train(recipe, run_dir=run_dir, quiet=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_inside_its_data_is_refused(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos")
    assert "expected a folder outside the data" in refusal(
        recipe_for(photos), photos / "runs" / "a"
    )
    assert not (photos / "runs").exists()


def test_places_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    assert "file is not a folder" in refusal(recipe_for(photos), tmp_path / "file" / "run")
    assert "expected a path in UTF-8" in refusal(recipe_for(photos), tmp_path / "caf\udce9")
    with pytest.raises(ReszooError, match="data.name"):
        resolve_recipe(recipe_for(tmp_path / "caf\udce9"))


def test_class_names_that_an_export_cannot_hold_are_refused_at_once(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", ("a", "b\u2028c"))
    assert "line break" in refusal(recipe_for(photos, train={"export": True}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


LARGER = {"depths": [1, 1, 1], "widths": [16, 32, 64], "stem_width": 16}
"""The fields of resnet8, whose weights outweigh the names in its checkpoints."""


def test_the_space_of_a_run_is_estimated_from_its_checkpoints(tmp_path: Path) -> None:
    """Those that are kept and one more, and the model three times."""
    recipe = recipe_for(write_images(tmp_path / "photos"), model=LARGER)
    begun = Trainer.prepare(recipe, run_dir=tmp_path / "run", quiet=True)
    begun.fit(2)
    needed = start.stored_bytes(begun.loop.model, begun.loop.stepper)
    weights = sum(array.nbytes for array in begun.loop.model.get_weights())
    sizes = [path.stat().st_size for path in (tmp_path / "run" / "checkpoints").glob("step-*.npz")]
    assert len(sizes) == 2 and needed == pytest.approx(sum(sizes) * 3 / 2 + 3 * weights, rel=0.1)


def test_too_little_space_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_images(tmp_path / "photos")
    usage: Any = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert "has 0 MB left; expected at least 3 MB" in refusal(
        recipe_for(photos, model=LARGER), tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exp [lr=0.1]", "a\\b", 'it\'s "50%" {x}\nnew*?'])
def test_a_run_is_trained_resumed_and_exported_under_any_name(name: str, tmp_path: Path) -> None:
    photos = write_images(tmp_path / name / "photos")
    folder = tmp_path / name / "run"
    recipe = recipe_for(photos, train={"export": True})
    begun = Trainer.prepare(recipe, run_dir=folder, quiet=True)
    begun.fit(2)
    assert train(recipe, run_dir=folder, resume=True, quiet=True).finished
    assert (
        Run(folder).meta["status"] == "finished"
        and (folder / "export" / "1" / "saved_model.pb").is_file()
    )
    assert os.listdir(folder / "tensorboard")
    from reszoo.serving.servable import Servable

    assert "serving_default" in Servable(folder / "export" / "1").signatures
    plain = tmp_path / "plain"
    shutil.copytree(folder / "export", plain)
    assert "serving_default" in tf.saved_model.load(str(plain / "1")).signatures
