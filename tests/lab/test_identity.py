"""The identity experiment: targets, known errors, resuming, the report."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from reszoo.errors import ReszooError
from reszoo.lab import identity as lab
from reszoo.lab.identity_page import make_page
from reszoo.lab.stacks import PLAIN, RESIDUAL_SMALL, RESIDUAL_ZERO, Stacks
from reszoo.lab.statistics import format_number, median
from reszoo.reporting.page import Table
from tests.models.helpers import images as normal

FORM_FILES = ("plain", "residual-small-start")
SETTINGS: dict[str, Any] = {"depths": (1,), "seeds": 2, "steps": 12, "width": 3, "quiet": True}


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


def run_tiny(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run two forms, and one on the line, without a report; return the record without times."""
    monkeypatch.setattr(lab, "FORMS", (PLAIN, RESIDUAL_SMALL))
    monkeypatch.setattr(lab, "LINE_FORMS", (PLAIN,))
    monkeypatch.setattr(lab, "write_report", lambda folder: None)
    lab.identity(folder, **SETTINGS)
    text = re.sub(r'"seconds": [\d.]+', '"seconds": 0', (folder / "record.json").read_text())
    return {**json.loads(text), "environment": None}


def test_a_stopped_experiment_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run_tiny(tmp_path, monkeypatch)
    kept, lost = (tmp_path / "parts" / f"{name}-depth1.json" for name in FORM_FILES)
    stamp = kept.stat().st_mtime_ns
    lost.unlink()
    assert run_tiny(tmp_path, monkeypatch) == before and kept.stat().st_mtime_ns == stamp
    results = before["results"]
    assert (results["members"], results["diverged"]) == (2 * 6 * 2, 0)
    assert [curve["form"] for curve in results["curves"]] == [PLAIN.name, RESIDUAL_SMALL.name]
    assert (len(results["line"]), len(results["polynomials"])) == (3 * 2, 3 * 2 * 2)
    part = json.loads(kept.read_text())
    assert part["curves"]["steps"] == list(range(13))
    for target, measured in part["targets"].items():
        for tolerance, steps in measured["reached"].items():
            for line, step in zip(part["curves"]["targets"][target], steps, strict=True):
                below = np.flatnonzero(np.array(line) < float(tolerance))
                assert step == (below[0] if below.size else None)
    kept.write_text("{")
    with pytest.raises(ReszooError, match="plain-depth1.json is not readable JSON"):
        run_tiny(tmp_path, monkeypatch)
    with pytest.raises(ReszooError, match="was begun with steps = 12, not 13"):
        lab.identity(tmp_path, **{**SETTINGS, "steps": 13})


def test_the_report_shows_the_content_of_the_record() -> None:
    folder = Path(__file__).parents[2] / "docs" / "results" / "lab" / "identity"
    record = json.loads((folder / "record.json").read_text())
    deep = record["settings"]["depths"][-1]
    (small,) = (
        stack["targets"]
        for stack in record["results"]["stacks"]
        if (stack["form"], stack["depth"]) == (RESIDUAL_SMALL.name, deep)
    )
    small["identity"]["error"], small["G"]["error"] = [0.0111, 0.0122, 0.0133], [None, None, 1]
    page = make_page(record)
    assert "error of 0.012 on the identity, not finite on a random model and" in page.finding
    table, line = page.sections[0].items[1], page.sections[3].items[1]
    assert isinstance(table, Table) and isinstance(line, Table)
    row = next(row for row in table.rows if row[0] == RESIDUAL_SMALL.name)
    assert row[1] == "0.012 (0.011 to 0.013)" and row[5] == "not finite (1 to not finite)"
    assert len(line.rows) == 3 * 2 * 5  # three forms and two polynomials
    curve = next(c for c in record["results"]["polynomials"] if c["degree"] > 1 and c["noise"] > 0)
    start = [str(curve["points"]), f"{curve['noise']:g}", f"polynomial of degree {curve['degree']}"]
    cells = next(row for row in line.rows if row[:3] == start)
    assert cells[4] == format_number(median(curve["fresh"]))


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
def test_errors_name_the_setting_and_leave_nothing(wrong: dict[str, Any], tmp_path: Path) -> None:
    (name,) = wrong
    with pytest.raises(ReszooError, match=f"^{name}: .* is invalid; expected [^\n]*$"):
        lab.identity(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()
