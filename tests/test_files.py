"""Writing whole or not at all, under any name, and the checks of a place before long work."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest
import tensorflow as tf

from reszoo.data.catalog import data_home
from reszoo.errors import ReszooError
from reszoo.files import (
    atomic_dir,
    atomic_path,
    check_output,
    check_outside,
    check_space,
    expand_user,
    is_plain,
    plain_folder,
    write_json,
    write_text,
)

LONG = "x" * 255


@pytest.mark.parametrize(
    "name", [LONG, f"a.{'b' * 250}", "a [b].txt", "-x", ".hidden", "a\nb", "é.json"]
)
def test_every_name_that_the_file_system_takes_is_written(name: str, tmp_path: Path) -> None:
    write_text(tmp_path / name, "whole")
    assert (tmp_path / name).read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with atomic_dir(tmp_path / "d" / name) as part:
        (part / "file").write_text("inside")
    assert (tmp_path / "d" / name / "file").read_text() == "inside"
    assert len(list((tmp_path / "d").iterdir())) == 1


def test_a_failure_leaves_no_files(tmp_path: Path) -> None:
    for write in (atomic_path, atomic_dir):
        with pytest.raises(RuntimeError), write(tmp_path / "a"):
            raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_the_temporary_file_keeps_the_suffix_that_libraries_go_by(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "model.keras") as part:
        assert part.suffix == ".keras" and part.parent == tmp_path


def test_json_holds_text_that_utf8_does_not(tmp_path: Path) -> None:
    value = {"skipped": ["caf\udce9.png"], "name": "é"}
    write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == value
    write_json(tmp_path / "a.json", {"name": "é"})
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["a[b]", "a\\b", "a*b", "a?b", "plain", "a\udcff", "a b"])
def test_tensorflow_loads_from_a_plain_folder_whatever_its_name(name: str, tmp_path: Path) -> None:
    module: Any = tf.Module()
    module.weight = tf.Variable([1.0, 2.0])
    folder = tmp_path / name
    folder.mkdir()
    with plain_folder(folder) as plain:
        assert is_plain(plain) and (plain == folder) == is_plain(folder)
        tf.saved_model.save(module, str(plain / "1"))
    assert (folder / "1" / "saved_model.pb").is_file()
    with plain_folder(folder / "1") as plain:
        loaded = tf.saved_model.load(str(plain))
    assert loaded.weight.numpy().tolist() == [1.0, 2.0]
    assert not plain.exists() or plain == folder / "1"


def refusal(path: Path, **more: Any) -> str:
    with pytest.raises(ReszooError) as caught:
        check_output(path, "run folder", **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_path_that_cannot_be_written_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert "file is not a folder" in refusal(tmp_path / "file" / "run" / "deep")
    assert "dangling is not a folder" in refusal(tmp_path / "dangling" / "run")
    assert "has 256 bytes; expected at most 255" in refusal(tmp_path / "new" / (LONG + "x") / "run")
    assert "expected a path in UTF-8" in refusal(tmp_path / "caf\udce9")
    assert "null character" in refusal(tmp_path / "a\0b")
    check_output(tmp_path / "new" / LONG, "run folder")
    check_output(tmp_path, "run folder")
    assert "is not empty" in refusal(tmp_path, occupied=False)
    assert "is a file" in refusal(tmp_path / "file", occupied=False)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "no permission to write in" in refusal(tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file"]


def test_output_inside_the_data_is_rejected(tmp_path: Path) -> None:
    check_outside(
        tmp_path / "photos" / "run", tmp_path / "photos", "run folder"
    )  # nothing there: told elsewhere
    (tmp_path / "photos").mkdir()
    for inside in ("photos", "photos/runs/a", "photos/../photos/x"):
        with pytest.raises(ReszooError, match="expected a folder outside the data"):
            check_outside(tmp_path / inside, tmp_path / "photos", "run folder")
    for outside in ("photos2", "runs", "photos/.runs/a"):
        check_outside(tmp_path / outside, tmp_path / "photos", "run folder")


def test_too_little_space_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_space(tmp_path / "new" / "run", 1, "run folder")
    left: Any = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: left)
    check_space(tmp_path, 1000, "run folder")
    with pytest.raises(ReszooError, match="has 0 MB left; expected at least 5 MB"):
        check_space(tmp_path, 5 * 10**6, "run folder")


# Home folders, known or not


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process as in a container under an unnamed user id: no HOME, no entry in the password database."""

    def unknown(_: int | str) -> NoReturn:
        raise KeyError("uid not found")

    for name in ("HOME", "RESZOO_DATA", "RESZOO_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def test_the_tilde_is_replaced_by_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/pets") == tmp_path / "pets"
    assert expand_user("a/~b") == Path("a/~b")


@pytest.mark.usefixtures("homeless")
def test_no_home_is_reported_in_one_line() -> None:
    with pytest.raises(
        ReszooError, match=r"^~/pets: the home folder is unknown; .* Example: export HOME=/tmp$"
    ):
        expand_user("~/pets")
    assert expand_user("/pets") == Path("/pets")


@pytest.mark.usefixtures("homeless")
def test_prepared_datasets_need_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ReszooError, match="Example: export RESZOO_DATA=/data"):
        data_home()
    assert data_home("/there") == Path("/there")
    monkeypatch.setenv("RESZOO_DATA", "/data")
    assert data_home() == Path("/data")


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", [["data", "list"], ["data", "prepare", "folder:~/pets"]])
def test_the_command_line_reports_it(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    from reszoo.cli.main import main

    assert main(command) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "HOME" in said.err
