"""The command line's frame: verbs, errors in one line, pipes, and that nothing heavy is imported before it is needed."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import reszoo
from reszoo.cli import main as frame
from reszoo.cli import output
from reszoo.cli.main import COMMANDS, main
from reszoo.config.load import load_recipe, recipe_folder, recipe_names
from reszoo.config.recipe import Recipe
from reszoo.errors import PeerLost, ReszooError
from reszoo.training.cluster import Hosts
from reszoo.weights.published import list_weights
from reszoo.zoo.catalog import list_models
from reszoo.zoo.count import count


def run(*argv: str, **options: Any) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    root = str(Path(reszoo.__file__).parents[1])
    command = [
        sys.executable,
        "-c",
        "import sys; from reszoo.cli.main import main; sys.exit(main())",
        *argv,
    ]
    return subprocess.Popen(command, cwd=root, text=True, stderr=subprocess.PIPE, **options)


def table(text: str) -> list[dict[str, str]]:
    """The rows of a piped table."""
    header, *lines = [line.split("\t") for line in text.splitlines()]
    return [dict(zip(header, line, strict=True)) for line in lines]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `reszoo train` calls `trainer.train` with, which does not run."""
    calls: list[dict[str, Any]] = []
    stand_in = types.ModuleType("reszoo.trainer")

    def train(recipe: Recipe, **options: Any) -> types.SimpleNamespace:
        calls.append({"recipe": recipe, **options})
        return types.SimpleNamespace(finished="stopped" not in getattr(recipe, "name", ""))

    stand_in.train = train  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reszoo.trainer", stand_in)
    monkeypatch.setattr(reszoo, "trainer", stand_in, raising=False)
    return calls


# The frame


@pytest.mark.smoke
def test_without_arguments_it_prints_help_with_every_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 0
    alone = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == alone
    assert all(f"  {name} " in alone for name in COMMANDS)


@pytest.mark.smoke
def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"reszoo {reszoo.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: reszoo {name}") and COMMANDS[name][:30] in shown


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["trian"], "no command 'trian'; did you mean 'train'?"),
        (["zebra"], "no command 'zebra'; expected one of list, show"),
        (["--verison"], "`reszoo --help`"),
        (["list", "a", "b"], "`reszoo list --help`"),
        (["list", "resnte20"], "did you mean 'resnet20'"),
        (["list", "zebra*"], "no model is named like 'zebra*'"),
        (["list", "resnet21"], "no model is named like 'resnet21'"),
        (["show"], "required: name"),
        (["show", "resnet21"], "nearest is 20 or 26"),
        (["show", "resnet20", "shortcut"], "'shortcut' is invalid; expected field=value"),
        (["show", "resnet20", "shortcut=Q"], 'expected one of "none", "A", "B", "C"'),
        (["show", "resnet20", "shortcuts=A"], "did you mean 'shortcut'"),
        (["show", "resnet20", "--input", "32x32"], "Example: 32x32x3"),
        (["show", "resnet20", "--input", "3x3x3"], "at least 4x4"),
        (["show", "resnet20", "--classes", "0"], "classes: 0 is invalid"),
        (["show", "resnet20", "--classes", "ten"], "invalid int value: 'ten'"),
        (["recipes", "quickstrat"], "did you mean 'quickstart'"),
        (["recipes", "--set", "train.epochs=2"], "name it"),
        (["train"], "recipe: none is given"),
        (["train", "--set", "train.epochs=2"], "recipe: none is given"),
        (["train", "quickstrat"], "did you mean 'quickstart'"),
        (["train", "none.toml"], "no file none.toml"),
        (["train", "quickstart", "--sett", "a=1"], "unrecognized arguments: --sett"),
        (["train", "quickstart", "--set", "epochs=2"], "did you mean 'train.epochs'"),
        (["train", "quickstart", "--set", "train.seed=\n2\n3"], "expected an integer"),
        (["train", "quickstart", "--resume"], "--run-dir DIR"),
        (["train", "--resume"], "--run-dir DIR"),
        (["bench"], "the following arguments are required: WHAT;"),
        (["bench", "walk"], "what: walk is invalid"),
        (["serve-check", "nowhere"], "nowhere does not exist; expected an exported folder"),
        (
            ["serve-check", ".", "--port", "65536"],
            "'65536' is invalid; expected a port, 0 to 65535",
        ),
        (["train", "--resume", "--run-dir", "nowhere"], "--run-dir: nowhere is invalid"),
    ],
)
def test_bad_input_is_reported_in_one_line_on_standard_error_and_status_2(
    argv: list[str], says: str, trained: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and trained == []
    assert (
        captured.err.startswith("reszoo: ")
        and captured.err.endswith("\n")
        and captured.err.count("\n") == 1
    )
    assert says in captured.err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ReszooError("wrong"), 2, "reszoo: wrong\n"),
        (PeerLost("worker 1 was lost"), 200, "reszoo: worker 1 was lost\n"),
        (OSError(28, "No space left on device", "/x"), 2, "reszoo: /x: No space left on device\n"),
        (OSError("odd"), 2, "reszoo: odd\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_of_a_command_become_a_line_and_a_status(
    error: BaseException,
    status: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(args: argparse.Namespace) -> int:
        raise error

    monkeypatch.setattr("reszoo.cli.list.run", fail)
    assert main(["list"]) == status
    assert capsys.readouterr().err == line


def test_a_defect_is_not_reported_as_invalid_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame, "_dispatch", lambda argv: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main([])


# Pipes and imports


def test_a_closed_pipe_ends_it_quietly() -> None:
    process = run("list", stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert (process.stderr.read(), process.wait()) == ("", 141)
    process.stderr.close()


def test_a_full_disk_is_reported_in_one_line() -> None:
    with open("/dev/full", "w") as full:
        process = run("list", stdout=full)
        _, error = process.communicate()
    assert process.returncode == 2
    assert error.count("\n") == 1 and "No space left on device" in error


def test_nothing_heavy_is_imported_to_list_show_or_help() -> None:
    script = (
        "import json, sys\nimport reszoo\nfrom reszoo.cli.main import main\n"
        "for argv in ([], ['--help'], ['list'], ['show', 'resnet50'], ['recipes'], ['recipes', 'quickstart'], ['train', '--help']):\n"
        "    assert main(argv) == 0, argv\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    )
    root = str(Path(reszoo.__file__).parents[1])
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(result.stdout.splitlines()[-1]))
    third_party = loaded - sys.stdlib_module_names - {"__main__", "reszoo"}
    heavy = "tensorflow keras matplotlib sklearn tensorflow_datasets rich jax torch"
    assert not third_party & set(heavy.split())


# list, show, recipes


@pytest.mark.smoke
def test_list_prints_what_the_zoo_counts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    rows = {row["name"]: row for row in table(capsys.readouterr().out)}
    assert list(rows) == list_models()
    assert rows["resnet20"]["parameters"] == "269722" and rows["resnet20"]["depth"] == "20"
    assert rows["resnet50_v1"]["parameters"] == "25557032"
    assert (
        rows["resnet20"]["family"] == "CIFAR residual"
        and rows["plain34"]["family"] == "ImageNet plain"
    )
    assert rows["resnet110_v2"]["family"] == "CIFAR pre-act"
    assert rows["resnet50"]["family"] == "= resnet50_v1_5"


def test_list_takes_wildcards_and_depths_it_does_not_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "PLAIN3?"]) == 0
    names = [row["name"] for row in table(capsys.readouterr().out)]
    assert names == ["plain32", "plain38", "plain34"]
    assert main(["list", "resnet128"]) == 0
    assert [row["name"] for row in table(capsys.readouterr().out)] == ["resnet128"]


def test_on_a_terminal_tables_are_drawn_within_its_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list_models()) + 1
    assert max(map(len, lines)) <= 80
    (line,) = (line for line in lines if line.startswith("resnet1202 "))
    assert line.split()[-2:] == ["19,421,274", "2,829,238,912"]


@pytest.mark.smoke
def test_show_adds_up_and_explains_an_alias(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "resnet50"]) == 0
    text = capsys.readouterr().out
    assert (
        "another name of resnet50_v1_5; the paper's own model is resnet50_v1, with stride_at=conv1"
        in text
    )
    first, second = text.split("stage\tblocks\t")
    rows = [line.split("\t") for line in second.split("\n\n")[0].splitlines()[1:]]
    assert [row[0] for row in rows] == ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
    assert [row[1] for row in rows] == ["", "3", "4", "6", "3", ""]
    assert rows[1][2] == "56x56x256" and rows[-1][2] == "1x1x1000"
    assert sum(int(row[3]) for row in rows) == 25_557_032
    assert sum(int(row[4]) for row in rows) == count("resnet50").macs
    assert "depth 50, 25,557,032 parameters" in text
    assert "depths\t[3, 4, 6, 3]" in first


def test_show_takes_fields_input_and_classes(capsys: pytest.CaptureFixture[str]) -> None:
    fields = ["shortcut=C", "depths=[2, 2, 2]"]
    assert main(["show", "resnet20", *fields, "--input", "64x48x1", "--classes", "7"]) == 0
    text = capsys.readouterr().out
    expected = count("resnet20", (64, 48, 1), 7, shortcut="C", depths=(2, 2, 2))
    assert f"depth 14, {expected.parameters:,} parameters" in text
    assert "one 64x48x1 image and 7 classes" in text
    assert "shortcut\tC" in text and "depths\t[2, 2, 2]" in text
    assert "another name" not in text


def test_recipes_lists_all_and_prints_one_as_a_run_records_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recipes"]) == 0
    rows = table(capsys.readouterr().out)
    assert [row["recipe"] for row in rows] == recipe_names()
    (row,) = (row for row in rows if row["recipe"] == "cifar10_resnet56")
    assert (row["length"], row["error %"]) == ("64,000 steps", "6.97")
    assert main(["recipes", "quickstart", "--set", "train.seed=3", "train.epochs=2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith((recipe_folder() / "quickstart.toml").read_text().split("\n\n")[0])
    (tmp_path / "quickstart.toml").write_text(text)
    assert load_recipe(tmp_path / "quickstart.toml") == load_recipe(
        "quickstart", ["train.seed=3", "train.epochs=2"]
    )


# train


@pytest.mark.parametrize(
    "argv", [["train", "quickstart"], ["bench", "train"], ["lab", "identity", "--out", "lab"]]
)
def test_another_backend_is_an_error(
    argv: list[str],
    trained: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert main(argv) == 2 and not trained
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith(
        "reszoo: KERAS_BACKEND: jax is invalid; expected tensorflow, "
    )


def test_tensorflow_that_is_not_installed_is_an_error(
    trained: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["train", "quickstart"]) == 2 and not trained
    assert (
        capsys.readouterr().err == "reszoo: tensorflow is not installed: pip install tensorflow\n"
    )


DEFAULTS: dict[str, Any] = {
    "overrides": (),
    "run_dir": None,
    "resume": False,
    "data": None,
    "devices": "auto",
    "hosts": None,
    "quiet": False,
}


def test_train_passes_the_recipe(trained: list[dict[str, Any]], tmp_path: Path) -> None:
    argv = ["train", "quickstart", "--set", "train.epochs=2", "train.seed=5"]
    argv += ["--run-dir", str(tmp_path / "run"), "--devices", "cpu:2"]
    assert main([*argv, "--set", "model.shortcut=B"]) == 0
    recipe = load_recipe("quickstart", ["train.epochs=2", "train.seed=5", "model.shortcut=B"])
    given = {"recipe": recipe, "run_dir": tmp_path / "run", "devices": "cpu:2"}
    assert trained == [DEFAULTS | given]


def test_a_stopped_run_ends_with_130(trained: list[dict[str, Any]], tmp_path: Path) -> None:
    path = tmp_path / "stopped.toml"
    path.write_text(
        load_recipe("quickstart").to_toml().replace('name = "quickstart"', 'name = "stopped"')
    )
    assert main(["train", str(path)]) == 130 and len(trained) == 1


def test_train_defaults(trained: list[dict[str, Any]]) -> None:
    assert main(["train", "quickstart"]) == 0
    assert trained == [DEFAULTS | {"recipe": load_recipe("quickstart")}]


@pytest.mark.parametrize(
    "form", [["--run-dir", "{run}"], ["{run}"], ["{run}", "--run-dir", "{run}"]]
)
def test_resume_takes_the_recipe_from_the_run(
    form: list[str], trained: list[dict[str, Any]], tmp_path: Path
) -> None:
    recipe: Recipe = load_recipe("quickstart", ["train.seed=9"])
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    assert main(["train", "--resume", *(word.format(run=tmp_path) for word in form)]) == 0
    assert trained == [DEFAULTS | {"recipe": recipe, "run_dir": tmp_path, "resume": True}]


def test_resume_may_name_the_recipe_too(trained: list[dict[str, Any]], tmp_path: Path) -> None:
    assert main(["train", "quickstart", "--resume", "--run-dir", str(tmp_path)]) == 0
    given = {"recipe": load_recipe("quickstart"), "run_dir": tmp_path, "resume": True}
    assert trained == [DEFAULTS | given]


@pytest.mark.parametrize(
    ("argv", "first", "other"),
    [
        (["quickstart"], {"recipe": "quickstart"}, {"recipe": "quickstart"}),
        (
            ["quickstart", "--resume", "--run-dir", "RUN"],
            {"recipe": "quickstart", "run_dir": "RUN"},
            {"recipe": "quickstart"},
        ),
        (["--resume", "RUN"], {"recipe": "RUN/recipe.toml", "run_dir": "RUN"}, {"recipe": None}),
        (
            ["quickstart", "--set", "train.seed=x"],  # reported when the workers meet
            {"recipe": "quickstart", "overrides": ["train.seed=x"]},
            {"recipe": "quickstart", "overrides": ["train.seed=x"]},
        ),
    ],
)
def test_all_hosts_take_one_command_and_worker_0_has_the_run(
    argv: list[str],
    first: dict[str, Any],
    other: dict[str, Any],
    trained: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    for index, given in enumerate((first, other)):
        (tmp_path / "RUN").mkdir()
        (tmp_path / "RUN" / "recipe.toml").touch()
        if index:  # another host, which has no run folder
            shutil.rmtree(tmp_path / "RUN")
        hosts = ["--hosts", "a:1,b:2", "--host-index", str(index)]
        assert main(["train", *argv, *hosts]) == 0
        shutil.rmtree(tmp_path / "RUN", ignore_errors=True)
        found = {
            key: str(each) if isinstance(each, Path) else each for key, each in trained[-1].items()
        }
        common = {
            "overrides": [],
            "resume": "--resume" in argv,
            "hosts": Hosts(("a:1", "b:2"), index),
        }
        assert found == DEFAULTS | common | given
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"  # only reszoo's line about a lost worker


def test_train_alone_looks_for_hosts(
    trained: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TF_CONFIG", "{")
    assert main(["train", "quickstart"]) == 2 and trained == []
    assert capsys.readouterr().err.startswith("reszoo: TF_CONFIG: '{' is invalid; expected JSON")
    assert main(["show", "resnet20"]) == main(["recipes"]) == 0


def test_published_weights_are_listed_with_scores_size_and_license(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["list", "--weights", "resnet18*"]) == 0
    head, *lines = (line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert head == [
        "model",
        "weights",
        "top-1",
        "top-5",
        "size",
        "parameters",
        "license",
        "source",
        "preprocessing",
    ]
    assert lines[0][:7] == [
        "resnet18",
        "torchvision/IMAGENET1K_V1",
        "69.76",
        "89.08",
        "224",
        "11689512",
        "BSD-3-Clause",
    ]
    assert [line[0] for line in lines] == ["resnet18"] * 8 + ["resnet18_d"] * 2
    assert main(["show", "resnet18"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[-8:] == ["\t".join(line[1:]) for line in lines[:8]] and shown[-9].startswith(
        "weights\ttop-1"
    )
    assert main(["show", "resnet18", "shortcut=A"]) == 0
    assert "IMAGENET1K" not in capsys.readouterr().out, "another net, which cannot hold them"
    assert main(["list", "--weights", "plain*"]) == 2
    assert "no published weights of a model named like 'plain*'" in capsys.readouterr().err


@pytest.mark.parametrize("pattern", ["resnet18", "*"])
def test_the_table_of_weights_is_readable_in_80_columns(
    pattern: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "--weights", pattern]) == 0
    header, *lines, note = capsys.readouterr().out.splitlines()
    found = list_weights(pattern)
    assert max(map(len, [header, *lines])) <= 80 and len(lines) == len(found)
    assert header.split()[:3] == ["model", "weights", "top-1"] and "license" in header
    for line, row in zip(lines, found, strict=True):
        assert line.split()[:3] == [row.model, row.tag, f"{row.top1:.2f}"] and row.license in line
    assert note.startswith("Not shown in 80 columns: preprocessing, source, parameters")
    monkeypatch.setenv("COLUMNS", "300")
    assert main(["list", "--weights", pattern]) == 0
    assert "Not shown" not in capsys.readouterr().out


def test_text_on_a_terminal_wraps_and_is_not_cut(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "on_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    output.print_table(("name", "text"), [("a" * 20, "many words that need more than a line")])
    assert (
        "".join(capsys.readouterr().out.split())
        == "nametext" + "a" * 20 + "manywordsthatneedmorethanaline"
    )


def test_quiet_and_verbose_of_train(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import keras

    from reszoo import trainer

    given: dict[str, Any] = {}

    def train(recipe: object, **arguments: Any) -> types.SimpleNamespace:
        given.update(arguments)
        return types.SimpleNamespace(finished=True)

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    assert main(["train", "quickstart", "--quiet"]) == 0
    assert given["quiet"] and capsys.readouterr().out == ""
    assert main(["train", "quickstart", "--verbose"]) == 0
    printed = capsys.readouterr().out
    assert not given["quiet"] and f"keras {keras.__version__}" in printed
    assert "[schedule]" in printed and os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"
    assert main(["train", "quickstart", "--quiet", "--verbose"]) == 2
