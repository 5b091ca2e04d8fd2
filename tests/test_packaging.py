"""What is shipped: the wheel and the sdist, built and inspected."""

from __future__ import annotations

import email.message
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

import reszoo
from reszoo.training.recipe import recipe_names

ROOT = Path(__file__).parents[1]


# The wheel and the sdist


def build(source: Path, out: Path, *targets: str) -> list[Path]:
    """Build as pip does, with the build backend, from a folder that it must leave as it was."""
    flags = [flag for target in targets for flag in ("--target", target)]
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(out), *flags]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel of this checkout."""
    wheel, sdist = build(ROOT, tmp_path_factory.mktemp("dist"), "sdist", "wheel")
    return sdist, wheel


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as it lies in site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(built[1]) as wheel:
        wheel.extractall(folder)
    return folder


def metadata(installed: Path) -> email.message.Message:
    (path,) = installed.glob("*.dist-info/METADATA")
    return email.message_from_string(path.read_text(encoding="utf-8"))


def python(installed: Path, *args: str) -> str:
    """Run an interpreter away from the checkout, with the wheel's files first on its path; return what it prints."""
    env = os.environ | {"PYTHONPATH": str(installed), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *args], cwd=installed, env=env, text=True, check=True, capture_output=True
    ).stdout.strip()


def test_the_metadata_is_the_packages(installed: Path) -> None:
    told = metadata(installed)
    assert (told["Name"], told["Version"]) == ("reszoo", reszoo.__version__)
    assert told["Requires-Python"] == "<3.14,>=3.11"
    assert told["License-Expression"] == "Apache-2.0"
    assert {"gpu", "jax", "dev", "torch", "litert", "onnx", "browser"} == set(told.get_all("Provides-Extra") or [])
    body = told.get_payload()
    assert isinstance(body, str) and body.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    (license,) = installed.glob("*.dist-info/licenses/LICENSE")
    assert "Version 2.0, January 2004" in license.read_text() and license.read_text().count("\n") == 202


def test_the_wheel_holds_every_module_recipe_and_the_type_marker(installed: Path) -> None:
    package = installed / "reszoo"
    expected = {path.relative_to(ROOT / "reszoo") for path in (ROOT / "reszoo").rglob("*.py")} | {Path("py.typed")}
    expected |= {Path("weights") / path.name for path in (ROOT / "reszoo" / "weights").glob("*.tsv")}
    expected.add(Path("serving") / "page.html")
    expected |= {path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*") if path.is_file()}
    assert {path.relative_to(package) for path in package.rglob("*") if path.is_file()} == expected
    assert sorted(path.name.split("-")[0] for path in installed.iterdir()) == ["reszoo", "reszoo"]


def test_the_wheel_works_away_from_the_checkout(installed: Path) -> None:
    assert python(installed, "-c", "import reszoo; print(reszoo.__file__)") == f"{installed}/reszoo/__init__.py"
    assert python(installed, "-m", "reszoo", "--version") == f"reszoo {reszoo.__version__}"
    script = "import reszoo; print(*(recipe.name for recipe in reszoo.list_recipes()))"
    names = python(installed, "-c", script).split()
    assert sorted(names) == sorted(path.stem for path in (ROOT / "recipes").glob("*.toml"))
    assert names == recipe_names()  # and so does the checkout


def test_the_command_is_the_main_function(installed: Path) -> None:
    (path,) = installed.glob("*.dist-info/entry_points.txt")
    points = ConfigParser()
    points.read(path)
    assert dict(points["console_scripts"]) == {"reszoo": "reszoo.cli.main:main"}
    script = "import sys; from reszoo.cli.main import main; sys.exit(main(['--version']))"
    assert python(installed, "-c", script) == f"reszoo {reszoo.__version__}"


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    (again,) = build(source, tmp_path / "dist", "wheel")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert first.namelist() == second.namelist()
        assert all(first.read(name) == second.read(name) for name in first.namelist())


def test_the_extras_are_what_the_container_and_the_ranges_expect() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (plain,) = [line for line in project["dependencies"] if re.match(r"tensorflow[>=]", line)]
    assert project["optional-dependencies"]["gpu"] == [plain.replace("tensorflow", "tensorflow[and-cuda]")]


def test_the_container_tells_the_version() -> None:
    (version,) = re.findall(r'image\.version="(.*?)"', (ROOT / "Dockerfile").read_text())
    assert version == reszoo.__version__
<<<<<<< HEAD


# The documents


def commands(document: Path) -> list[list[str]]:
    """The `reszoo ...` commands that a document's code shows, in a container or not; patterns with [..] or | left out."""
    found = []
    fenced = False
    for line in document.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        code = line.strip().removeprefix("$ ") if fenced or line.startswith("    ") else ""
        if not re.match(r"(docker run .*|python -m )?\breszoo(:\w+)? ", code) or re.search(r"[\[|]", code):
            continue
        words = shlex.split(code, comments=True)
        image = next(index for index, word in enumerate(words) if re.fullmatch(r"reszoo(:\w+)?", word))
        found.append(words[image + 1 :])
    return found


SHOWN = [(path, argv) for path in DOCUMENTS for argv in commands(path)]


def test_the_readme_shows_every_verb_of_a_run() -> None:
    shown = {argv[0] for path, argv in SHOWN if path.name == "README.md"}
    assert {"train", "recipes", "evaluate", "predict", "export"} <= shown <= set(VERBS)


@pytest.mark.parametrize("path, argv", SHOWN, ids=[f"{path.name}: {shlex.join(argv)}" for path, argv in SHOWN])
def test_a_command_in_the_documents_is_one_that_reszoo_takes(path: Path, argv: list[str]) -> None:
    verb, *rest = argv
    if verb.startswith("-"):
        assert verb in ("--help", "--version")
        return
    assert verb in VERBS
    parser = Parser(prog=f"reszoo {verb}", allow_abbrev=False)
    importlib.import_module(f"reszoo.cli.{verb.replace('-', '_')}").add_arguments(parser)
    args = parser.parse_args(rest)
    recipe = getattr(args, "recipe", None)
    if recipe in recipe_names():
        load_recipe(recipe, args.overrides)
    elif recipe is not None:
        assert "/" in recipe or recipe.endswith(".toml"), f"no recipe {recipe}"
    space = getattr(args, "space", None)
    if space in space_names():
        load_space(space, args.overrides)
    elif space is not None:
        assert "/" in space or space.endswith(".toml"), f"no space {space}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_the_public_names_in_a_documents_code_are_there(path: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        compile(block, str(path), "exec")
        for name in re.findall(r"\breszoo\.(\w+)", block):
            assert name in reszoo.__all__ or (ROOT / "reszoo" / name).exists(), f"reszoo.{name}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=[path.name for path in DOCUMENTS])
def test_a_documents_links_lead_somewhere(path: Path) -> None:
    prose = re.sub(r"^```.*?^```|^    .*?$|`.*?`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose):
        assert (path.parent / target).exists(), target


# The environment


def test_tensorflow_takes_a_gpu_s_memory_as_needed() -> None:
    """So that several processes share a GPU. TensorFlow reads the variable when it finds GPUs; a user's choice stays."""
    script = "import os, reszoo; print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    for given, expected in ((None, "true"), ("false", "false")):
        env = {key: value for key, value in os.environ.items() if key != "TF_FORCE_GPU_ALLOW_GROWTH"}
        env |= {"TF_FORCE_GPU_ALLOW_GROWTH": given} if given else {}
        done = subprocess.run([sys.executable, "-c", script], env=env, text=True, check=True, capture_output=True)
        assert done.stdout.strip() == expected
=======
>>>>>>> b89a995 (Follow the recipe's weights and [finetune] in lab drift; execute the documentation)
