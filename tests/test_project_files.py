"""Files for contributors: they parse, and name commands, files and versions that exist."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import reszoo
from reszoo.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


def requirements() -> dict[str, Requirement]:
    """Return the direct dependencies by normalized name, extras included."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in extra)]
    found = [Requirement(line) for line in lines]
    return {re.sub("[-_.]+", "-", each.name).lower(): each for each in found}


def check_command(text: str) -> None:
    """Check the files, extras and pytest markers that a shell command names."""
    for path in re.findall(r"(?:bash |-c )([\w./-]+)|\$PWD/([\w./-]+)", text):
        assert (ROOT / "".join(path)).is_file(), text
    for names in re.findall(r"\.\[([\w,]+)\]", text):
        assert set(names.split(",")) <= set(PROJECT["project"]["optional-dependencies"]), text
    declared = [line.split(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]]
    for marker in re.findall(r"pytest .*-m \"?([\w ]+)", text):
        assert set(marker.split()) - {"not", "or", "and"} <= set(declared), text


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflow_steps_exist(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}  # jobs ask for more by name
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 120
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            if "uses" in step:
                assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])  # a commit
            check_command(step.get("run", ""))
        for row in job.get("strategy", {}).get("matrix", {}).get("include", ()):
            assert "constraint" not in row or (ROOT / row["constraint"]).is_file()


def test_workflows_run_the_script_of_this_repository() -> None:
    """Continuous integration, nightly tests and releases check what a contributor checks."""
    with_script = {path.stem for path in WORKFLOWS if "bash .ci/run" in path.read_text()}
    assert with_script == {"ci", "nightly", "release"}
    assert {path.stem for path in WORKFLOWS} == with_script | {"docs", "image"}
    build = "mkdocs build --strict"
    assert build in (ROOT / ".ci" / "run").read_text()
    assert build in (ROOT / ".github" / "workflows" / "docs.yml").read_text()


def test_the_matrix_covers_the_supported_versions() -> None:
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["check"]
    pythons = matrix["strategy"]["matrix"]["python"]
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["project"]["classifiers"]))
    assert pythons == classifiers


@pytest.mark.parametrize("name", ["constraints.txt", ".ci/lowest.txt"])
def test_constraints_satisfy_the_requirements(name: str) -> None:
    wanted = requirements()
    lines = [line for line in (ROOT / name).read_text().splitlines() if line[:1] not in ("#", "")]
    for line in lines:
        package, version = line.split("==")
        assert wanted[package].specifier.contains(version.replace(".*", ".0")), line
        if name.startswith(".ci"):  # the first version that is allowed
            assert f">={version.removesuffix('.*')}" in str(wanted[package].specifier)
    assert {"tensorflow", "keras"} <= {line.split("==")[0] for line in lines}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_what_github_requires(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) > 0
    assert all(field["attributes"]["label"] for field in form["body"])


def test_the_citation_names_this_version_and_both_papers() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == reszoo.__version__
    assert citation["license"] == PROJECT["project"]["license"]
    urls = {reference["url"] for reference in citation["references"]}
    assert urls == {f"https://arxiv.org/abs/{paper}" for paper in ("1512.03385", "1603.05027")}


def test_hooks_and_instructions_name_what_exists() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in hooks] == ["local"]  # nothing is downloaded
    for hook in hooks[0]["hooks"]:
        assert hook["entry"].split()[0] in ("ruff", "mypy", "pytest")
        check_command(hook["entry"])
    text = (ROOT / "CONTRIBUTING.md").read_text()
    check_command(text)
    for path in re.findall(r"`([\w./]+/[\w./]*)`", text):
        assert (ROOT / path).exists() or path == "site/", path


# The documentation site


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml, in which a tag names a function."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def nav_pages(entry: Any) -> list[str]:
    """Return the pages of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [page for child in children for page in nav_pages(child)]


@pytest.fixture
def reference_pages(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of docs/ that makes the reference pages; it does not need MkDocs."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("reference_pages")


def test_the_navigation_lists_every_page(reference_pages: Any) -> None:
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), Loader)
    listed = nav_pages(config["nav"])
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    shown = re.findall(
        r'^    "([a-z]+\.md)": "', (ROOT / "docs/hooks.py").read_text(), re.MULTILINE
    )
    expected = (written - {"README.md"}) | set(shown) | set(reference_pages.PAGES)
    assert sorted(listed) == sorted(expected)
    assert config["theme"]["font"] is False  # the site needs no network


def test_reference_pages_show_the_package(reference_pages: Any) -> None:
    commands = reference_pages.commands()
    assert all(f"\n## reszoo {name}\n" in commands for name in COMMANDS)
    assert "| `--run-dir " in commands.split("## reszoo train")[1]
    for table, key in (("train", "batch_size"), ("data", "name"), ("schedule", "warmup")):
        section = reference_pages.recipe_keys().split(f"## [{table}]")[1]
        assert f"| `{key}`" in section.split("\n## ")[0]
    assert "| `resnet56` | 56 | 853,018 |" in reference_pages.models()
    assert "| `resnet20` | `akamaster` | cifar10 | 32x32 | 91.73 |" in reference_pages.weights()
    names = [name for subject in reference_pages.API.values() for name in subject.split()]
    assert sorted(names) == reszoo.__all__
