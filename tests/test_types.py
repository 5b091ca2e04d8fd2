"""What a type checker and an editor see of the public API."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from mypy import api

import reszoo
from reszoo.zoo.fields import SpecFields
from reszoo.zoo.spec import Spec

ROOT = Path(__file__).parents[1]

PROGRAM = """
import reszoo

model = reszoo.build("resnet20", shortcut="B", classes=7)
recipe: reszoo.Recipe = reszoo.load_recipe("quickstart", {"train.epochs": 2})
result = reszoo.train(recipe, run_dir="runs/mine")
print(result.run.path, reszoo.count("resnet56").parameters)
"""
MISTAKES = {
    "reszoo.build(12345, classes=7)": 'Argument 1 to "build" has incompatible type "int"',
    'reszoo.build("resnet20", clases=7)': 'Unexpected keyword argument "clases" for "build"; did you mean "classes"?',
    'reszoo.buidl("resnet20")': 'Module has no attribute "buidl"',
    'reszoo.train("quickstart", resume="yes")': 'Argument "resume" to "train" has incompatible type "str"',
    'reszoo.spec("resnet20").shortcutt': '"Spec" has no attribute "shortcutt"; maybe "shortcut"',
}


@pytest.mark.slow
def test_mypy_accepts_a_program_and_reports_mistakes(tmp_path: Path) -> None:
    """One run of mypy, as most of its time is reading the package."""
    lines = PROGRAM.splitlines()
    source = tmp_path / "program.py"
    source.write_text("\n".join([*lines, *MISTAKES]) + "\n")
    printed, problems, _ = api.run(
        [str(source), "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(tmp_path)]
    )
    reported = {
        int(line.split(":")[1]): line
        for line in printed.splitlines()
        if line.startswith(str(source)) and "error:" in line
    }
    assert set(reported) == set(range(len(lines) + 1, len(lines) + 1 + len(MISTAKES))), (
        printed + problems
    )
    for number, (mistake, message) in enumerate(MISTAKES.items(), len(lines) + 1):
        assert message in reported[number], mistake


def test_names_for_type_checkers_are_the_public_names() -> None:
    tree = ast.parse((ROOT / "reszoo" / "__init__.py").read_text())
    (block,) = [
        node
        for node in tree.body
        if isinstance(node, ast.If) and node.body and isinstance(node.body[0], ast.ImportFrom)
    ]
    declared = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == reszoo._PUBLIC


def test_keywords_of_build_are_the_fields_of_a_spec() -> None:
    assert set(SpecFields.__annotations__) == set(Spec.model_fields) - {"name"}
