"""Tables of the documentation that are made from the records in docs/results."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import reszoo
from reszoo.claims.ledger import find_claims
from reszoo.claims.page import HEADERS, claim_row, summarize
from reszoo.claims.verdicts import judge
from reszoo.comparison.page import describe_difference
from reszoo.comparison.statistics import paired_difference
from reszoo.lab import report
from reszoo.lab.record import read_record
from reszoo.reporting.page import mean_and_deviation
from reszoo.tuning.report import finding

RESULTS = Path(__file__).parent / "results"


def table(headers: str, lines: Iterable[str]) -> str:
    """Return a table in Markdown. Bars separate the cells of the headers and of each line."""
    rule = "|" + "---|" * (headers.count("|") + 1)
    return "\n".join([f"| {headers} |", rule, *(f"| {line} |" for line in lines)])


def spread(ratio: float, ends: list[float]) -> str:
    """Return a ratio with its range."""
    return f"{ratio:.2f} ({ends[0]:.2f} to {ends[1]:.2f})"


def record(path: str) -> Any:
    """Return a record of docs/results."""
    return json.loads((RESULTS / path).read_text(encoding="utf-8"))


def command(path: str, page: Path) -> str:
    """Return the command of a record as it is typed today, with a link to the record."""
    found = record(path)
    typed = re.sub(
        r"tests/bench/(\w+)\.py", r"tests/bench \1", found.get("command") or found["how"]
    )
    link = os.path.relpath(RESULTS / path, page.parent)
    return f"`{typed}` ([record]({link}))"


def commands(page: Path, *paths: str) -> str:
    """Return the commands of several records as a list."""
    return "\n".join(f"- {command(path, page)}" for path in paths)


def measured(page: Path, path: str, headers: str, lines: Iterable[str]) -> str:
    """Return a table below the command and the record that it comes from."""
    return f"Command: {command(path, page)}.\n\n{table(headers, lines)}"


def bench(page: Path, *names: str) -> str:
    """Compare speeds; all records of one table come from one processor and one precision."""
    paths = [f"bench/{name}.json" for name in names]
    found = [record(path) for path in paths]
    ((processor, precision),) = {
        (each["machine"]["processor"], each["precision"]) for each in found
    }
    headers = "benchmark | model, batch | reszoo | other | reszoo is times as fast"
    text = table(f"{headers} | of peak | memory", chain.from_iterable(map(bench_rows, found)))
    head = f"Processor: {processor}. Precision: {precision}."
    return f"{head}\n\n{text}\n\nCommands:\n\n{commands(page, *paths)}"


def bench_rows(found: dict[str, Any]) -> Iterator[str]:
    """Yield the rows of a record of `reszoo bench`."""
    what = found["what"]
    unit, key = "images/s", "images_per_second"
    if what in ("build", "first-step"):
        unit, key = "s", "seconds"
    for model in found["models"]:
        (_, ours), *others = model["sides"].items()
        name, peak, memory = model["model"], "", ""
        if what != "build":
            name += f", b{model['batch']}" if "batch" in model else ""
            memory = f"{ours['peak_mb']:,} MB" if ours.get("peak_mb") else ""
        if share := ours.get("share_of_matrix_product"):
            peak = f"{100 * share:.0f} %"
        for side, row in others or [("", None)]:
            other, ratio = "", ""
            if row:
                other = f"{side} {row[key]:,.4g}"
                ratio = spread(row["reszoo_times_faster"], row["reszoo_times_faster_range"])
            own = f"{ours[key]:,.4g} {unit}"
            yield " | ".join([what, name, own, other, ratio, peak, memory])


def depth(page: Path) -> str:
    """Show cost against depth, and what each layer costs beyond the model above."""
    lines, before = [], None
    starts, trained = (
        record(f"bench/depth_{name}.json")["models"] for name in ("first_step", "train")
    )
    for start, steps in zip(starts, trained, strict=True):
        own = start["sides"]["reszoo"]
        step = 1000 * steps["batch"] / steps["sides"]["reszoo"]["images_per_second"]
        now = [step, own["seconds"], own["build_seconds"], own["peak_mb"]]
        layers = reszoo.count(start["model"]).depth
        cells = ["{:,.0f} ms", "{:.2f} s", "{:.2f} s", "{:,} MB"]
        cells = [cell.format(value) for cell, value in zip(cells, now, strict=True)]
        if before:
            more = [(b - a) / (layers - before[0]) for a, b in zip(before[1], now, strict=True)]
            extra = ["{:.2f} ms", "{:.1f} ms", "{:.1f} ms", "{:.2f} MB"]
            scales = (1, 1000, 1000, 1)
            cells = [
                f"{cell} ({text.format(scale * value)})"
                for cell, text, scale, value in zip(cells, extra, scales, more, strict=True)
            ]
        lines.append(" | ".join([start["model"], *cells]))
        before = layers, now
    return table("model, 4 images | step | first step | build | memory", lines)


def kernels(page: Path) -> str:
    """Show the share of each kind of kernel in a training step."""
    paths = ("kernels_float32.json", "kernels_bfloat16.json")
    spent = [record(path)["kernel_milliseconds"] for path in paths]
    shares = [{kind: 100 * each[kind] / sum(each.values()) for kind in each} for each in spent]
    text = table(
        "kernels | float32 | mixed_bfloat16",
        [f"{kind} | {share:.0f} % | {shares[1][kind]:.0f} %" for kind, share in shares[0].items()],
    )
    head = f"Processor: {record(paths[0])['processor']}."
    return f"{head}\n\n{text}\n\nCommands:\n\n{commands(page, *paths)}"


def precision(page: Path) -> str:
    """Compare the test errors of two precisions."""
    lines, rows = [], record("precision.json")["rows"]
    for row in rows:
        errors = row["test_errors"]
        mean, deviation = statistics.mean(errors), statistics.stdev(errors)
        shown = ", ".join(f"{error:.2f}" for error in errors)
        lines.append(
            f"{row['recipe']} | {row['precision']} | {shown} | {mean:.2f} ± {deviation:.2f}"
        )
    text = table("recipe | precision | test error of seeds 0, 1, 2 in % | mean ± deviation", lines)
    typed = "\n".join(f"- `{each}`" for each in dict.fromkeys(row["command"] for row in rows))
    return f"{text}\n\nCommands:\n\n{typed}"


def convolutions(page: Path) -> str:
    """Show the share of the matrix product's speed that convolutions reach."""
    path = "convolutions.json"
    shares = record(path)["share_of_matrix_product"]
    lines = [
        " | ".join([channels, *(f"{100 * share:.0f} %" for share in row.values())])
        for channels, row in shares.items()
    ]
    return measured(page, path, " | ".join(["channels", *next(iter(shares.values()))]), lines)


def checkpointing(page: Path) -> str:
    """Compare steps that keep what is inside the blocks with steps that compute it again."""
    paths = [path.name for path in sorted(RESULTS.glob("memory_*.json"))]
    lines = []
    for row in chain.from_iterable(record(path)["rows"] for path in paths):
        keep, again = row["keep"], row["checkpoint"]
        share = again["step_mib"] / keep["step_mib"]
        lines.append(
            f"`{row['model']}`, {row['batch']} images | {keep['step_mib']:,} MiB | "
            f"{again['step_mib']:,} MiB | {share:.2f} | "
            f"{again['step_seconds'] / keep['step_seconds']:.2f}"
        )
    headers = "model | memory of a step | with `checkpoint_gradients` | share | ratio of times"
    return f"{table(headers, lines)}\n\nCommands:\n\n{commands(page, *paths)}"


def hosts(page: Path) -> str:
    """Compare two workers with one process, and show what they exchange."""
    path = "hosts.json"
    lines = []
    for name, row in record(path)["rows"].items():
        model, reduction = name.split()
        ratio = row["one_process_ms"] / row["two_workers_ms"]
        lines.append(
            f"`{model}`, {row['batch']} images | {reduction} | {row['one_process_ms']:.0f} ms | "
            f"{row['two_workers_ms']:.0f} ms | {ratio:.2f} | {row['bytes'] / 1e6:.1f} MB | "
            f"{row['reduction_ms']:.0f} ms ({100 * row['share']:.0f} %)"
        )
    headers = (
        "model | gradients as | one process | two workers | speed | exchanged | exchange alone"
    )
    return measured(page, path, headers, lines)


def photographs(page: Path) -> str:
    """Show the milliseconds of a core per image, up to each stage of the pipeline."""
    path = "photographs.json"
    stages = record(path)["core_milliseconds_an_image_up_to"].items()
    lines = [f"{name} | {spent:.2f}" for name, spent in stages]
    return measured(page, path, "up to | ms per image", lines)


def augmentation(page: Path) -> str:
    """Show the cost of each random change, by the size of the image."""
    path, lines = "augmentation.json", []
    rows = record(path)["rows"]
    for small, large in zip(
        *([row for row in rows if row["size"] == size] for size in (32, 224)), strict=True
    ):
        name = f"{small['change']} {small['interpolation']}".strip()
        cells = [f"`{name}`"]
        for row in (small, large):
            cells.append(f"{row['core_microseconds']:,.0f}")
            pillow = row.get("pillow_core_microseconds")
            cells.append(f"{pillow:,.0f}" if pillow else "")
        shares = [row["differing_percent"] for row in (small, large) if "differing_percent" in row]
        lines.append(" | ".join([*cells, f"{max(shares):g}" if shares else ""]))
    sizes = " | ".join(f"{size} x {size} | Pillow" for size in (32, 224))
    return measured(page, path, f"change | {sizes} | pixels differing, %", lines)


def engine(page: Path) -> str:
    """Show the cost of everything around the training steps."""
    found = record("engine.json")
    share = f"{100 * found['engine_share_of_wall']:.1f} %"
    line = f"{found['step_ms']:.1f} ms | {found['between_steps_ms']:.1f} ms | {share}"
    return measured(page, "engine.json", "step | between steps | share of the run", [line])


def gpu_speed(page: Path) -> str:
    """Show images per second on a GPU, compared with PyTorch."""
    found = record("gpu/speed.json")
    sides = ("reszoo", "reszoo-jit", "torch", "torch-compile")
    lines = []
    for row in found["models"]:
        speed = row["images_per_second"]
        cells = [f"{speed[side]:,.0f}" if side in speed else "" for side in sides]
        torch = max(speed.get(side, 0) for side in ("torch", "torch-compile"))
        cells.append(f"{speed['reszoo-jit'] / torch:.2f}")
        other = "\\*" if row["other_work"] else ""
        lines.append(" | ".join([f"{row['model']}, {row['batch']}{other}", *cells]))
    headers = f"model, batch | {' | '.join(sides)} | reszoo-jit / PyTorch's faster side"
    return measured(page, "gpu/speed.json", headers, lines)


def gpu_side_by_side(page: Path) -> str:
    """Show the speed of several runs on one GPU."""
    found = record("gpu/side_by_side.json")
    lines = []
    for name, total in reversed(found["images_per_second"].items()):
        steps = [row["ms_per_step"] for row in found[name]]
        low, high = f"{min(steps):.1f}", f"{max(steps):.1f}"
        span = low if low == high else f"{low} to {high}"
        lines.append(f"{len(steps)} | {span} | {total:,}")
    headers = "runs at once | ms per step of each | images/s of all"
    return measured(page, "gpu/side_by_side.json", headers, lines)


def experiment(page: Path, name: str) -> str:
    """Quote what an experiment of the lab found."""
    return f"> {report.finding(read_record(RESULTS / 'lab' / name))}"


def search(page: Path, name: str) -> str:
    """Show what a search found: its finding, and accuracy by depth and shortcut."""
    found = record(f"tune/{name}.json")
    lines = [
        f"{number} | {label} | {cell['count']} | "
        f"{100 * cell['mean']:.2f} | {100 * cell['training']:.2f}"
        for label, cells in found["grid"]["cells"].items()
        for number, cell in cells.items()
    ]
    headers = "depth | shortcut | trials | mean validation accuracy, % | mean training accuracy, %"
    return f"> {finding(found)}\n\n{table(headers, lines)}"


def tuners(page: Path) -> str:
    """Compare hyperband with random search."""
    path, lines = "tune/hyperband.json", []
    for tuner in ("hyperband", "random"):
        own = [row for row in record(path)["rows"] if row["tuner"] == tuner]
        best = [100 * row["best"] for row in own]
        mean, deviation = statistics.mean(best), statistics.stdev(best)
        shown = ", ".join(f"{each:.2f}" for each in best)
        steps = ", ".join(f"{row['trained_steps']:,}" for row in own)
        lines.append(f"{tuner} | {shown} | {mean:.2f} ± {deviation:.2f} | {steps}")
    return measured(page, path, "tuner | seeds 0, 1, 2 | mean | training steps", lines)


def workers(page: Path) -> str:
    """Show trials per minute by the number of workers."""
    path = "tune/workers.json"
    lines = ["{workers} | {trials_a_minute:.2f}".format(**row) for row in record(path)["rows"]]
    return measured(page, path, "workers | trials per minute", lines)


def faults(page: Path) -> str:
    """Show searches that were killed."""
    path, lines = "tune/faults.json", []
    for row in record(path)["rows"]:
        same = "yes" if row["equal_to_unbroken"] else "-"
        cells = "{tuner} | {killed} | {kills} | {trials} | {trials_lost} | {results_lost} | "
        lines.append(cells.format(**row) + same)
    headers = "tuner | killed | kills | trials | trials lost | results lost | equal"
    return measured(page, path, headers, lines)


def memory(page: Path) -> str:
    """Show the memory of a search, in MB."""
    path = "tune/memory.json"
    rows = record(path)["rows"]
    lines = [f"{n} | {rows[n - 1]['VmRSS']:,} | {rows[n - 1]['VmHWM']:,}" for n in (5, 10, 20, 30)]
    return measured(page, path, "trial | resident, MB | peak so far, MB", lines)


def exports(page: Path) -> str:
    """Compare the speed of exports with peers."""
    path, lines = "export/speed.json", []
    batches = record(path)["results"].values()
    for name, first in next(iter(batches))["rows"].items():
        cells = [name, first["runtime"]]
        for batch in batches:
            row = batch["rows"][name]
            cells.append(f"{row['images_per_second']:.1f}")
            cells.append(spread(row["ratio"], row["ratio_range"]))
        lines.append(" | ".join(cells))
    sizes = " | ".join(f"batch {n}, images/s | of the best peer" for n in (1, 32))
    return measured(page, path, f"artifact | runtime | {sizes}", lines)


def folds(page: Path) -> str:
    """Compare exports with folded and unfolded batch norm."""
    path, lines = "export/fold.json", []
    for name, result in record(path)["results"].items():
        own, other = (result["rows"][how] for how in ("folded", "unfolded"))
        speeds = " | ".join(f"{each['images_per_second']:,.1f}" for each in (own, other))
        lines.append(f"{name} | {speeds} | {spread(own['ratio'], own['ratio_range'])}")
    return measured(page, path, "model | folded, images/s | as trained, images/s | ratio", lines)


def export_parity(page: Path) -> str:
    """Compare exports with Keras on images."""
    path, lines = "export/parity.json", []
    cells = "{mb:.2f} | {logit_difference:.1e} | {probability_difference:.1e} | {same:.1f} | "
    cells += "{points:+.1f}"
    for name, row in record(path)["results"].items():
        points = 100 * (row["accuracy"] - row["keras_accuracy"])
        shown = cells.format(
            **row, mb=row["bytes"] / 1e6, same=100 * row["agreement"], points=points
        )
        lines.append(f"{name.replace(', ', ' | ')} | {shown}")
    headers = (
        "model | format | precision | MB | logit | probability | same class, % | accuracy, points"
    )
    return measured(page, path, headers, lines)


def fuzz(page: Path) -> str:
    """Show what malformed files did."""
    lines, names = [], ("signature", "endpoint", "page")
    for name in names:
        found = record(f"export/fuzz_{name}.json")
        resident = found["resident_mb_by_tenths"]
        counts = "{files:,} | {crashes} | {wrong_statuses} | {disturbed_neighbours}".format(**found)
        lines.append(f"{name} | {counts} | {resident[0]:,} | {resident[-1]:,}")
    headers = "through | files | crashes | wrong statuses | neighbors disturbed"
    paths = [f"export/fuzz_{name}.json" for name in names]
    text = table(f"{headers} | MB at first | MB at last", lines)
    return f"{text}\n\nCommands:\n\n{commands(page, *paths)}"


def load(page: Path) -> str:
    """Show serve-check under load."""
    path = "export/load.json"
    found = record(path)
    times = found["milliseconds"]["one picture"]
    resident = ", ".join(f"{each:,}" for each in found["resident_mb_by_sixths"])
    milliseconds = f"{times['median']:g} | {times['99th']:g}"
    line = f"{found['requests']:,} | {found['errors']} | {milliseconds} | {resident}"
    headers = "requests | errors | median of one image, ms | 99th percentile, ms"
    return measured(page, path, f"{headers} | resident memory every 10 s, MB", [line])


def weights_parity(page: Path) -> str:
    """Compare models with published weights with the framework that the weights come from."""
    path, lines = "weights/parity.json", []
    for row in record(path)["rows"]:
        sides = ", ".join(map(str, row["sizes"]))
        cells = "{logits:.1e} | {gradient:.1e} | {back:.1e} | {seconds:.2f}".format(**row)
        lines.append(f"`{row['model']}` | {row['layout']} | {sides} | {cells}")
    headers = "model | layout | sizes | logits | gradient | back | seconds"
    return measured(page, path, headers, lines)


def equivalence(page: Path) -> str:
    """Compare 100 steps of recipes with the original libraries' code, and with other readings."""
    path, lines, others = "equivalence.json", [], []
    for row in record(path)["rows"]:
        exact = row["float64"]
        averages = f"{exact['averages']:.0e}" if "averages" in exact else ""
        lines.append(
            f"`{row['recipe']}` | {row['library']} | {exact['weights']:.0e} | {averages} | "
            f"{row['float32']['weights']:.0e} | {exact['moved']:.1e}"
        )
        others += [
            f"{name} | `{row['recipe']}` | {found:.0e}" for name, found in row["departures"].items()
        ]
    headers = "recipe | the original's own code | weights, float64 | averages | float32 | moved"
    shown = table("what reszoo does otherwise | recipe | weights, float64", others)
    return f"{measured(page, path, headers, lines)}\n\n{shown}"


def images(page: Path) -> str:
    """Compare the way from image files to logits."""
    path = "weights/images.json"
    cells = (
        "`{model}` | {weights} | {transforms} | {images:,} | {pixels_differing_percent:g} | "
        "{largest_pixel_difference} | {logits:.1e} | {other_answers} | {accuracy}"
    )
    lines = [cells.format(**{"accuracy": "", **row}) for row in record(path)["rows"]]
    headers = "model | weights | transforms of | images | pixels differing, % | by at most"
    return measured(page, path, f"{headers} | logits | other answers | accuracy, %", lines)


def imbalance(page: Path) -> str:
    """Compare the remedies for imbalanced classes."""
    path = "imbalance.json"
    lines = []
    for row in record(path)["rows"]:
        cells = [
            f"{100 * row[f'{name}_mean']:.1f} ± {100 * row[f'{name}_deviation']:.1f}"
            for name in ("macro_f1", "accuracy", "rarest_recall")
        ]
        lines.append(" | ".join([row["arm"], *cells]))
    headers = "remedy | macro F1, % | accuracy, % | recall of the rarest class, %"
    return f"Command: {command(path, page)}.\n\n{table(headers, lines)}"


def walks(page: Path) -> str:
    """Show the commands and the seconds of the walks of a new user."""
    lines = []
    found = record("walks.json")
    for name in (each for each in ("photos", "shortcut") if each in found):
        walk = found[name]
        each = ", ".join(f"{row['seconds']:.0f}" for row in walk["commands"])
        link = os.path.relpath(RESULTS.parent / f"howto-{name}.md", page.parent)
        lines.append(f"[howto-{name}]({link}) | {walk['count']} | {walk['seconds']:.0f} | {each}")
    return measured(page, "walks.json", "walk | commands | seconds | seconds of each", lines)


def finetune(page: Path) -> str:
    """Compare published weights with new ones after fine-tuning."""
    lines = [
        "{arm} | {steps} | {error:.2f} ± {deviation:.2f} | {images:,}".format(**row)
        for row in record("weights/finetune-fashion.json")["rows"]
    ]
    return table("arm | steps | test error, % | test images", lines)


def trainings(page: Path) -> str:
    """Show the test errors of training runs, with each published figure that their recipes name."""
    lines = []
    for path in sorted(RESULTS.glob("*/record.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        rows, recipe = found["rows"], reszoo.load_recipe(found["recipe"])
        model = found.get("model", recipe.model.name)
        published = recipe.published if model == recipe.model.name else ""
        error = mean_and_deviation([row["test_error"] for row in rows])
        seeds = ", ".join(str(row["seed"]) for row in rows)
        flips = [row["test_error_flip"] for row in rows if row.get("test_error_flip") is not None]
        flip = f"{statistics.mean(flips):.2f}" if len(flips) == len(rows) else ""
        minutes = ", ".join(f"{row['seconds'] / 60:.0f}" for row in rows)
        devices = [" and ".join(map(device_name, row["devices"])) for row in rows]
        if len(set(devices)) == 1:
            devices = devices[:1]
        lines.append(
            f"`{found['recipe']}` | `{model}` | {found['precision']} | {found['steps']:,} "
            f"| {seeds} | {error} | {flip} | {published or ''} "
            f"| {', '.join(devices)} | {minutes} | [record]({os.path.relpath(path, page.parent)})"
        )
    headers = "recipe | model | precision | steps | seeds | test error, % | with `--flip`"
    return table(f"{headers} | published | device | minutes | record", lines)


def twins(page: Path, *names: str) -> str:
    """Compare plain and residual models that were trained by one recipe.

    Args:
        page: The page with the table.
        names: The records, of a plain model and of its residual twin in turn.
    """
    titles = {"cifar": "CIFAR-10", "fashion_mnist": "Fashion-MNIST"}
    lines = []
    for names_of_pair in zip(names[::2], names[1::2], strict=True):
        paths = [f"{name}/record.json" for name in names_of_pair]
        plain, residual = map(record, paths)
        cells = [titles[plain["data"]["name"].removeprefix("folder:")], f"{plain['steps']:,}"]
        for path, found in zip(paths, (plain, residual), strict=True):
            values = mean_and_deviation([row["test_error"] for row in found["rows"]])
            training = statistics.mean(row["training_error"] for row in found["rows"])
            link = os.path.relpath(RESULTS / path, page.parent)
            cells.append(f"[{values}]({link}), seeds: {len(found['rows'])} | {training:.2f}")
        errors = [
            {row["seed"]: row["test_error"] for row in each["rows"]} for each in (residual, plain)
        ]
        if difference := paired_difference(*errors):
            cells.append(describe_difference(difference, "error"))
        lines.append(" | ".join(cells))
    errors_of = "{0}, test error, % | training error, %".format
    headers = f"images | steps | {errors_of('plain20')} | {errors_of('resnet20')}"
    return table(f"{headers} | difference of the test errors", lines)


def device_name(text: str) -> str:
    """Shorten a device of a run: "GPU:0 NVIDIA H200" to "H200", and "CPU:0" to "CPU"."""
    return text.split()[-1].removesuffix(":0")


def packaged(page: Path) -> str:
    """List the weights in the package with what their cards say."""
    lines = []
    for row in reszoo.list_weights():
        if card := row.card:
            counts = ", ".join(f"{count:,}" for count in card["examples"].values())
            precision = card["recipe"]["train"].get("precision", "float32")
            lines.append(
                f"`{row.tag}` | `{row.model}` | `{card['recipe']['name']}`, seed {card['seed']}, "
                f"{precision} | {counts} | {card['test_error']:.2f} | "
                f"{card['test_error_before_rounding']:.2f} | {row.license}"
            )
    headers = "tag | model | recipe | training, validation, test images | test error, %"
    return table(f"{headers} | before rounding, % | license", lines)


def claims(page: Path) -> str:
    """Compare the claims with what was measured, a table per experiment."""
    findings = [judge(claim, RESULTS / "claims") for claim in find_claims()]
    parts = [f"**{summarize(findings)}**"]
    for name in dict.fromkeys(each.claim.experiment for each in findings):
        own = [each for each in findings if each.claim.experiment == name]
        lines = [" | ".join([f"`{each.claim.id}`", *claim_row(each)]) for each in own]
        notes = [f"- {each.claim.note}" for each in own if each.claim.note]
        path = os.path.relpath(RESULTS / "claims" / name / "record.json", page.parent)
        made = f" ([record]({path}))" if own[0].record else ""
        headers = " | ".join(["id", *HEADERS])
        parts.append(f"`{name}`{made}:\n\n{table(headers, lines)}")
        parts += ["\n".join(notes)] if notes else []
    return "\n\n".join(parts)


def grown(page: Path) -> str:
    """Show what growing changed in trained models."""
    lines = []
    for row in record("grow.json")["rows"]:
        exact = "0, equal to the bit" if row["bit_equal"] else f"{row['largest_difference']:.2g}"
        before, after = (100 * row[f"accuracy_{when}"] for when in ("before", "after"))
        lines.append(
            f"{row['model']} to {row['grown']} | {exact} of {row['largest_output']:.3g} "
            f"| {before:.2f} %, {after:.2f} % "
            f"| {100 * row['share_with_a_gradient']:.0f} % of {row['new_numbers']:,}"
        )
    headers = (
        "grown | largest difference of a logit, 1,000 test images | test accuracy before, after"
    )
    headers += " | new parameters with a gradient within two steps"
    return measured(page, "grow.json", headers, lines)


def ledger(page: Path, *patterns: str) -> str:
    """Show what was measured for some claims, in the order in which they are named."""
    folder = RESULTS / "claims"
    lines = []
    for pattern in patterns:
        for each in (judge(claim, folder) for claim in find_claims([pattern])):
            _, verdict, measured, value, _, source = claim_row(each)
            path = os.path.relpath(folder / each.claim.experiment / "record.json", page.parent)
            measured = f"[{measured}]({path})" if each.record else measured
            paper, _, place = source.partition(", ")
            source = f"{paper.removeprefix('arXiv ')}, {place}"
            lines.append(" | ".join([each.claim.statement, verdict, measured, value, source]))
    return table("claim | verdict | measured | source's value | source", lines)


GENERATORS: tuple[Callable[..., str], ...] = (bench, depth, kernels, precision, convolutions)
GENERATORS += (
    checkpointing,
    hosts,
    photographs,
    augmentation,
    engine,
    gpu_speed,
    gpu_side_by_side,
    experiment,
    search,
    tuners,
    workers,
    faults,
    memory,
)
GENERATORS += (
    exports,
    folds,
    export_parity,
    fuzz,
    load,
    weights_parity,
    images,
    finetune,
    imbalance,
    walks,
    packaged,
    trainings,
    twins,
    claims,
    grown,
    ledger,
    equivalence,
)
"""Each takes the page and the arguments of its marker, and returns Markdown."""
