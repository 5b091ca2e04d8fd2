"""The measurements that need a GPU, within a time limit. `recipes/gpu.sh` starts them. Standard library only.

    python -m reszoo.bench.gpu DATA OUT SECONDS

1. `reszoo train quickstart` on the GPU.
2. `reszoo bench train` beside PyTorch, with and without `train.jit` and `data.on_device`.
3. Figure 6 of arXiv 1512.03385: plain20, resnet20, plain56 and resnet56 in parallel on one GPU. A probe measures the
   step time of all four first. The budget is the largest that ends in time, at most the paper's 64,000 steps.
4. The first step, `mixed_float16` with an overflow, and a run that is killed and resumed.

Each record, OUT/NAME.json, is written as soon as it exists. A second start skips what has a record, and resumes runs.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reszoo.bench.limits import POLL, Clock, Outcome, exit_on_sigterm, run_commands
from reszoo.bench.run import card_name
from reszoo.files import write_json

MODELS = ("plain20", "resnet20", "plain56", "resnet56")
STEPS = 64_000
SHARES = {"quickstart": 0.2, "bench": 0.45, "figure6": 0.85, "rest": 1.0}
"""The share of the limit at which each stage ends."""
SAFETY = 0.92
"""The share of the remaining time that the budget is computed for."""
FASTER = 1.02
"""How many times as fast an option must be to be used."""
PEERS = "torch,torch-compile"
VARIANTS = "reszoo-jit,reszoo-on-host,reszoo-on-device"
BENCHES = {
    "train_resnet20_b128": ("train resnet20 --batch 128", VARIANTS),
    "train_resnet56_b128": ("train resnet56 --batch 128", VARIANTS),
    "train_resnet20_b1024": ("train resnet20 --batch 1024", VARIANTS),
    "train_resnet56_b1024": ("train resnet56 --batch 1024", VARIANTS),
    "train_resnet50_b256": ("train resnet50 --batch 256", "reszoo-jit"),
}
REST = ("first_step_resnet110", "overflow", "kill")
RESZOO = (sys.executable, "-m", "reszoo")


@dataclass(frozen=True)
class Plan:
    """What is measured, where, and how long it may take.

    Attributes:
        data: The folder of CIFAR-10: train/CLASS/*, test/CLASS/*.
        out: The folder of records, logs and runs.
        clock: The time limit.
        peer: The Python of an environment with PyTorch.
        device: "gpu", or "cpu" for a rehearsal.
        steps: 0, or the steps of every run of a rehearsal, which uses few images.
        reszoo: The words that start reszoo's command line.
    """

    data: Path
    out: Path
    clock: Clock
    peer: str = sys.executable
    device: str = "gpu"
    steps: int = 0
    reszoo: Sequence[str] = RESZOO
    card: str = field(default_factory=lambda: card_name())

    def record(self, name: str) -> Path:
        """Return the file of a record."""
        return self.out / f"{name}.json"

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a record with the card's name."""
        write_json(self.record(name), {"card": self.card, **values})
        self.say(f"{name}: written")

    def say(self, line: str) -> None:
        """Print a line with the seconds since the start."""
        print(f"{self.clock.passed:6.0f} s  {line}", flush=True)

    def run(
        self, name: str, words: Sequence[str], stage: str, program: Sequence[str] | None = None
    ) -> Outcome:
        """Run one command of reszoo, or of another program, until its stage ends, and report why it failed."""
        left = self.clock.left(SHARES[stage])
        if left <= 0:
            self.say(f"{name}: skipped, because the time of this stage is over")
            return Outcome(None, 0.0)
        self.say(f"{name}: started")
        command = [*(self.reszoo if program is None else program), *words]
        outcome = run_commands({name: command}, self.out / "logs", left, self.clock.grace)[name]
        self.explain(name, outcome)
        return outcome

    def explain(self, name: str, outcome: Outcome) -> None:
        """Print why a command has no result."""
        if outcome.status is None:
            self.say(f"{name}: stopped after {outcome.seconds:.0f} s, at its limit")
        elif not outcome.succeeded:
            lines = (
                (self.out / "logs" / f"{name}.log").read_text(errors="replace").strip().splitlines()
            )
            self.say(
                f"{name}: failed with status {outcome.status}: {lines[-1] if lines else 'no output'}"
            )

    def train(self, recipe: str, folder: Path, settings: Sequence[str] = ()) -> list[str]:
        """Return the words that train by a recipe in a run folder, or resume the run there, whose images may have moved."""
        words = ["train", "--devices", self.device, "--run-dir", str(folder)]
        if (folder / "recipe.toml").is_file():
            return [
                *words,
                "--resume",
                *(("--data", f"folder:{self.data}") if recipe.startswith("cifar10_") else ()),
            ]
        return [words[0], recipe, *words[1:], *(("--set", *settings) if settings else ())]


def measure(plan: Plan) -> int:
    """Measure everything that has no record yet, most important first; return 0 if nothing is missing, else 1."""
    quickstart(plan)
    benchmarks(plan)
    figure6(plan)
    first_step(plan)
    overflow(plan)
    kill(plan)
    missing = [name for name in records() if not plan.record(name).is_file()]
    plan.say(
        f"missing: {', '.join(missing)}; start again to resume"
        if missing
        else "all records are written"
    )
    return 1 if missing else 0


def records() -> list[str]:
    """Return the names of all records."""
    return [
        "quickstart",
        *BENCHES,
        "figure6_budget",
        *(f"figure6_{model}" for model in MODELS),
        *REST,
    ]


def quickstart(plan: Plan) -> None:
    """Train the quickstart."""
    folder = plan.out / "runs" / "quickstart"
    if plan.record("quickstart").is_file():
        return
    settings = short(plan) if plan.steps else []
    outcome = plan.run("quickstart", plan.train("quickstart", folder, settings), "quickstart")
    if outcome.succeeded:
        plan.write("quickstart", {"wall_seconds": round(outcome.seconds, 1), **summarize(folder)})


def benchmarks(plan: Plan) -> None:
    """Measure training beside PyTorch. If a side fails, measure again with fewer sides."""
    for name, (words, variants) in BENCHES.items():
        if plan.record(name).is_file():
            continue
        if plan.steps:
            words = words.rpartition(" ")[0] + " 2"
        for sides in (f"{PEERS},{variants}", PEERS, "torch"):
            if bench(plan, name, words, sides, "bench").status in (0, None):
                break


def bench(
    plan: Plan, name: str, words: str, against: str, stage: str, precision: str = "mixed_bfloat16"
) -> Outcome:
    """Run one benchmark and write its record, to which the card's name is added by `reszoo bench`."""
    rounds = "1" if plan.steps else "3"
    options = [
        "--against",
        against,
        "--peer",
        plan.peer,
        "--device",
        plan.device,
        "--rounds",
        rounds,
    ]
    options += ["--precision", precision, "--json", str(plan.record(name))]
    return plan.run(name, ["bench", *words.split(), *options], stage)


def figure6(plan: Plan) -> None:
    """Train the four models of figure 6 in parallel, with the budget of `figure6_budget.json`."""
    folders = {f"figure6_{model}": plan.out / "runs" / f"figure6_{model}" for model in MODELS}
    todo = {name: folder for name, folder in folders.items() if not plan.record(name).is_file()}
    if not todo:
        return
    if not plan.record("figure6_budget").is_file():
        choose(plan)
    if not plan.record("figure6_budget").is_file():
        return
    budget = json.loads(plan.record("figure6_budget").read_text())
    settings = [*budget["settings"], *length(plan, budget["steps"])]
    commands = {
        name: [
            *plan.reszoo,
            *plan.train(f"cifar10_{name.removeprefix('figure6_')}", folder, settings),
        ]
        for name, folder in todo.items()
    }
    if (left := plan.clock.left(share(plan))) <= 0:
        plan.say("figure6: skipped, because the time of this stage is over")
        return

    def ended(name: str, outcome: Outcome) -> None:
        if outcome.succeeded:
            plan.write(name, summarize(folders[name]))

    plan.say(f"figure6: {', '.join(todo)} started, {budget['steps']} steps each")
    for name, outcome in run_commands(
        commands, plan.out / "logs", left, plan.clock.grace, ended=ended
    ).items():
        plan.explain(name, outcome)


def share(plan: Plan) -> float:
    """Return the share of the limit at which figure 6 ends: the whole of it if nothing else is missing."""
    return SHARES["rest" if all(plan.record(name).is_file() for name in REST) else "figure6"]


def choose(plan: Plan) -> None:
    """Measure the step time of the four models in parallel, and write the budget that ends in time.

    The probe uses the options that made training faster in the benchmark. If it fails with them, it runs without.
    """
    options = faster_options(plan)
    for settings in [options, []] if options else [[]]:
        found = probe(plan, settings)
        if found is None:
            continue
        seconds_per_step, overhead = found
        steps = budget_steps(
            plan.clock.left(share(plan)), overhead, seconds_per_step, plan.steps or STEPS
        )
        if not steps:
            plan.say("figure6: skipped, because no step ends in time; give more seconds")
            return
        plan.write(
            "figure6_budget",
            {
                "steps": steps,
                "settings": settings,
                "seconds_per_step": seconds_per_step,
                "overhead_seconds": round(overhead, 1),
                "seconds_left": round(plan.clock.left(share(plan)), 1),
            },
        )
        return


def budget_steps(left: float, overhead: float, seconds_per_step: float, most: int = STEPS) -> int:
    """Return the most steps that end in `left` seconds, as a multiple of 4, so that 1/2 and 3/4 of them are whole.

    Args:
        left: Seconds until everything must have ended.
        overhead: Seconds of a run beside its steps: imports, data, tracing, evaluation of the test set.
        seconds_per_step: Seconds of a step while all runs go on, with its share of evaluations and checkpoints.
        most: The upper limit.
    """
    steps = int((SAFETY * left - overhead) / seconds_per_step)
    return most if steps >= most else max(0, steps // 4 * 4)


def length(plan: Plan, steps: int) -> list[str]:
    """Return the settings of a run of `steps` steps: the learning rate drops at 1/2 and 3/4 of it."""
    return [
        f"train.steps={steps}",
        f"schedule.boundaries=[{steps / 2:g}, {3 * steps / 4:g}]",
        *images(plan),
    ]


def images(plan: Plan) -> list[str]:
    """Return the settings that name the images: all of them, or in a rehearsal an epoch of two small batches."""
    few = ["data.examples=32", "data.validation=8", "train.batch_size=16"] if plan.steps else []
    return [f"data.name=folder:{plan.data}", "train.export=false", *few]


def faster_options(plan: Plan) -> list[str]:
    """Return the settings that made resnet56 faster in the benchmark of batch 128."""
    file = plan.record("train_resnet56_b128")
    if not file.is_file():
        return []
    (row,) = json.loads(file.read_text())["models"]
    speed = {side: values["images_per_second"] for side, values in row["sides"].items()}
    pairs = {
        "train.jit=true": ("reszoo-jit", "reszoo"),
        "data.on_device=true": ("reszoo-on-device", "reszoo-on-host"),
    }
    return [
        setting
        for setting, (side, plain) in pairs.items()
        if side in speed and plain in speed and speed[side] > FASTER * speed[plain]
    ]


def probe(plan: Plan, options: Sequence[str]) -> tuple[float, float] | None:
    """Train the four models for two epochs in parallel.

    Returns:
        (seconds of a step, seconds of a run beside its steps) of the slowest, or None if a run failed or did not end.
    """
    folder = plan.out / "probe"
    shutil.rmtree(folder, ignore_errors=True)
    left = plan.clock.left(share(plan))
    if left <= 0:
        return None
    settings = [*options, "train.epochs=2", *images(plan)]
    commands = {
        f"probe_{model}": [
            *plan.reszoo,
            *plan.train(f"cifar10_{model}", folder / f"probe_{model}", settings),
        ]
        for model in MODELS
    }
    rows: dict[str, list[tuple[int, float]]] = {
        name: [] for name in commands
    }  # (step, time) of each row of a history

    def observe() -> None:
        for name, seen in rows.items():
            seen += read_rows(folder / name / "history.csv", len(seen))

    plan.say(f"figure6: step time is measured{' with ' + ' '.join(options) if options else ''}")
    outcomes = run_commands(commands, plan.out / "logs", left, plan.clock.grace, observe=observe)
    for name, outcome in outcomes.items():
        plan.explain(name, outcome)
    if not all(outcome.succeeded for outcome in outcomes.values()):
        return None
    each = {}
    for name, seen in rows.items():
        (first, before), (last, after) = seen[0], seen[-1]
        if last > first:
            each[name] = (after - before) / (last - first)
        else:  # both rows appeared between two looks
            each[name] = json.loads((folder / name / "run.json").read_text())["seconds"] / last
    overhead = max(
        outcome.seconds - rows[name][-1][0] * each[name] for name, outcome in outcomes.items()
    )
    return max(each.values()), max(overhead, 0.0)


def read_rows(file: Path, known: int) -> list[tuple[int, float]]:
    """Return (step, time) of the newest row of a run's history, if there are more than `known` rows."""
    try:
        with open(file, encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
            written = os.fstat(text.fileno()).st_mtime
    except FileNotFoundError:
        return []
    return [(int(rows[-1]["step"]), written)] if len(rows) > known else []


def first_step(plan: Plan) -> None:
    """Measure the time to the first step of a deep model."""
    if not plan.record("first_step_resnet110").is_file():
        words = f"first-step resnet110 --batch {2 if plan.steps else 128}"
        bench(plan, "first_step_resnet110", words, "torch", "rest", "float32")


def overflow(plan: Plan) -> None:
    """Train in mixed_float16 from a loss scale that overflows: the first steps are skipped, the loss stays a number."""
    if plan.record("overflow").is_file():
        return
    folder = plan.out / "runs" / "overflow"
    shutil.rmtree(folder, ignore_errors=True)
    code = "import sys; from reszoo.bench.gpu import train_overflow; train_overflow(*sys.argv[1:])"
    small = ["train.steps=40", "train.batch_size=16", "model.name=resnet8"] if plan.steps else []
    settings = [*short(plan), *small, "train.precision=mixed_float16"]
    command = [sys.executable, "-c", code, str(folder), plan.device, *settings]
    if (outcome := plan.run("overflow", command, "rest", program=())).succeeded:
        found = summarize(folder)
        skipped = sum(row["skipped"] for row in found["history"])
        plan.write(
            "overflow",
            {"wall_seconds": round(outcome.seconds, 1), "skipped_steps": skipped, **found},
        )


def train_overflow(folder: str, device: str, *settings: str) -> None:
    """Train the quickstart from a loss scale of 2**30, which overflows float16 until about 15 steps have halved it."""
    from reszoo.config.load import load_recipe
    from reszoo.trainer import Trainer

    session = Trainer.prepare(load_recipe("quickstart", settings), run_dir=folder, devices=device)
    session.loop.stepper.loss_scale.scale.assign(2.0**30)
    if not session.fit():
        raise SystemExit(130)


def kill(plan: Plan) -> None:
    """Kill a deterministic run with SIGKILL after its first checkpoint, resume it, and compare it with an unbroken one."""
    if plan.record("kill").is_file():
        return
    unbroken, killed = (plan.out / "runs" / name for name in ("kill_unbroken", "kill_killed"))
    settings = [
        *short(plan),
        "train.deterministic=true",
        f"train.checkpoint_every={1 if plan.steps else 20}",
    ]
    if not (unbroken / "test.json").is_file():
        plan.run("kill_unbroken", plan.train("quickstart", unbroken, settings), "rest")
    shutil.rmtree(killed, ignore_errors=True)
    command = [*plan.reszoo, *plan.train("quickstart", killed, settings)]
    if not (unbroken / "test.json").is_file() or plan.clock.left() <= 0:
        return
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        while (
            process.poll() is None
            and not any(killed.glob("checkpoints/step-*"))
            and plan.clock.left() > 0
        ):
            time.sleep(POLL)
    finally:
        process.kill()
        process.wait()
    if plan.run("kill", plan.train("quickstart", killed, settings), "rest").succeeded:
        one, other = summarize(unbroken), summarize(killed)
        equal = all(one[key] == other[key] for key in ("history", "test"))
        plan.write(
            "kill", {"status_of_killed": process.returncode, "equal_to_the_bit": equal, **other}
        )


def short(plan: Plan) -> list[str]:
    """Return the settings of a short quickstart."""
    return [f"train.steps={plan.steps or 200}", "schedule.warmup=0", "train.export=false"]


def summarize(folder: Path) -> dict[str, Any]:
    """Return what a record keeps of a finished run: no path of the machine."""
    run, history = (
        json.loads((folder / name).read_text()) for name in ("run.json", "history.json")
    )
    test = (
        json.loads((folder / "test.json").read_text()) if (folder / "test.json").is_file() else {}
    )
    kept = ("devices", "versions", "backend", "parameters", "seed", "steps", "seconds")
    return {
        **{key: run[key] for key in kept if key in run},
        "test": {key: value for key, value in test.items() if isinstance(value, int | float)},
        "history": history,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure within the limit; return 0 if every record is written, else 1."""
    parser = argparse.ArgumentParser(
        prog="gpu.sh", description="Measure what needs a GPU, within a time limit."
    )
    parser.add_argument("data", type=Path, help="folder of CIFAR-10: train/CLASS/*, test/CLASS/*")
    parser.add_argument("out", type=Path, help="folder of records, logs and runs")
    parser.add_argument("seconds", type=float, help="everything ends within so many seconds")
    parser.add_argument(
        "--peer",
        default=sys.executable,
        help="Python of an environment with PyTorch (default: this one)",
    )
    parser.add_argument(
        "--device", default="gpu", choices=("gpu", "cpu"), help="cpu is for a rehearsal"
    )
    parser.add_argument("--steps", type=int, default=0, help="steps of each run of a rehearsal")
    args = parser.parse_args(argv)
    for split in ("train", "test"):
        if not (args.data / split).is_dir():
            parser.error(
                f"DATA: {args.data} is invalid; expected a folder with train/CLASS/* and test/CLASS/*"
            )
    if not args.seconds > 0:
        parser.error(
            f"SECONDS: {args.seconds:g} is invalid; expected a number above 0. Example: 600"
        )
    args.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        args.data.resolve(),
        args.out.resolve(),
        Clock(args.seconds),
        args.peer,
        args.device,
        args.steps,
    )
    with exit_on_sigterm():
        return measure(plan)


if __name__ == "__main__":
    sys.exit(main())
