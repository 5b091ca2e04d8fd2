"""Measurements that need a GPU, within a time limit; started by `recipes/gpu.sh`.

    python -m reszoo.bench.gpu DATA OUT SECONDS

1. `reszoo train quickstart` on the GPU.
2. `reszoo bench train` compared with PyTorch, with and without `train.jit` and `data.on_device`.
3. Figure 6 of arXiv 1512.03385: plain20, resnet20, plain56 and resnet56 in parallel on one GPU. A
   probe measures the step time of all four. The budget is the largest that ends in time, at most
   64,000 steps.
4. The first step, `mixed_float16` with an overflow, and a run that is killed and resumed.

Each record, OUT/NAME.json, is written as soon as it exists. A second start skips what has a record,
and resumes runs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from reszoo.bench.figure6 import measure_figure6
from reszoo.bench.limits import POLL, Clock, exit_on_sigterm
from reszoo.bench.plan import MODELS, REST, Plan, summarize
from reszoo.reporting.reporter import Reporter

PEERS = "torch,torch-compile"
VARIANTS = "reszoo-jit,reszoo-on-host,reszoo-on-device"
BENCHES = {
    "train_resnet20_b128": ("train resnet20 --batch 128", VARIANTS),
    "train_resnet56_b128": ("train resnet56 --batch 128", VARIANTS),
    "train_resnet20_b1024": ("train resnet20 --batch 1024", VARIANTS),
    "train_resnet56_b1024": ("train resnet56 --batch 1024", VARIANTS),
    "train_resnet50_b256": ("train resnet50 --batch 256", "reszoo-jit"),
}
RECORDS = ["quickstart", *BENCHES, "figure6_budget", *(f"figure6_{name}" for name in MODELS), *REST]


def measure(plan: Plan) -> int:
    """Measure everything that has no record, most important first.

    Returns:
        0 if all records exist, else 1.
    """
    if plan.missing("quickstart"):
        measure_quickstart(plan)
    measure_benchmarks(plan)
    measure_figure6(plan)
    if plan.missing("first_step_resnet110"):
        words = f"first-step resnet110 --batch {2 if plan.steps else 128}"
        command = plan.bench(words, "first_step_resnet110", "torch", "float32")
        plan.run("rest", {"first_step_resnet110": command})
    if plan.missing("overflow"):
        measure_overflow(plan)
    if plan.missing("kill"):
        measure_kill(plan)
    missing = [name for name in RECORDS if plan.missing(name)]
    plan.report(
        f"missing: {', '.join(missing)}; start again to resume"
        if missing
        else "all records are written"
    )
    return 1 if missing else 0


def measure_quickstart(plan: Plan) -> None:
    """Train the quickstart."""
    folder = plan.out / "runs" / "quickstart"
    command = plan.train("quickstart", folder, shorten(plan) if plan.steps else [])
    outcome = plan.run("quickstart", {"quickstart": command})["quickstart"]
    if outcome.succeeded:
        plan.write("quickstart", {"wall_seconds": round(outcome.seconds, 1), **summarize(folder)})


def measure_benchmarks(plan: Plan) -> None:
    """Measure training compared with PyTorch. If a side fails, measure again with fewer sides."""
    for name, (words, variants) in BENCHES.items():
        if plan.steps:
            words = words.rpartition(" ")[0] + " 2"
        for sides in (f"{PEERS},{variants}", PEERS, "torch") if plan.missing(name) else ():
            command = plan.bench(words, name, sides, "mixed_bfloat16")
            if plan.run("bench", {name: command})[name].status in (0, None):
                break


def measure_overflow(plan: Plan) -> None:
    """Train in mixed_float16 from a loss scale that overflows: the first steps are skipped."""
    folder = plan.out / "runs" / "overflow"
    shutil.rmtree(folder, ignore_errors=True)
    code = "import sys; from reszoo.bench.gpu import train_overflow; train_overflow(*sys.argv[1:])"
    small = ["train.steps=40", "train.batch_size=16", "model.name=resnet8"] if plan.steps else []
    settings = [*shorten(plan), *small, "train.precision=mixed_float16"]
    command = [sys.executable, "-c", code, str(folder), plan.device, *settings]
    outcome = plan.run("rest", {"overflow": command})["overflow"]
    if outcome.succeeded:
        found = summarize(folder)
        skipped = sum(row["skipped"] for row in found["history"])
        seconds = round(outcome.seconds, 1)
        plan.write("overflow", {"wall_seconds": seconds, "skipped_steps": skipped, **found})


def train_overflow(folder: str, device: str, *settings: str) -> None:
    """Train the quickstart from a loss scale of 2**30, which overflows for about 15 steps."""
    from reszoo.config.load import load_recipe
    from reszoo.trainer import Trainer

    trainer = Trainer.prepare(load_recipe("quickstart", settings), run_dir=folder, devices=device)
    trainer.stepper.loss_scale.scale.assign(2.0**30)
    if not trainer.fit():
        raise SystemExit(130)


def measure_kill(plan: Plan) -> None:
    """Kill a deterministic run after its first checkpoint, resume it, and compare the result."""
    unbroken, killed = (plan.out / "runs" / name for name in ("kill_unbroken", "kill_killed"))
    every = f"train.checkpoint_every={1 if plan.steps else 20}"
    settings = [*shorten(plan), "train.deterministic=true", every]
    if not (unbroken / "test.json").is_file():
        plan.run("rest", {"kill_unbroken": plan.train("quickstart", unbroken, settings)})
    shutil.rmtree(killed, ignore_errors=True)
    if not (unbroken / "test.json").is_file() or plan.clock.left() <= 0:
        return
    command, quiet = plan.train("quickstart", killed, settings), subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        while process.poll() is None and plan.clock.left() > 0:
            if any(killed.glob("checkpoints/step-*")):
                break
            time.sleep(POLL)
    finally:
        process.kill()
        process.wait()
    resume = plan.train("quickstart", killed, settings)
    if plan.run("rest", {"kill": resume})["kill"].succeeded:
        one, other = summarize(unbroken), summarize(killed)
        equal = all(one[key] == other[key] for key in ("history", "test"))
        status = process.returncode
        plan.write("kill", {"status_of_killed": status, "equal_to_the_bit": equal, **other})


def shorten(plan: Plan) -> list[str]:
    """Return the overrides of a short quickstart."""
    return [f"train.steps={plan.steps or 200}", "schedule.warmup=0", "train.export=false"]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure within the limit; return 0 if every record is written, else 1."""
    parser = argparse.ArgumentParser(
        prog="gpu.sh", description="Measure what needs a GPU, within a time limit."
    )
    add = parser.add_argument
    add("data", type=Path, help="folder of CIFAR-10: train/CLASS/*, test/CLASS/*")
    add("out", type=Path, help="folder of records, logs and runs")
    add("seconds", type=float, help="everything ends within this number of seconds")
    add("--peer", default=sys.executable, help="Python with PyTorch (default: this one)")
    add("--device", default="gpu", choices=("gpu", "cpu"), help="cpu is for a rehearsal")
    add("--steps", type=int, default=0, help="steps of each run of a rehearsal")
    args = parser.parse_args(argv)
    if not all((args.data / split).is_dir() for split in ("train", "test")):
        parser.error(
            f"DATA: {args.data} is invalid; expected a folder with train/CLASS/* and test/CLASS/*"
        )
    if not args.seconds > 0:
        parser.error(f"SECONDS: {args.seconds:g} is invalid; expected a number > 0. Example: 600")
    args.out.mkdir(parents=True, exist_ok=True)
    data, out = args.data.resolve(), args.out.resolve()
    reporter = Reporter(log=out / "gpu.log")
    clock = Clock(args.seconds)
    plan = Plan(data, out, clock, args.peer, args.device, args.steps, reporter=reporter)
    with exit_on_sigterm():
        return measure(plan)


if __name__ == "__main__":
    sys.exit(main())
