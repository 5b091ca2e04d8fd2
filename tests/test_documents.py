"""The documentation: every command is one that reszoo accepts, every Python block runs, every name and link exists."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

import reszoo
from reszoo.cli.main import COMMANDS, Parser, main
from reszoo.config.load import load_recipe, recipe_names
from reszoo.tuning.space import load_space, space_names

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("recipes/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]


def code_lines(text: str) -> list[str]:
    """Return the lines of code blocks, fenced or indented, continued lines joined, and what stands in backticks."""
    found, fenced = [], False
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        fenced ^= line.lstrip().startswith("```")
        if fenced or line.startswith("    "):
            found.append(line.strip().removeprefix("$ "))
        else:
            found += re.findall(r"`([^`]+)`", line)
    return found


def commands(path: Path) -> list[list[str]]:
    """Return the arguments of each `reszoo ...` command of a document, in a container or not.

    A usage line with [..], ... or a placeholder in capitals, and a command's mere name, are left out.
    """
    found = []
    for code in code_lines(path.read_text(encoding="utf-8")):
        started = re.match(
            r"(?:[A-Z_]+=\S+ )*(?:docker run .* |python -m )?reszoo(?::\w+)? (?=[a-z-])", code
        )
        if not started or re.search(r"\[-|\[[A-Z]|\.\.\.|\|", code):
            continue
        words = shlex.split(code[started.end() :].replace("seed=S", "seed=0"), comments=True)
        if any(re.fullmatch("(folder:)?[A-Z]{2,}", word) for word in words) or words in (
            ["lab", "report"],
            ["lab", "degradation"],
        ):
            continue
        if len(words) > 1 or words[0] in ("list", "recipes") or words[0].startswith("-"):
            found.append(words)
    return found


TYPED = [
    (path, argv) for path in DOCUMENTS if path.name != "CHANGELOG.md" for argv in commands(path)
]


def test_the_readme_shows_every_command_of_a_run() -> None:
    shown = {argv[0] for path, argv in TYPED if path == ROOT / "README.md"}
    assert {"train", "recipes", "evaluate", "predict", "export"} <= shown <= set(COMMANDS)
    assert len(TYPED) > 60  # they are found


@pytest.mark.parametrize(
    ("path", "argv"),
    TYPED,
    ids=[f"{path.relative_to(ROOT)}: {shlex.join(argv)}" for path, argv in TYPED],
)
def test_a_command_in_the_documents_is_one_that_reszoo_takes(path: Path, argv: list[str]) -> None:
    verb, *rest = argv
    if verb.startswith("-"):
        assert verb in ("--help", "--version")
        return
    assert verb in COMMANDS
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


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder that holds what the documents name: runs, an export, photos."""
    folder = tmp_path_factory.mktemp("documents")
    rng = np.random.default_rng(0)

    def image(path: Path, size: int, channels: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, channels), np.uint8).squeeze()).save(path)

    for name in ("seven.png", "digit0.png", "digit1.png"):
        image(folder / name, 8, 1)
    image(folder / "cat.jpg", 48, 3)
    (folder / "broken.png").write_bytes(b"no image")
    for name in ("photos", "flowers"):
        for number in range(24):
            image(folder / name / ("daisy", "rose")[number % 2] / f"{number}.png", 32, 3)
    rows = [f"{('daisy', 'rose')[i % 2]}/{i}.png,{('daisy', 'rose')[i % 2]}" for i in range(24)]
    (folder / "photos" / "labels.csv").write_text("\n".join(["file,label", *rows]))
    short = ["train.epochs=1", "data.examples=64", "schedule.warmup=0"]
    reszoo.train("quickstart", overrides=short, run_dir=folder / "runs" / "first", quiet=True)
    shutil.copytree(folder / "runs" / "first", folder / "runs" / "mine")
    shutil.copytree(folder / "runs" / "first" / "export", folder / "served")
    reszoo.build("resnet18", classes=2).save_weights(folder / "flowers.weights.h5")
    return folder


# Commands that end within seconds on `folder`. What they write is removed first. The others train for minutes to days,
# download, serve until they are stopped, or need another framework; they are parsed above, their recipes loaded.
RUN = re.compile(
    r"(list|show|recipes) |data (list|inspect )|(evaluate|predict|explain) runs/|export runs/\w+ served|convert runs/"
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_quick_commands_of_a_document_run(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("RESZOO_DATA", str(folder / "data"))
    for argv in commands(ROOT / name):
        argv = [word.replace("/data/flowers", "flowers") for word in argv]
        if not RUN.match(f"{shlex.join(argv)} "):
            continue
        for word in argv:
            if word in ("served", "mine.safetensors") and argv[0] in ("export", "convert"):
                shutil.rmtree(folder / word, ignore_errors=True)
                (folder / word).unlink(missing_ok=True)
        status = main(argv)
        told = capsys.readouterr()
        assert status == (2 if "resnet21" in argv else 0), (argv, told.err)
        assert "Traceback" not in told.err


# Python


def python_blocks(path: Path) -> list[str]:
    """Return the Python blocks of a document, those of the interpreter's prompt included."""
    text = path.read_text(encoding="utf-8")
    fenced = re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for block in fenced] + re.findall(
        r"^ *>>> (.*)$", text, re.MULTILINE
    )


WITH_PYTHON = [name for name, path in zip(NAMES, DOCUMENTS, strict=True) if python_blocks(path)]
ARGUMENTS = {  # of the blocks that are programs
    "docs/deploy.md": ["served/1", "digit0.png", "digit1.png", "broken.png"],
    "docs/serving.md": ["digit0.png", "broken.png"],
}


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Random weights in each publisher's layout in place of a download."""
    from safetensors.numpy import save_file

    from reszoo.weights import load
    from reszoo.weights.convert import export_arrays
    from reszoo.weights.published import published

    def fetch(files: Any) -> Path:
        (row, *_) = [row for row in published() if files[0] in row.files]
        spec, path = reszoo.spec(row.model), tmp_path / f"{row.model}.safetensors"
        save_file(export_arrays(reszoo.build(spec), spec, row.layout), path)
        return path

    monkeypatch.setattr(load, "fetch", fetch)
    monkeypatch.setattr(load, "find_readable", list)  # the file that `fetch` makes needs no PyTorch


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    """The port of an endpoint that serves `served`."""
    from reszoo.serving.server import Server

    with Server(folder / "served") as server:
        yield int(re.findall(r":(\d+)/", server.model_url)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_of_a_document_runs(
    name: str,
    folder: Path,
    weights: None,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    for made in (
        "runs/mine",
        "served",
        "lab/short",
        "mine.keras",
    ):  # the page itself makes some of these
        shutil.rmtree(folder / made, ignore_errors=True)
    shutil.copytree(folder / "runs" / "first", folder / "runs" / "mine")
    shutil.copytree(folder / "runs" / "first" / "export", folder / "served")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "argv", ["program.py", *ARGUMENTS.get(name, [])])
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in python_blocks(ROOT / name):
        if "KERAS_BACKEND=jax" in block:  # tested below
            continue
        if file := re.match(r"# (\w+\.py)\n", block):  # which later blocks import
            (folder / file[1]).write_text(block)
            continue
        if any(f"import {name}" in block for name in ("torch", "wandb", "mlflow")) or (
            "tensorflow_serving" in block and not importlib.util.find_spec("tensorflow_serving")
        ):
            compile(block, name, "exec")  # not a dependency
            continue
        if "127.0.0.1:8501" in block:
            block = block.replace("127.0.0.1:8501", f"127.0.0.1:{request.getfixturevalue('port')}")
        for made in ('run_dir="runs/mine"', '"served", preprocessing', 'result.run, "served"'):
            if made in block:
                shutil.rmtree(
                    folder / ("runs/mine" if "runs" in made else "served"), ignore_errors=True
                )
        block = block.replace(
            '["daisy", "rose", ...]', str([f"class {number}" for number in range(7)])
        )
        exec(compile(block, name, "exec"), namespace)


def test_the_program_for_jax_trains_on_two_devices(tmp_path: Path) -> None:
    """As if TensorFlow were not installed; the file that it leaves is read here."""
    pytest.importorskip("jax")
    (block,) = [
        block
        for block in python_blocks(ROOT / "docs" / "training.md")
        if "KERAS_BACKEND=jax" in block
    ]
    check = """
assert keras.config.backend() == "jax" and len(devices) == 2
assert len(model.trainable_weights[0].value.sharding.device_set) == 2
print(*model.evaluate(images[1536:1792], labels[1536:1792], batch_size=64, verbose=0))
"""
    (tmp_path / "program.py").write_text(
        "import sys; sys.modules['tensorflow'] = None\n" + block + check
    )
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
    }
    done = subprocess.run(
        [sys.executable, "program.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loss, accuracy = (float(word) for word in done.stdout.split("\n")[-2].split())
    assert accuracy > 0.8
    model = reszoo.build(
        "resnet8", classes=10, input_shape=(8, 8, 1), weights=tmp_path / "digits.weights.h5"
    )
    digits = load_digits()
    logits = model.predict(digits.images[1536:1792, ..., None] / 16, verbose=0)
    assert (logits.argmax(axis=-1) == digits.target[1536:1792]).mean() == pytest.approx(
        accuracy, abs=0.01
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_names_in_a_documents_code_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for block in [*python_blocks(ROOT / name), *re.findall(r"`([^`\n]+)`", text)]:
        for dotted in re.findall(r"\breszoo(?:\.[A-Za-z_]\w*)+", block):
            first, *rest = dotted.split(".")[1:]
            if first in reszoo.__all__ or (first, rest) == ("py", []):
                continue
            parts = [first, *rest]
            depth = max((n for n in range(1, len(parts) + 1) if _is_module(parts[:n])), default=0)
            assert depth, f"{dotted} in {name}"
            module = importlib.import_module(".".join(["reszoo", *parts[:depth]]))
            assert depth == len(parts) or hasattr(module, parts[depth]), f"{dotted} in {name}"


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath("reszoo", *parts)
    return path.is_dir() or path.with_suffix(".py").is_file()


# Links


def test_the_index_lists_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index, path.name


@pytest.mark.parametrize("name", NAMES)
def test_a_documents_links_lead_somewhere(name: str) -> None:
    path = ROOT / name
    prose = re.sub(
        r"^```.*?^```|^    .*?$|`.*?`",
        "",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", prose):
        assert (path.parent / target).exists(), target
