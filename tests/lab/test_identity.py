"""The identity experiment: targets, known errors, resuming, the report."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from reszoo.errors import ReszooError
from reszoo.lab import identity as lab
from reszoo.lab.identity_page import make_page
from reszoo.lab.stacks import FORMS, PLAIN, RESIDUAL_SMALL, RESIDUAL_ZERO, Stacks
from reszoo.lab.statistics import format_number, median
from reszoo.reporting.page import Table
from reszoo.reporting.reporter import Reporter
from tests.models.helpers import images as normal

SETTINGS: dict[str, Any] = {"depths": (2, 1), "seeds": 2, "steps": 12, "width": 3, "quiet": True}


def test_targets_are_the_mixtures_of_their_names() -> None:
    nets = [lab.random_net(5, seed) for seed in (0, 1)]
    x = tf.constant(normal((2, 20_000, 5)))
    inputs, wanted = lab.make_examples(x, nets)
    shape = (len(lab.TARGETS), *x.shape)
    np.testing.assert_array_equal(np.reshape(inputs, shape), np.broadcast_to(x, shape))
    targets = dict(zip(lab.TARGETS, np.reshape(wanted, shape), strict=True))
    assert list(targets) == ["identity", "t = 0.25", "t = 0.5", "t = 0.75", "G", "negation"]
    np.testing.assert_array_equal(targets["identity"], x)
    np.testing.assert_array_equal(targets["negation"], -np.asarray(x))
    other = np.stack([nets[0](x[0]), nets[1](x[1])])
    np.testing.assert_allclose(targets["G"], other, rtol=1e-6)
    np.testing.assert_allclose(targets["t = 0.25"], 0.75 * x + 0.25 * other, rtol=1e-4, atol=1e-5)
    assert np.abs(other[0] - other[1]).max() > 1
    np.testing.assert_allclose(other.mean(axis=1), 0, atol=0.04)
    np.testing.assert_allclose(other.var(axis=1), 1, atol=0.06)


def test_errors_of_stacks_that_stay_the_identity_are_known() -> None:
    part = lab.train_stacks(RESIDUAL_ZERO, depth=2, seeds=2, steps=1, width=3, rate=1e-30)
    zeros, never = [0, 0], [None, None]
    reached = {"0.1": zeros, "0.01": zeros}
    found = part["targets"]
    assert found["identity"] == {"error": zeros, "reached": reached, "move": zeros}
    assert found["negation"]["error"] == [4, 4] and found["negation"]["reached"]["0.1"] == never
    assert part["parameters"] == 2 * (3 * 6 + 6 + 6 * 3 + 3)
    assert part["curves"]["steps"] == [0, 1]


def test_each_member_has_the_weights_of_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Stacks] = []
    monkeypatch.setattr(lab, "Stacks", lambda *args: made.append(Stacks(*args)) or made[-1])
    lab.train_stacks(PLAIN, depth=1, seeds=2, steps=1, width=3, rate=1e-30)
    first = np.asarray(made[0].weights[0])[0]  # seeds fastest, as `make_examples` has them
    assert np.all(first == np.tile(first[:2], (len(first) // 2, 1, 1)))
    assert np.any(first[0] != first[1])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished experiment, its report drawn."""
    folder = tmp_path_factory.mktemp("identity") / "out"
    lab.identity(folder, **SETTINGS)
    return folder


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


@pytest.mark.slow
def test_a_stopped_experiment_resumes(tiny: Path) -> None:
    before = read(tiny)
    lost = tiny / "parts" / "residual-small-start-depth2.json"
    kept = tiny / "parts" / "plain-depth1.json"
    stamp = kept.stat().st_mtime_ns
    (tiny / "record.json").unlink()
    lost.unlink()
    lab.identity(tiny, **SETTINGS)
    after = read(tiny)
    assert kept.stat().st_mtime_ns == stamp and lost.exists()
    for record in (before, after):
        del record["environment"], record["results"]["seconds"]
        for stack in record["results"]["stacks"]:
            del stack["seconds"]
    assert before == after
    text = kept.read_text()
    kept.write_text("{")
    with pytest.raises(ReszooError, match="plain-depth1.json is not readable JSON"):
        lab.identity(tiny, **SETTINGS)
    kept.write_text(text)
    with pytest.raises(ReszooError, match="was begun with steps = 12, not 13"):
        lab.identity(tiny, **{**SETTINGS, "steps": 13})


@pytest.mark.slow
def test_the_record_agrees_with_the_parts(tiny: Path) -> None:
    results = read(tiny)["results"]
    found = [(stack["form"], stack["depth"]) for stack in results["stacks"]]
    assert found == [(form.name, depth) for form in FORMS for depth in (1, 2)]
    assert results["members"] == len(FORMS) * 2 * 6 * 2 and results["diverged"] == 0
    assert [curve["depth"] for curve in results["curves"]] == [2] * len(FORMS)
    for name in ("plain-depth1", "plain-identity-start-depth2", "residual-small-start-depth2"):
        part = json.loads((tiny / "parts" / f"{name}.json").read_text())
        assert part["curves"]["steps"] == list(range(13))
        for target, measured in part["targets"].items():
            for tolerance, steps in measured["reached"].items():
                for line, step in zip(part["curves"]["targets"][target], steps, strict=True):
                    below = np.flatnonzero(np.array(line) < float(tolerance))
                    assert step == (below[0] if below.size else None)
    assert len(results["line"]) == 3 * 2 * 3 * 2 and len(results["polynomials"]) == 3 * 2 * 2


def test_the_report_says_what_the_record_holds() -> None:
    root = Path(__file__).parents[2] / "docs" / "results" / "lab" / "identity"
    record = read(root)
    deep = record["settings"]["depths"][-1]
    stacks = {
        (stack["form"], stack["depth"]): stack["targets"] for stack in record["results"]["stacks"]
    }
    small = stacks[RESIDUAL_SMALL.name, deep]
    small["identity"]["error"], small["G"]["error"] = [0.0111, 0.0122, 0.0133], [None, None, 1]
    page = make_page(record)
    assert "error of 0.012 on the identity, not finite on a random net and" in page.finding
    near, far, against = (
        format_number(median(stacks[PLAIN.name, deep][target]["error"]))
        for target in ("identity", "G", "negation")
    )
    plain = f"plain ones with {near} on the identity, {far} on a random net and {against} on -x;"
    assert plain in page.finding
    table = page.sections[0].items[1]
    assert isinstance(table, Table)
    row = next(row for row in table.rows if row[0] == RESIDUAL_SMALL.name)
    assert row[1] == "0.012 (0.011 to 0.013)" and row[5] == "not finite (1 to not finite)"
    line = page.sections[3].items[1]
    assert isinstance(line, Table) and len(line.rows) == 3 * 2 * 5  # three forms, two polynomials
    curve = next(c for c in record["results"]["polynomials"] if c["degree"] > 1 and c["noise"] > 0)
    start = [str(curve["points"]), f"{curve['noise']:g}", f"polynomial of degree {curve['degree']}"]
    cells = next(row for row in line.rows if row[:3] == start)
    assert cells[4] == format_number(median(curve["fresh"]))


def test_the_time_left_is_estimated_by_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 60.0, 80.0])
    monkeypatch.setattr(lab, "time", SimpleNamespace(monotonic=clock.__next__))
    plan = [(name, size, lambda: {"seconds": 1}) for name, size in (("a", 1), ("b", 3), ("c", 4))]
    lab.run_parts(tmp_path, plan, Reporter(log=tmp_path / "log", quiet=True))
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split("about ")[1] for line in lines] == ["70 s left", "60 s left", "0 s left"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"depths": ()},
        {"depths": "124"},
        {"depths": (1, 2.5)},
        {"seeds": True},
        {"steps": 1.5},
        {"width": -1},
        {"rate": float("nan")},
        {"rate": "fast"},
    ],
)
def test_refusals_name_the_setting_and_leave_nothing(wrong: dict[str, Any], tmp_path: Path) -> None:
    (name,) = wrong
    with pytest.raises(ReszooError, match=f"^{name}: .* is invalid; expected [^\n]*$"):
        lab.identity(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
