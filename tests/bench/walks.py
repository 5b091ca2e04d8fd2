"""The two walks of the documents as a new user takes them: each command, and its seconds.

`photos`: from 100 photos to a served model (docs/howto-photos.md). `shortcut`: from an idea to a compared figure with
three seeds (docs/howto-shortcut.md). Files and commands are taken from these pages; a command that its page does not
show is an error. Typing and reading are not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
LAST_ANIMAL = "n02655020"  # of ImageNet's classes, in the order of WordNet
PHOTOS = """\
reszoo data inspect photos --html photos.html
reszoo train folder --data photos --run-dir runs/mine
reszoo evaluate runs/mine
reszoo predict runs/mine cat.jpg"""
SERVE = "reszoo serve-check runs/mine/export"
SHORTCUT = """\
reszoo train gain.toml --seeds 3 --run-dir runs/gain
reszoo train quickstart --seeds 3 --run-dir runs/plain --set train.epochs=10 train.export=false
reszoo compare runs/gain runs/plain"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("photos", type=Path, help="photos-100.tar")
    parser.add_argument("--only", choices=WALKS, help="one of the walks")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder for the files")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return the commands of each walk with their seconds."""
    from reszoo.versions import module_versions

    found: dict[str, Any] = {"versions": module_versions("reszoo", "tensorflow", "keras", "numpy")}
    with tempfile.TemporaryDirectory() as scratch:
        for name, walk in WALKS.items():
            if args.only in (None, name):
                folder = (args.keep or Path(scratch)) / name
                folder.mkdir(parents=True)
                commands, results = walk(folder.resolve(), args.photos.resolve())
                seconds = sum(each["seconds"] for each in commands)
                found[name] = {"commands": commands, "count": len(commands)}
                found[name] |= {"seconds": round(seconds, 1), **results}
    return found


def walk_photos(folder: Path, archive: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Inspect, train, evaluate, predict and serve photos of animals and things."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.isfile():
                wordnet = Path(member.name).name.partition("_")[0]
                place = folder / "photos" / ("animal" if wordnet <= LAST_ANIMAL else "thing")
                place.mkdir(parents=True, exist_ok=True)
                file = tar.extractfile(member)
                assert file is not None
                (place / Path(member.name).name).write_bytes(file.read())
    page = (DOCS / "howto-photos.md").read_text(encoding="utf-8")
    photo = min((folder / "photos" / "animal").iterdir())
    (folder / "cat.jpg").write_bytes(photo.read_bytes())
    rows = [run(command, folder, page) for command in PHOTOS.splitlines()]
    serving, served = serve(folder, page)
    scores = json.loads((folder / "runs/mine/test.json").read_text())
    return [*rows, *serving], {"test_accuracy": scores["top1"], "answer": served}


def serve(folder: Path, page: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Serve the export, and send it a photo by the command that serve-check prints."""
    start = time.monotonic()
    arguments = shlex.split(find(SERVE, page))[1:]
    command = [sys.executable, "-m", "reszoo", *arguments, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            lines = iter(server.stdout.readline, "")
            printed = next(line for line in lines if line.startswith("REST")).removeprefix("REST")
            rows = [{"command": SERVE, "seconds": round(time.monotonic() - start, 1)}]
            start = time.monotonic()
            curl = printed.strip().replace("photo.jpg", "cat.jpg")
            answer = subprocess.run(
                curl, shell=True, cwd=folder, capture_output=True, text=True, timeout=60, check=True
            )
            seconds = round(time.monotonic() - start, 1)
            rows.append({"command": "the curl command that serve-check prints", "seconds": seconds})
        finally:
            server.terminate()
    (prediction,) = json.loads(answer.stdout)["predictions"]
    return rows, {key: prediction[key] for key in ("labels", "scores", "status")}


def walk_shortcut(folder: Path, archive: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Save the two files of the page, train both arms with three seeds, and compare them."""
    page = (DOCS / "howto-shortcut.md").read_text(encoding="utf-8")
    for language, name, start in (("python", "gain.py", "# gain.py"), ("toml", "gain.toml", "")):
        blocks = re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)
        (folder / name).write_text(next(block for block in blocks if block.startswith(start)))
    rows = [run(command, folder, page) for command in SHORTCUT.splitlines()]
    lines = (folder / "comparison/differences.csv").read_text().splitlines()
    return rows, {"differences": lines}


def run(command: str, folder: Path, page: str) -> dict[str, Any]:
    """Run a command of a page; return it with its seconds."""
    start = time.monotonic()
    arguments = shlex.split(find(command, page))[1:]
    subprocess.run(
        [sys.executable, "-m", "reszoo", *arguments],
        cwd=folder,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        timeout=3600,
        check=True,
    )
    row = {"command": command, "seconds": round(time.monotonic() - start, 1)}
    print(json.dumps(row), flush=True)
    return row


def find(command: str, page: str) -> str:
    """Return a command if its page shows it."""
    if f"$ {command}" not in page:
        raise SystemExit(f"the page does not show: {command}")
    return command


WALKS = {"photos": walk_photos, "shortcut": walk_shortcut}
