"""What the documents say was measured is what the kept records say."""

from __future__ import annotations

import html
import json
import re
import statistics
from pathlib import Path

import pytest

import reszoo
from reszoo.lab.degradation import KINDS, verdict
from reszoo.lab.record import read_record
from reszoo.lab.report import finding, report
from reszoo.tuning.report import finding as found_by_a_search
from reszoo.tuning.results import best_trial, grid

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "docs" / "results" / "lab").glob("*/record.json"))


def command(record: dict) -> str:
    """Return the command of a record as it is typed today: `tests/bench/NAME.py` has become `tests/bench NAME`."""
    return re.sub(r"tests/bench/(\w+)\.py", r"tests/bench \1", record["command"])


def words(text: str) -> str:
    return " ".join(re.sub(r"[>*`]", " ", text).split())


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_the_answer_quotes_what_each_experiment_found(path: Path) -> None:
    answer = words((ROOT / "docs" / "why-residual.md").read_text(encoding="utf-8"))
    assert words(finding(read_record(path.parent))) in answer
    assert f"results/lab/{path.parent.name}/" in (ROOT / "docs" / "why-residual.md").read_text(
        encoding="utf-8"
    )
    assert f"lab/{path.parent.name}/record.json" in (
        ROOT / "docs" / "results" / "README.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.parent.name)
def test_a_kept_record_still_makes_its_page(path: Path, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_bytes(path.read_bytes())
    page = html.unescape(report(tmp_path).read_text(encoding="utf-8"))
    assert finding(read_record(tmp_path)) in page
    drawn = {figure.name for figure in tmp_path.glob("*.png")}
    assert drawn == {figure.name for figure in path.parent.glob("*.png")}
    assert not re.search(r'"(/|folder:/)', path.read_text(encoding="utf-8")), (
        "a folder of somebody's machine"
    )


def test_kept_verdicts_follow_from_the_kept_errors() -> None:
    seen = 0
    for path in RECORDS:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
        if "verdicts" in results:
            assert results["verdicts"] == {kind: verdict(results["nets"], kind) for kind in KINDS}
            seen += 1
    assert seen


def test_errors_by_precision_are_the_records() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    rows = json.loads((ROOT / "docs" / "results" / "precision.json").read_text(encoding="utf-8"))[
        "rows"
    ]
    assert {row["precision"] for row in rows} == {"float32", "mixed_bfloat16"}
    for row in rows:
        errors = row["test_errors"]
        assert len(errors) == len(row["seeds"]) == 3
        mean, deviation = statistics.mean(errors), statistics.stdev(errors)
        shown = ", ".join(f"{error:.2f}" for error in errors)
        assert (
            f"| {row['recipe']} | {row['precision']} | {shown} | {mean:.2f} ± {deviation:.2f} |"
            in page
        )
        assert row["command"] in page


WEIGHTS = ROOT / "docs" / "results" / "weights"


def kept(name: str) -> list[dict]:
    return json.loads((WEIGHTS / name).read_text(encoding="utf-8"))["rows"]


def test_the_tables_of_published_weights_are_the_records() -> None:
    page = (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8")
    for row in kept("parity.json"):
        figures = " | ".join(f"{row[key]:.1e}" for key in ("logits", "gradient", "back"))
        sizes = ", ".join(map(str, row["sizes"]))
        assert (
            f"| `{row['model']}` | {row['layout']} | {sizes} | {figures} | {row['seconds']:.2f} |"
            in page
        )
    for row in kept("images.json"):
        assert (
            f"| {row['pixels_differing_percent']:g} | {row['largest_pixel_difference']} | {row['logits']:.1e} | {row['other_answers']} |"
            in page
        )
        assert "accuracy" not in row or f"{row['accuracy']:g}" in page
    for record in ("finetune-fashion.json", "finetune-jpeg.json"):
        for row in kept(record):
            assert row["error"] == pytest.approx(statistics.mean(row["errors"]), abs=1e-3)
            shown = f"| {row['steps']} | {row['error']:.2f} ± {row['deviation']:.2f} | {row['images']:,} |"
            assert f"| {row['arm']} {shown}" in page


def test_every_net_of_the_published_weights_was_compared() -> None:
    compared = {(row["model"], row["layout"]) for row in kept("parity.json")}
    assert compared == {(row.model, row.layout) for row in reszoo.list_weights()}
    assert all(
        max(row[key] for key in ("logits", "gradient", "back")) < 1e-4
        for row in kept("parity.json")
    )


TUNE = ROOT / "docs" / "results" / "tune"


@pytest.mark.parametrize("name", ["depth_shortcut", "degradation_jpeg"])
def test_what_a_search_found_is_what_its_record_says(name: str) -> None:
    page = words((ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8"))
    record = json.loads((TUNE / f"{name}.json").read_text(encoding="utf-8"))
    assert words(found_by_a_search(record)) in page
    best = best_trial(record["trials"])
    assert best is not None and best["trial"] == record["best"]
    assert record["grid"] == grid(record["trials"], record["space"])
    assert not re.search(r'"(/|folder:/)', json.dumps(record)), "a folder of somebody's machine"
    for label, cells in record["grid"]["cells"].items():
        for depth, cell in cells.items():
            assert (
                f"| {depth} | {label} | {cell['count']} | {100 * cell['mean']:.2f} | {100 * cell['training']:.2f} |"
                in page
            )


def test_the_tuners_figures_are_the_records() -> None:
    page = (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8")
    rows = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))["rows"]
        for path in TUNE.glob("*.json")
        if "rows" in path.read_text()
    }
    for tuner in ("hyperband", "random"):
        own = [row for row in rows["hyperband"] if row["tuner"] == tuner]
        shown = ", ".join(f"{100 * row['best']:.2f}" for row in own)
        mean = statistics.mean(100 * row["best"] for row in own)
        deviation = statistics.stdev(100 * row["best"] for row in own)
        steps = ", ".join(f"{row['trained_steps']:,}" for row in own)
        assert f"| {tuner} | {shown} | {mean:.2f} ± {deviation:.2f} | {steps} |" in page
    rates = {
        count: [row["trials_a_minute"] for row in rows["workers"] if row["workers"] == count]
        for count in (1, 2)
    }
    for count, found in rates.items():
        assert f"| {count} | {', '.join(f'{rate:.2f}' for rate in found)} |" in page
    for row in rows["faults"]:
        same = "yes" if row["equal_to_unbroken"] else "-"
        lost = f"{row['trials_lost']} | {row['results_lost']}"
        assert (
            f"| {row['tuner']} | {row['killed']} | {row['kills']} | {row['trials']} | {lost} | {same} |"
            in page
        )
    memory = rows["memory"]
    for number in (5, 10, 20, 30):
        assert (
            f"| {number} | {memory[number - 1]['VmRSS']:,} | {memory[number - 1]['VmHWM']:,} |"
            in page
        )


EXPORT = ROOT / "docs" / "results" / "export"


def exported(name: str) -> dict:
    return json.loads((EXPORT / f"{name}.json").read_text(encoding="utf-8"))


def speed_rows(record: dict) -> list[str]:
    """The table of exports and peers: a row a runtime, images/s and ratio to the best peer in batches of 1 and 32."""
    batches = record["results"].values()
    rows = []
    for name, first in next(iter(batches))["rows"].items():
        cells = [name, first["runtime"]]
        for batch in batches:
            row = batch["rows"][name]
            low, high = row["ratio_range"]
            cells += [
                f"{row['images_per_second']:.1f}",
                f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
            ]
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def fold_rows(record: dict) -> list[str]:
    rows = []
    for name, result in record["results"].items():
        own, other = (result["rows"][how] for how in ("folded", "unfolded"))
        low, high = own["ratio_range"]
        speeds = f"{own['images_per_second']:,.1f} | {other['images_per_second']:,.1f}"
        rows.append(f"| {name} | {speeds} | {own['ratio']:.2f} ({low:.2f} to {high:.2f}) |")
    return rows


def parity_rows(record: dict) -> list[str]:
    rows = []
    for name, row in record["results"].items():
        cells = [*name.split(", "), f"{row['bytes'] / 1e6:.2f}", f"{row['logit_difference']:.1e}"]
        cells += [f"{row['probability_difference']:.1e}", f"{100 * row['agreement']:.1f}"]
        cells.append(f"{100 * (row['accuracy'] - row['keras_accuracy']):+.1f}")
        rows.append("| " + " | ".join(cells) + " |")
    return rows


def test_the_tables_of_exports_are_the_records() -> None:
    page = (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8")
    for row in (
        speed_rows(exported("speed"))
        + fold_rows(exported("fold"))
        + parity_rows(exported("parity"))
    ):
        assert row in page
    for name in ("speed", "fold", "parity", "load", "fuzz_signature", "fuzz_endpoint", "fuzz_page"):
        assert command(exported(name)) in page
    for name in ("signature", "endpoint", "page"):
        record = exported(f"fuzz_{name}")
        memory = record["resident_mb_by_tenths"]
        counts = [
            record[key] for key in ("files", "crashes", "wrong_statuses", "disturbed_neighbours")
        ]
        assert (
            f"| {name} | {' | '.join(f'{count:,}' for count in counts)} | {memory[0]:,} | {memory[-1]:,} |"
            in page
        )
    load = exported("load")
    shown = ", ".join(f"{one:,}" for one in load["resident_mb_by_sixths"])
    assert (
        f"{load['requests']:,} requests, {load['errors']} errors; resident memory {shown} MB"
        in page
    )


BENCH = ROOT / "docs" / "results" / "bench"


def bench_rows(record: dict) -> list[str]:
    """The table of speed: what, net, ours, the peer's, how many times as fast with its range, share of peak, memory."""
    rows = []
    seconds = record["what"] in ("build", "first-step")
    for model in record["models"]:
        sides = dict(model["sides"])
        own = sides.pop("reszoo")
        unit, key = ("s", "seconds") if seconds else ("images/s", "images_per_second")
        name = (
            f"{model['model']}, b{model['batch']}"
            if "batch" in model and record["what"] != "build"
            else model["model"]
        )
        peak = (
            f"{100 * own['share_of_matrix_product']:.0f} %"
            if "share_of_matrix_product" in own
            else ""
        )
        memory = (
            f"{own['peak_mb']:,} MB" if own.get("peak_mb") and record["what"] != "build" else ""
        )
        for side, row in sides.items() or [("", None)]:
            ratio = ""
            if row:
                low, high = row["reszoo_times_faster_range"]
                ratio = f"{row['reszoo_times_faster']:.2f} ({low:.2f} to {high:.2f})"
            other = f"{side} {row[key]:,.4g}" if row else ""
            cells = [record["what"], name, f"{own[key]:,.4g} {unit}", other, ratio, peak, memory]
            rows.append("| " + " | ".join(cells) + " |")
    return rows


def test_the_table_of_speed_is_the_records() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    records = sorted(BENCH.glob("*.json"))
    assert records
    for path in records:
        record = json.loads(path.read_text(encoding="utf-8"))
        for row in bench_rows(record):
            assert row in page, path.name
        assert f"`{record['command']}`" in page


def test_a_record_of_speed_is_in_a_section_that_names_its_processor_and_precision() -> None:
    """Or figures of two processors would be compared."""
    sections = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split("\n## ")
    for path in sorted(BENCH.glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        (section,) = (text for text in sections if f"`{record['command']}`" in text)
        assert all(row in section for row in bench_rows(record)), path.name
        assert record["machine"]["processor"] in section and record["precision"] in section, (
            path.name
        )


def test_the_table_of_kernels_is_the_records() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    shares = []
    for name in ("float32", "bfloat16"):
        record = json.loads(
            (ROOT / "docs" / "results" / f"kernels_{name}.json").read_text(encoding="utf-8")
        )
        assert f"`{command(record)}`" in page and record["processor"] in page
        kernels = record["kernel_milliseconds"]
        shares.append(
            {kernel: 100 * spent / sum(kernels.values()) for kernel, spent in kernels.items()}
        )
    for kernel in shares[0]:
        assert f"| {kernel} | {shares[0][kernel]:.0f} % | {shares[1][kernel]:.0f} % |" in page


def depth_rows(first: dict, train: dict) -> list[str]:
    """Cost against depth: of each net, and behind it what each layer more than the net before cost."""
    rows, before = [], None
    for start, steps in zip(first["models"], train["models"], strict=True):
        assert start["model"] == steps["model"] and start["batch"] == steps["batch"]
        own = start["sides"]["reszoo"]
        step = 1000 * steps["batch"] / steps["sides"]["reszoo"]["images_per_second"]
        now = [
            reszoo.count(start["model"]).depth,
            step,
            own["seconds"],
            own["build_seconds"],
            own["peak_mb"],
        ]
        cells = [f"{now[1]:,.0f} ms", f"{now[2]:.2f} s", f"{now[3]:.2f} s", f"{now[4]:,} MB"]
        if before:
            layers = now[0] - before[0]
            each = [(b - a) / layers for a, b in zip(before[1:], now[1:], strict=True)]
            more = [
                f"{each[0]:.2f} ms",
                f"{1000 * each[1]:.1f} ms",
                f"{1000 * each[2]:.1f} ms",
                f"{each[3]:.2f} MB",
            ]
            cells = [f"{cell} ({extra})" for cell, extra in zip(cells, more, strict=True)]
        rows.append("| " + " | ".join([start["model"], *cells]) + " |")
        before = now
    return rows


def test_the_table_of_depth_is_the_records() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    first, train = (
        json.loads((BENCH / f"depth_{name}.json").read_text(encoding="utf-8"))
        for name in ("first_step", "train")
    )
    rows = depth_rows(first, train)
    assert len(rows) == 4
    for row in rows:
        assert row in page


def test_what_speed_is_made_of_is_the_records() -> None:
    results = ROOT / "docs" / "results"
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    convolutions = json.loads((results / "convolutions.json").read_text(encoding="utf-8"))[
        "share_of_matrix_product"
    ]
    for channels, row in convolutions.items():
        assert (
            "| "
            + " | ".join([channels, *(f"{100 * share:.0f} %" for share in row.values())])
            + " |"
            in page
        )
    stages = json.loads((results / "photographs.json").read_text(encoding="utf-8"))[
        "core_milliseconds_an_image_up_to"
    ]
    assert ", ".join(f"{name} {spent:.2f}" for name, spent in stages.items()) in page
    engine = json.loads((results / "engine.json").read_text(encoding="utf-8"))
    assert f"costs {100 * engine['engine_share_of_wall']:.1f} % of a run of resnet20" in page
