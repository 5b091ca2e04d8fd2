"""What the tuner costs and survives: several workers, hyperband against random search, memory over many trials, kills."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reszoo.tuning.results import longest, read_results

TINY = """
recipe = "quickstart"
set = ["train.epochs=9", "train.export=false", "data.examples=200", "train.batch_size=20", "train.deterministic=true",
       "model.name=resnet8"]
[space]
model.shortcut = ["none", "A", "B"]
model.zero_gamma = { choices = [false, true], when = { model.shortcut = ["A", "B"] } }
schedule.rate = { low = 0.01, high = 0.2, log = true }
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--rounds", type=int, default=2, help="of workers; default %(default)s")
    parser.add_argument("--trials", type=int, default=8, help="of workers; default %(default)s")
    parser.add_argument("--seeds", type=int, default=3, help="of hyperband; default %(default)s")
    parser.add_argument("--epochs", type=int, default=9, help="of hyperband; default %(default)s")
    parser.add_argument(
        "--kills", type=int, default=10, help="of faults, of each kind; default %(default)s"
    )


def command(space: str | Path, folder: Path, *flags: str) -> list[str]:
    """Return the command of a search."""
    return [sys.executable, "-m", "reszoo", "tune", str(space), "--run-dir", str(folder), *flags]


def search(space: str | Path, folder: Path, *flags: str) -> tuple[dict[str, Any], float]:
    """Run a search to its end; return its results and seconds."""
    begun = time.monotonic()
    subprocess.run(command(space, folder, *flags), check=True, stdout=subprocess.DEVNULL)
    return read_results(folder), time.monotonic() - begun


def workers(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare one worker with two in turns (1 2 2 1 ...), the same trials."""
    rows = []
    for number in range(2 * args.rounds):
        count = (1, 2, 2, 1)[number % 4]
        flags = [
            "--tuner",
            "random",
            "--trials",
            str(args.trials),
            "--workers",
            str(count),
            "--set",
            "train.epochs=9",
        ]
        results, seconds = search("depth_shortcut", folder / str(number), *flags)
        rows.append(
            {
                "workers": count,
                "trials": results["totals"]["completed"],
                "seconds": round(seconds, 1),
                "trials_a_minute": round(60 * args.trials / seconds, 2),
                "scores": [trial["score"] for trial in results["trials"]],
            }
        )
        print({key: value for key, value in rows[-1].items() if key != "scores"}, flush=True)
    return rows


def hyperband(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compare both tuners: best validation accuracy for the same training steps, or a few more for random search."""
    rows = []
    for seed in range(args.seeds):
        for tuner in ("hyperband", "random"):
            steps = rows[-1]["trained_steps"] / rows[-1]["whole_steps"] if tuner == "random" else 0
            flags = ["--tuner", tuner, "--seed", str(seed), "--trials", str(-int(-steps // 1))]
            flags += ["--set", f"train.epochs={args.epochs}"]
            results, seconds = search("depth_shortcut", folder / f"{tuner}{seed}", *flags)
            best = next(trial for trial in results["trials"] if trial["trial"] == results["best"])
            rows.append(
                {
                    "tuner": tuner,
                    "seed": seed,
                    "best": best["score"],
                    "values": best["values"],
                    "trained_steps": results["totals"]["trained_steps"],
                    "whole_steps": best["steps"],
                    "trials": results["totals"]["trials"],
                    "whole_trials": len(longest(results["trials"])),
                    "seconds": round(seconds, 1),
                }
            )
            print(rows[-1], flush=True)
    return rows


def memory(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Run 30 trials in one process; record resident memory and its peak after each."""
    from reszoo.reporting.reporter import Reporter
    from reszoo.tuning.tune import tune

    rows: list[dict[str, Any]] = []

    class Memory(Reporter):
        def line(self, text: str = "") -> None:
            if " trial " in text:
                lines = Path("/proc/self/status").read_text().splitlines()
                status = dict(row.split(":", 1) for row in lines)
                rows.append(
                    {key: int(status[key].split()[0]) // 1024 for key in ("VmRSS", "VmHWM")}
                )
                print(len(rows), rows[-1], flush=True)

    tune(
        "depth_shortcut",
        run_dir=folder / "search",
        trials=30,
        overrides=["train.epochs=2"],
        reporter=Memory(),
    )
    return rows


def faults(folder: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Kill searches, workers and chiefs at random moments; compare the results with those of unbroken searches."""
    space = folder / "tiny.toml"
    space.write_text(TINY)
    chance, rows = random.Random(0), []
    for tuner, workers_, target in (
        ("random", 1, "search"),
        ("hyperband", 1, "search"),
        ("random", 2, "worker"),
        ("hyperband", 2, "worker"),
        ("random", 2, "chief"),
    ):
        flags = [
            "--tuner",
            tuner,
            "--trials",
            "12" if tuner == "random" else "0",
            "--workers",
            str(workers_),
        ]
        whole, _ = search(space, folder / f"{tuner}{target}whole", *flags)
        broken, kills, starts = folder / f"{tuner}{target}", 0, 0
        while True:
            resumed = (broken / "search.json").is_file()
            process = subprocess.Popen(
                [*command(space, broken, *flags), *(["--resume"] if resumed else [])],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            starts += 1
            while process.poll() is None:
                time.sleep(chance.uniform(0.5, 20.0))
                if kills >= args.kills or process.poll() is not None:
                    process.wait()
                    break
                if target == "worker":
                    found = children(process.pid)
                    if found:
                        os.kill(chance.choice(found), signal.SIGKILL)
                        kills += 1
                    continue
                process.kill()
                process.wait()
                kills += 1
            if process.returncode == 0:
                break
            if process.returncode != -signal.SIGKILL:
                raise SystemExit(f"{tuner} {target}: status {process.returncode}")
        results = read_results(broken)
        same = outcome(results) == outcome(whole) if workers_ == 1 or tuner == "random" else None
        rows.append(
            {
                "tuner": tuner,
                "killed": target,
                "kills": kills,
                "starts": starts,
                "trials": whole["totals"]["trials"],
                "trials_lost": whole["totals"]["trials"] - results["totals"]["trials"],
                "results_lost": results["totals"]["trials"] - results["totals"]["completed"],
                "equal_to_unbroken": same,
            }
        )
        print(rows[-1], flush=True)
    return rows


def outcome(results: dict[str, Any]) -> list[str]:
    """Return each trial's values, share and scores, whichever worker ran it."""
    return [
        json.dumps([t["trial"], t["values"], t["share"], t.get("scores")])
        for t in results["trials"]
    ]


def children(pid: int) -> list[int]:
    """Return the processes that `pid` started."""
    try:
        threads = Path(f"/proc/{pid}/task").iterdir()
        return [
            int(child) for thread in threads for child in (thread / "children").read_text().split()
        ]
    except OSError:
        return []


def in_folder(
    rows: Callable[[Path, argparse.Namespace], list[dict[str, Any]]],
) -> Callable[..., dict[str, Any]]:
    """Return a program that runs `rows` in a temporary folder."""

    def measure(args: argparse.Namespace) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            return {"rows": rows(Path(folder), args)}

    return measure


PROGRAMS = {rows.__name__: in_folder(rows) for rows in (workers, hyperband, memory, faults)}
