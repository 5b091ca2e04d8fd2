"""Home folders, known or not."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import NoReturn

import pytest

from reszoo.data.catalog import data_home
from reszoo.errors import ReszooError
from reszoo.files import expand_user


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process as in a container under an unnamed user id: no HOME, no entry in the password database."""

    def unknown(_: int | str) -> NoReturn:
        raise KeyError("uid not found")

    for name in ("HOME", "RESZOO_DATA", "RESZOO_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


def test_home_is_put_in_place_of_the_tilde(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expand_user("~/pets") == tmp_path / "pets"
    assert expand_user("a/~b") == Path("a/~b")


@pytest.mark.usefixtures("homeless")
def test_no_home_is_one_line() -> None:
    with pytest.raises(ReszooError, match=r"^~/pets: the home folder is unknown; .* Example: export HOME=/tmp$"):
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
def test_the_command_line_says_so(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    from reszoo.cli.main import main

    assert main(command) == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1 and "HOME" in said.err
