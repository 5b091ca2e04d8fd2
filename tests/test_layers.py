"""The package's layers: data flows one way, and what is light to import stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import reszoo

ROOT = Path(reszoo.__file__).parent

# Lowest first; a module may import from its own layer and those below.
LAYERS = [
    "errors",
    "commands",
    "files",
    "keywords",
    "lazy",
    "machine",
    "registration",
    "signals",
    "types",
    "old_keys",
    "versions",
    "loading",
    "references",
    "reporting",
    "validation",
    "images",
    "zoo",
    "weights",
    "config",
    "models",
    "data",
    "training",
    "evaluation",
    "exporting",
    "serving",
    "run_results",
    "trainer",
    "comparison",
    "lab",
    "claims",
    "tuning",
    "bench",
    "doctor",
    "cli",
]

# Importable with neither TensorFlow nor Keras nor NumPy installed: names, counts, recipes, the command line.
LIGHT = [
    "reszoo",
    "reszoo.zoo.count",
    "reszoo.zoo.catalog",
    "reszoo.config.load",
    "reszoo.config.schedule",
]
LIGHT += ["reszoo.cli.main", "reszoo.cli.list", "reszoo.cli.show", "reszoo.cli.recipes"]
LIGHT += [
    "reszoo.weights.published",
    "reszoo.images.preprocessing",
    "reszoo.tuning.space",
    "reszoo.cli.tune",
]
LIGHT += [
    "reszoo.serving.versions",
    "reszoo.doctor",
    "reszoo.cli.serve_check",
    "reszoo.bench.comparison",
    "reszoo.bench.gpu",
    "reszoo.cli.bench",
]
HEAVY = {
    "tensorflow",
    "keras",
    "numpy",
    "matplotlib",
    "sklearn",
    "tensorflow_datasets",
    "rich",
    "starlette",
    "uvicorn",
}


def imports(path: Path) -> set[str]:
    """Return the names of reszoo's own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.split(".")[0] == "reszoo"
        ):
            found |= (
                {node.module}
                if node.module != "reszoo"
                else {f"reszoo.{alias.name}" for alias in node.names}
            )
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("reszoo.")}
    return found


@pytest.mark.smoke
def test_no_module_imports_from_a_layer_above_it() -> None:
    seen = 0
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[0] in ("__init__", "__main__"):
            continue
        for name in imports(path):
            layer = name.split(".")[1]
            if layer == "__version__":
                continue
            assert LAYERS.index(layer) <= LAYERS.index(parts[0]), (
                f"{path.relative_to(ROOT)} imports {name}"
            )
            seen += 1
    assert seen > 100


@pytest.mark.smoke
def test_every_module_has_a_layer() -> None:
    assert {
        path.stem
        for path in ROOT.iterdir()
        if not path.name.startswith("_") and path.name not in ("py.typed", "recipes")
    } == set(LAYERS)


def test_light_modules_import_nothing_heavy() -> None:
    script = f"""
import importlib, sys
for name in {LIGHT}:
    importlib.import_module(name)
    assert not (found := {HEAVY} & set(sys.modules)), (name, found)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_light_commands_load_no_tensorflow() -> None:
    commands = [["--help"], ["list"], ["recipes"], ["show", "resnet50"]]
    commands += [
        [name, "--help"] for name in ("train", "launch", "lab", "tune", "serve-check", "bench")
    ]
    script = f"""
import sys
from reszoo.cli.main import main
for command in {commands}:
    assert main(command) == 0, command
    assert not (found := {{"tensorflow", "keras"}} & set(sys.modules)), (command, found)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_public_names_are_there_and_callable() -> None:
    assert reszoo.__all__ == sorted(reszoo.__all__)
    for name in reszoo.__all__:
        assert callable(getattr(reszoo, name)), name
    assert callable(reszoo.train) and callable(reszoo.evaluate) and callable(reszoo.export)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reszoo.nothing


@pytest.mark.smoke
def test_nothing_unpickles() -> None:
    """Nothing here unpickles: what was downloaded is data."""
    for path in ROOT.rglob("*.py"):
        text = path.read_text()
        assert (
            "allow_pickle=True" not in text
            and "import pickle" not in text
            and "enable_unsafe_deserialization" not in text
        ), path


def test_no_method_is_cached_for_the_life_of_the_process() -> None:
    """`functools.cache` on a method keeps every object that the method was called on."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py")))
    cached = re.findall(r"@functools\.(?:lru_)?cache\b.*\n *def (\w+)\((.*?)[,:)]", text)
    assert cached and not [name for name, first in cached if first in ("self", "cls")]
