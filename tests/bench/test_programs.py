"""The measurement programs of this folder are those that the documents cite."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent
DOCS = BENCH.parents[1] / "docs"


def test_every_program_is_cited_with_a_command_that_it_accepts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pages = [path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md")]
    commands = {
        found for page in pages for found in re.findall(r"`python tests/bench ([a-z][^`]+)`", page)
    }
    monkeypatch.syspath_prepend(BENCH)
    program = runpy.run_path(str(BENCH / "__main__.py"))
    try:
        assert {command.split()[0] for command in commands} == set(program["NAMES"])
        for command in commands:
            measure, args = program["parse"](shlex.split(command))
            assert callable(measure) and args.out
    finally:
        for name in ("_shared", *program["NAMES"]):
            sys.modules.pop(name, None)


def test_the_walks_take_the_commands_of_their_pages() -> None:
    walks = runpy.run_path(str(BENCH / "walks.py"))
    for name, commands in (
        ("photos", [walks["SERVE"], *walks["PHOTOS"].splitlines()]),
        ("shortcut", walks["SHORTCUT"].splitlines()),
    ):
        page = (DOCS / f"howto-{name}.md").read_text(encoding="utf-8")
        assert [walks["find"](command, page) for command in commands] == commands


def test_seeds_are_added_to_a_record_of_the_same_recipe_precision_and_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(BENCH)
    earlier_rows = runpy.run_path(str(BENCH / "runs.py"))["earlier_rows"]
    path = DOCS / "results" / "fashion_speedrun" / "record.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = earlier_rows(path, found)
    assert [row["seed"] for row in rows] == [0, 1, 2, 3, 4]
    assert {row["machine"]["processor"] for row in rows} == {found["machine"]["processor"]}
    for key, value in (("precision", "float32"), ("data", found["data"] | {"fingerprint": {}})):
        with pytest.raises(SystemExit, match=f"record.json: {key} is "):
            earlier_rows(path, found | {key: value})
