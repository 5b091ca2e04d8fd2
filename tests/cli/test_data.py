"""`reszoo data` at the prompt."""

from __future__ import annotations

from pathlib import Path

import pytest

from reszoo.cli.main import main


def test_list_names_every_first_class_set_and_says_which_are_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mnist" / "3.0.1").mkdir(parents=True)
    (tmp_path / "mnist" / "3.0.1" / "dataset_info.json").write_text("{}")
    (tmp_path / "cifar10" / "3.0.2.incompleteAB").mkdir(parents=True)
    (tmp_path / "cifar10" / "3.0.2.incompleteAB" / "dataset_info.json").write_text("{}")
    assert main(["data", "list", "--dir", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    here = {line.split()[0]: line.split()[-1] for line in out.splitlines()[1:10]}
    assert here == {
        "digits": "always",
        "synthetic": "always",
        "mnist": "yes",
        "fashion_mnist": "no",
        "cifar10": "no",
        "cifar100": "no",
        "svhn_cropped": "no",
        "imagenette": "no",
        "imagenet2012": "no",
    }
    assert str(tmp_path) in out


def test_prepare_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "digits"]) == 0
    assert capsys.readouterr().out == "digits needs no preparing: it is always there\n"


def test_prepare_of_nothing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", f"folder:{tmp_path / 'none'}"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.strip().endswith(f"no folder '{tmp_path / 'none'}'")
    assert len(said.err.splitlines()) == 1
