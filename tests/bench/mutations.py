"""Count how many small changes of the package its tests notice.

Each mutation changes one expression in a copy of the package: another comparison, operator or number, `and` for `or`, a negated
condition, True for False, or None for an argument. It is killed if a test fails, and survives if all pass. A record that exists is
continued; `--again` also runs its survivors on the present code, except those with an "equivalent" (a reason, added by hand).

A module's tests are tests/<folder>/test_<module>.py; else the files of that folder that import it; else the tests, found in this
way, of the modules that import it; else all files that name it, or that folder. Slow tests run only where there are no others.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SWAPPED: dict[type, Any] = {
    ast.Lt: ast.LtE,
    ast.Gt: ast.GtE,
    ast.Eq: ast.NotEq,
    ast.Is: ast.IsNot,
    ast.In: ast.NotIn,
}
SWAPPED |= {ast.And: ast.Or, ast.Add: ast.Sub, ast.Mult: ast.Div}
SWAPPED |= {new: old for old, new in SWAPPED.items()} | {ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult}
LIMIT = 1800  # seconds of one run of pytest; a mutated loop may have no end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exclude", nargs="*", default=[], metavar="FILE")
    parser.add_argument("--again", action="store_true")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the mutations and what became of each; write them after each."""
    record: dict[str, Any] = {"mutations": list(draw(args.count, args.seed, args.exclude))}
    record = json.loads(args.out.read_text()) if args.out.is_file() else record
    with tempfile.TemporaryDirectory() as folder:
        copy = shutil.copytree(
            ROOT, Path(folder) / "copy", ignore=shutil.ignore_patterns(".*", "__pycache__")
        )
        for row in record["mutations"]:
            if not row["result"] or (
                args.again and row["result"] == "survived" and not row.get("equivalent")
            ):
                run(row, copy)
                print(
                    *(
                        row[key]
                        for key in ("result", "seconds", "file", "line", "before", "after", "by")
                    ),
                    flush=True,
                )
                args.out.write_text(json.dumps(record, indent=2) + "\n")
    killed = {
        when: [row[when] for row in record["mutations"]].count("killed")
        for when in ("first", "result")
    }
    return {"killed": killed} | record


def mutations(source: str) -> Iterator[tuple[ast.expr, str]]:
    """Yield (expression, the text to put in its place)."""
    tree, skipped = ast.parse(source), set()
    for node in ast.walk(tree):
        # Annotations are not executed; `strict` only checks what a correct program never breaks.
        strict = isinstance(node, ast.keyword) and node.arg == "strict" and node.value
        parts = (strict, getattr(node, "annotation", None), getattr(node, "returns", None))
        skipped |= {each for part in parts if part for each in ast.walk(part)}
    for node in (node for node in ast.walk(tree) if node not in skipped):
        changed: list[tuple[ast.expr, ast.expr]] = []
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            changed = [
                (node, ast.Compare(node.left, [SWAPPED[type(node.ops[0])]()], node.comparators))
            ]
        elif isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
            if not isinstance(node.left, ast.Constant | ast.JoinedStr):  # text % values
                changed = [(node, ast.BinOp(node.left, SWAPPED[type(node.op)](), node.right))]
        elif isinstance(node, ast.BoolOp):
            changed = [(node, ast.BoolOp(SWAPPED[type(node.op)](), node.values))]
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            changed = [
                (
                    node,
                    ast.Constant(
                        not node.value if isinstance(node.value, bool) else node.value + 1
                    ),
                )
            ]
        elif isinstance(node, ast.If):
            changed = [(node.test, ast.UnaryOp(ast.Not(), node.test))]
        elif isinstance(node, ast.Call):
            values = [argument.value for argument in node.keywords if argument.arg]
            changed = [
                (value, ast.Constant(None))
                for value in values
                if isinstance(value, ast.Name | ast.Attribute)
            ]
        yield from ((old, f"({ast.unparse(new)})") for old, new in changed)


def draw(count: int, seed: int, exclude: list[str]) -> Iterator[dict[str, Any]]:
    """Yield `count` mutations as rows of a record. One of an excluded file is replaced by the next of the same sequence."""
    rows: list[dict[str, Any]] = []
    left_out = {*ROOT.glob("reszoo/**/__init__.py"), *ROOT.glob("reszoo/bench/*")}
    for path in sorted({*ROOT.glob("reszoo/**/*.py")} - left_out):
        source, name = path.read_text(), path.relative_to(ROOT).as_posix()
        for node, after in mutations(source):
            line, before = (
                source.split("\n")[node.lineno - 1],
                ast.get_source_segment(source, node) or "",
            )
            column = len(line.encode()[: node.col_offset].decode().lstrip())
            row = {"file": name, "line": node.lineno, "column": column, "source": line.strip()}
            rows += (
                [{**row, "before": before, "after": after}] if before and "\n" not in before else []
            )
    rng, order = random.Random(seed), list[int]()
    while len(order) < count:
        at = rng.randrange(len(rows))
        if at not in order and rows[at]["file"] not in exclude:
            order.append(at)
            yield {**rows[at], "first": "", "result": ""}


def mirrors(file: str) -> list[str]:
    """Return the test files of a module, by the rule above."""
    imports: dict[str, set[str]] = {}
    for path in (*ROOT.glob("reszoo/**/*.py"), *ROOT.glob("tests/**/test_*.py")):
        nodes = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        ]
        pairs = [(node.module or "", alias.name) for node in nodes for alias in node.names]
        names = {
            name.replace(".", "/") + ".py" for pair in pairs for name in (pair[0], ".".join(pair))
        }
        imports[path.relative_to(ROOT).as_posix()] = names
    tests = {Path(name): imports.pop(name) for name in [*imports] if name.startswith("tests/")}
    seen, wave, found = {file}, {file}, set[Path]()
    folder, dotted = (
        Path("tests", *Path(file).parts[1:-1]),
        file.removesuffix(".py").replace("/", "."),
    )
    while wave and not found:
        for module in wave:
            own = Path("tests", *Path(module).parts[1:]).with_name(f"test_{Path(module).name}")
            near = {test for test in tests if test.parent == own.parent and module in tests[test]}
            found |= {own} if own in tests else near
        wave = {user for user, used in imports.items() if used & wave} - seen
        seen |= wave
    found = found or {test for test in tests if dotted in (ROOT / test).read_text()}
    return sorted(map(str, found or {test for test in tests if test.parent == folder}))


def run(row: dict[str, Any], copy: Path) -> None:
    """Apply a mutation in the copy, run its tests, and write the result into its row."""
    path, begun = copy / row["file"], time.monotonic()
    lines = (kept := path.read_text() if path.is_file() else "").split("\n")
    row |= {"result": "gone", "by": "", "tests": mirrors(row["file"])}
    if same := [at for at, line in enumerate(lines) if line.strip() == row["source"]]:
        at = min(
            same, key=lambda at: abs(at + 1 - row["line"])
        )  # the code may have moved since the draw
        start = len(lines[at]) - len(row["source"]) + row["column"]
        lines[at] = lines[at][:start] + row["after"] + lines[at][start + len(row["before"]) :]
        path.write_text("\n".join(lines))
        row["result"], row["by"] = judge(row["tests"], copy)
        path.write_text(kept)
    row |= {"first": row["first"] or row["result"], "seconds": round(time.monotonic() - begun)}


def judge(tests: list[str], copy: Path) -> tuple[str, str]:
    """Return (result, first failing test) of test files in the copy."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "--no-header",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        *tests,
    ]
    given: dict[str, Any] = {
        "cwd": copy,
        "env": {**os.environ, "PYTHONPATH": str(copy)},
        "timeout": LIMIT,
    }
    for chosen in (["-m", "not slow"], []):
        try:
            done = subprocess.run([*command, *chosen], **given, capture_output=True, text=True)
        except subprocess.TimeoutExpired:
            return "no end", ""
        if done.returncode != 5:  # 5: no test was selected
            break
    failed = next(
        (line for line in done.stdout.splitlines() if line.startswith(("FAILED ", "ERROR "))), ""
    )
    return "survived" if done.returncode in (0, 5) else "killed", failed.partition(" ")[2]
