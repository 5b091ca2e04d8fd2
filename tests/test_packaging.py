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
from reszoo.config.load import recipe_names

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
    assert {"gpu", "dev", "torch", "litert", "onnx", "browser", "docs"} == set(
        told.get_all("Provides-Extra") or []
    )
    body = told.get_payload()
    assert (
        isinstance(body, str)
        and body.strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    )
    (license,) = installed.glob("*.dist-info/licenses/LICENSE")
    assert (
        "Version 2.0, January 2004" in license.read_text()
        and license.read_text().count("\n") == 202
    )


def test_the_wheel_holds_every_module_recipe_and_the_type_marker(installed: Path) -> None:
    package = installed / "reszoo"
    expected = {path.relative_to(ROOT / "reszoo") for path in (ROOT / "reszoo").rglob("*.py")} | {
        Path("py.typed")
    }
    for kind in ("weights/*.tsv", "weights/trained/*", "data/*.txt", "claims/*.toml"):
        found = {path.relative_to(ROOT / "reszoo") for path in (ROOT / "reszoo").glob(kind)}
        assert found, kind
        expected |= found
    expected.add(Path("serving") / "page.html")
    templates = Path("reporting") / "templates"
    expected |= {templates / path.name for path in (ROOT / "reszoo" / templates).glob("*.j2")}
    assert templates / "report.html.j2" in expected
    expected |= {path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*") if path.is_file()}
    assert {path.relative_to(package) for path in package.rglob("*") if path.is_file()} == expected
    assert sorted(path.name.split("-")[0] for path in installed.iterdir()) == ["reszoo", "reszoo"]


def test_the_wheel_works_away_from_the_checkout(installed: Path) -> None:
    assert (
        python(installed, "-c", "import reszoo; print(reszoo.__file__)")
        == f"{installed}/reszoo/__init__.py"
    )
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
        # Python 3.11.2, which is Debian 12's, has no filters.
        filters = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path, **filters)
    (source,) = tmp_path.iterdir()
    (again,) = build(source, tmp_path / "dist", "wheel")
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert first.namelist() == second.namelist()
        assert all(first.read(name) == second.read(name) for name in first.namelist())


def test_the_extras_are_what_the_container_and_the_ranges_expect() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (plain,) = [line for line in project["dependencies"] if re.match(r"tensorflow[>=]", line)]
    assert project["optional-dependencies"]["gpu"] == [
        plain.replace("tensorflow", "tensorflow[and-cuda]")
    ]


def test_the_container_has_the_version() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.findall(r"^ARG VERSION=(.*)$", text, re.MULTILINE) == [reszoo.__version__]
    assert 'image.version="${VERSION}"' in text


# The environment


def test_tensorflow_takes_a_gpu_s_memory_as_needed() -> None:
    """So that several processes share a GPU. TensorFlow reads the variable when it finds GPUs; a user's choice stays."""
    script = "import os, reszoo; print(os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    for given, expected in ((None, "true"), ("false", "false")):
        env = {
            key: value for key, value in os.environ.items() if key != "TF_FORCE_GPU_ALLOW_GROWTH"
        }
        env |= {"TF_FORCE_GPU_ALLOW_GROWTH": given} if given else {}
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, text=True, check=True, capture_output=True
        )
        assert done.stdout.strip() == expected
