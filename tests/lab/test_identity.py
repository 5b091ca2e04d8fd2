"""The identity experiment against closed forms, and against itself: alone, resumed, drawn."""

from __future__ import annotations

import copy
import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from reszoo.errors import ReszooError
from reszoo.lab import identity as lab
from reszoo.lab.identity_plots import median, say
from reszoo.lab.stacks import (
    FORMS,
    HELD,
    LINEAR,
    LINEAR_RESIDUAL,
    LINEAR_SMALL,
    PLAIN,
    RESIDUAL,
    SMALL,
    ZERO,
    Form,
    Stacks,
    fit,
)
from reszoo.reporting.page import Table
from reszoo.reporting.plots import DARK, LIGHT, Plot, render

SETTINGS: dict[str, Any] = {"depths": (2, 1), "seeds": 2, "steps": 12, "width": 3}


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_a_plain_block_can_be_the_identity_exactly() -> None:
    stacks = Stacks(HELD, depth=5, width=4, hidden=9, seeds=[0, 1])
    x = 100 * normal(2, 50, 4)
    np.testing.assert_array_equal(stacks(tf.constant(x)), x)
    np.testing.assert_array_equal(stacks.move(tf.constant(x)), 0)


def test_forms_differ_in_block_and_start_alone() -> None:
    made = {
        form: [np.asarray(part) for part in Stacks(form, 4, 8, 16, [3]).weights] for form in FORMS
    }
    for form, parts in made.items():
        assert [part.shape for part in parts] == [
            (4, 1, 8, 16),
            (4, 1, 1, 16),
            (4, 1, 16, 8),
            (4, 1, 1, 8),
        ]
        if form is not HELD:
            np.testing.assert_array_equal(parts[0], made[PLAIN][0])
        assert not parts[1].any() and not parts[3].any()
    np.testing.assert_array_equal(made[RESIDUAL][2], made[PLAIN][2])
    np.testing.assert_allclose(made[SMALL][2], made[PLAIN][2] / 2)
    np.testing.assert_allclose(made[LINEAR][2], made[PLAIN][2] / 2**0.5, rtol=1e-6)
    np.testing.assert_allclose(made[LINEAR_SMALL][2], made[LINEAR_RESIDUAL][2] / 2)
    assert not made[ZERO][2].any()


@pytest.mark.parametrize(
    ("form", "grown"),
    [(PLAIN, 1), (LINEAR, 1), (RESIDUAL, 16), (LINEAR_RESIDUAL, 16), (SMALL, 1.25**4)],
)
def test_what_random_blocks_make_of_the_mean_square(form: Form, grown: float) -> None:
    stacks = Stacks(form, depth=4, width=32, hidden=64, seeds=range(20))
    squares = np.mean(np.square(stacks(tf.constant(normal(20, 100, 32)))))
    assert squares == pytest.approx(grown, rel=0.15)


def test_states_are_those_of_the_formula() -> None:
    x = normal(1, 7, 3)
    for form in (PLAIN, RESIDUAL, LINEAR_RESIDUAL):
        stacks = Stacks(form, depth=2, width=3, hidden=6, seeds=[5])
        for weight in stacks.weights:
            weight.assign(normal(*weight.shape, seed=len(weight.shape) + int(weight.shape[-1])))
        wanted, moved = x[0].astype(np.float64), []
        for block in range(2):
            first, bias, second, shift = (
                np.asarray(weight)[block, 0].astype(np.float64) for weight in stacks.weights
            )
            inner = wanted @ first + bias
            out = (inner if form.linear else np.maximum(inner, 0)) @ second + shift
            out = out + wanted if form.residual else out
            moved.append(np.linalg.norm(out - wanted) / np.linalg.norm(wanted))
            wanted = out
        np.testing.assert_allclose(stacks(tf.constant(x))[0], wanted, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(stacks.move(tf.constant(x)), [np.mean(moved)], rtol=1e-4)


def train(
    stacks: Stacks, x: np.ndarray, y: np.ndarray, steps: int, rate: float = 0.01
) -> list[int]:
    looks: list[int] = []
    weight = np.full((len(x), x.shape[1], 1), 1 / x.shape[1], np.float32)
    fit(stacks, lambda step: (x, y, weight), steps, rate, 4, looks.append)
    return looks


def test_a_member_trains_as_if_alone_even_beside_one_that_diverges() -> None:
    x, y = normal(3, 6, 4), normal(3, 6, 4, seed=1)
    y[1, 0, 0] = np.inf
    together = Stacks(RESIDUAL, 3, 4, 8, [0, 1, 2])
    assert train(together, x, y, 10) == [0, 4, 8, 10]
    for member, seed in ((0, 0), (2, 2)):
        alone = Stacks(RESIDUAL, 3, 4, 8, [seed])
        train(alone, x[member : member + 1], y[member : member + 1], 10)
        for all_, own in zip(together.weights, alone.weights, strict=True):
            np.testing.assert_allclose(
                np.asarray(all_)[:, member], np.asarray(own)[:, 0], rtol=1e-5, atol=1e-6
            )
    assert not np.isfinite(np.asarray(together.weights[0])[:, 1]).all()


def test_one_linear_residual_block_reaches_least_squares() -> None:
    x, noise = normal(1, 30, 3), normal(1, 30, 3, seed=1)
    y = x @ normal(3, 3, seed=2) + 0.3 * noise + 1
    # Twenty examples of weight 0, and so of no account.
    padded = [np.concatenate([part, 9 * normal(1, 20, 3, seed=3)], axis=1) for part in (x, y)]
    weight = np.zeros((1, 50, 1), np.float32)
    weight[:, :30] = 1 / 30
    stacks = Stacks(LINEAR_RESIDUAL, 1, 3, 6, [0])
    fit(stacks, lambda step: (*padded, weight), 1500, 0.02, 1500, lambda step: None)
    design = np.concatenate([x[0], np.ones((30, 1))], axis=1)
    best = design @ np.linalg.lstsq(design, y[0], rcond=None)[0]
    np.testing.assert_allclose(stacks(tf.constant(x))[0], best, atol=2e-3)


def test_targets_are_the_mixtures_they_are_called() -> None:
    nets = [lab.random_net(5, seed) for seed in (0, 1)]
    x = tf.constant(normal(2, 20_000, 5))
    inputs, wanted = lab.examples(x, nets)
    assert list(lab.TARGETS) == ["identity", "t = 0.25", "t = 0.5", "t = 0.75", "G", "negation"]
    shape = (len(lab.TARGETS), *x.shape)
    inputs, wanted = (
        np.reshape(inputs, shape),
        dict(zip(lab.TARGETS, np.reshape(wanted, shape), strict=True)),
    )
    for own in inputs:
        np.testing.assert_array_equal(own, x)
    np.testing.assert_array_equal(wanted["identity"], x)
    np.testing.assert_array_equal(wanted["negation"], -np.asarray(x))
    other = np.stack([nets[0](x[0]), nets[1](x[1])])
    np.testing.assert_allclose(wanted["G"], other, rtol=1e-6)
    np.testing.assert_allclose(wanted["t = 0.25"], 0.75 * x + 0.25 * other, rtol=1e-4, atol=1e-5)
    assert np.abs(other[0] - other[1]).max() > 1
    np.testing.assert_allclose(other.mean(axis=1), 0, atol=0.04)
    np.testing.assert_allclose(other.var(axis=1), 1, atol=0.06)


def test_errors_of_stacks_that_stay_the_identity_are_known() -> None:
    piece = lab.learn(ZERO, depth=2, seeds=2, steps=1, width=3, rate=1e-30)
    found = piece["targets"]
    assert found["identity"] == {
        "error": [0, 0],
        "reached": {"0.1": [0, 0], "0.01": [0, 0]},
        "move": [0, 0],
    }
    assert found["negation"]["error"] == [4, 4] and found["negation"]["reached"]["0.1"] == [
        None,
        None,
    ]
    assert piece["parameters"] == 2 * (3 * 6 + 6 + 6 * 3 + 3)
    assert piece["curves"]["steps"] == [0, 1]
    for line in lab.learn_line(ZERO, depth=2, seeds=2, steps=1, rate=1e-30)["fits"]:
        for seed in range(2):
            x, y = lab.points(line["points"], line["noise"], seed)
            assert line["training"][seed] == pytest.approx(
                np.mean((x - y) ** 2), rel=1e-4, abs=1e-12
            )
        assert line["fresh"] == pytest.approx([line["noise"] ** 2] * 2, abs=1e-9)


def test_polynomials_are_least_squares_and_go_wild_on_noise_alone() -> None:
    found = {
        (curve["degree"], curve["points"], curve["noise"]): curve for curve in lab.polynomials(2)
    }
    grid = np.linspace(-1, 1, 1001)
    for (degree, count, noise), curve in found.items():
        if degree > 15:  # beyond, powers of x are no longer any good
            continue
        for seed in range(2):
            x, y = lab.points(count, noise, seed)
            weights = np.linalg.lstsq(np.vander(x, degree + 1), y, rcond=None)[0]
            training = np.mean((np.vander(x, degree + 1) @ weights - y) ** 2)
            fresh = np.mean((np.vander(grid, degree + 1) @ weights - grid) ** 2) + noise**2
            assert curve["training"][seed] == pytest.approx(training, rel=1e-4, abs=1e-15)
            assert curve["fresh"][seed] == pytest.approx(fresh, rel=1e-4, abs=1e-15)
    for count in lab.POINTS:
        assert max(found[count - 1, count, 0.1]["training"]) < 1e-12
        assert max(found[count - 1, count, 0.0]["fresh"]) < 1e-12
    assert min(found[31, 32, 0.1]["fresh"]) > 1e6
    x, y = lab.points(32, 0.1, 0)
    assert np.ptp(np.diff(x)) < 1e-12 and 0.05 < np.std(y - x) < 0.15


def test_each_member_has_the_weights_of_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Stacks] = []

    def keep(*args: Any) -> Stacks:
        made.append(Stacks(*args))
        return made[-1]

    monkeypatch.setattr(lab, "Stacks", keep)
    lab.learn(PLAIN, depth=1, seeds=2, steps=1, width=3, rate=1e-30)
    lab.learn_line(PLAIN, depth=1, seeds=2, steps=1, rate=1e-30)
    for stacks in made:  # seeds fastest, as `examples` has them
        first = np.asarray(stacks.weights[0])[0]
        assert np.all(first == np.tile(first[:2], (len(first) // 2, 1, 1))) and np.any(
            first[0] != first[1]
        )


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished experiment, its page not drawn."""
    folder = tmp_path_factory.mktemp("identity") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "report", lambda folder: None)
        lab.identity(folder, **SETTINGS, tell=lambda line: None)
    return folder


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "record.json").read_text())


@pytest.mark.slow
def test_an_interrupted_experiment_goes_on(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[Path] = []
    monkeypatch.setattr(lab, "report", reported.append)
    folder = tmp_path / "out"
    shutil.copytree(tiny, folder)
    before = read(folder)
    (folder / "record.json").unlink()
    (folder / "parts" / "residual-small-start-depth2.json").unlink()
    kept = folder / "parts" / "plain-depth1.json"
    stamp = kept.stat().st_mtime_ns
    told: list[str] = []
    after = lab.identity(folder, **SETTINGS, tell=told.append)
    assert after == read(folder) and reported == [folder] and kept.stat().st_mtime_ns == stamp
    assert (
        len(told) == 2
        and told[0].startswith("21 of 22")
        and "residual-small-start-depth2" in told[1]
    )
    for record in (before, after):
        record.pop("environment")
        record["results"].pop("seconds")
        for piece in record["results"]["stacks"]:
            piece.pop("seconds")
    assert before == after

    kept.write_text("{")
    with pytest.raises(ReszooError, match="plain-depth1.json is not JSON"):
        lab.identity(folder, **SETTINGS)
    with pytest.raises(ReszooError, match="was begun with steps = 12, not 13"):
        lab.identity(folder, **{**SETTINGS, "steps": 13})


def test_what_the_record_says_agrees_with_the_pieces(tiny: Path) -> None:
    results = read(tiny)["results"]
    assert [(piece["form"], piece["depth"]) for piece in results["stacks"]] == [
        (form.name, depth) for form in FORMS for depth in (1, 2)
    ]
    assert results["members"] == len(FORMS) * 2 * 6 * 2 and results["diverged"] == 0
    assert {curve["depth"] for curve in results["curves"]} == {2} and len(results["curves"]) == len(
        FORMS
    )
    for name in ("plain-depth1", "plain-identity-start-depth2", "residual-small-start-depth2"):
        piece = json.loads((tiny / "parts" / f"{name}.json").read_text())
        assert piece["curves"]["steps"] == list(range(13))
        for target, found in piece["targets"].items():
            for tolerance, steps in found["reached"].items():
                for line, step in zip(piece["curves"]["targets"][target], steps, strict=True):
                    below = np.flatnonzero(np.array(line) < float(tolerance))
                    assert step == (below[0] if below.size else None)
    assert len(results["line"]) == 3 * 2 * 3 * 2 and len(results["polynomials"]) == 3 * 2 * 2


def test_figures_and_words_come_from_the_record(tiny: Path) -> None:
    record = read(tiny)
    targets = record["results"]["stacks"][5]["targets"]  # residual, small start, depth 2
    assert record["results"]["stacks"][5]["form"] == SMALL.name
    targets["identity"]["error"], targets["G"]["error"] = [0.0111, 0.0133], [None, None]
    page = lab.present(copy.deepcopy(record))
    lead, sections = page.finding, page.sections
    plain = record["results"]["stacks"][1]["targets"]
    assert page.title == "How hard is the identity?"
    assert (
        "error of 0.012 on the identity, not finite on a random net and" in lead
        and "\n" not in lead
    )
    near, far, against = (
        say(median(plain[target]["error"])) for target in ("identity", "G", "negation")
    )
    assert (
        f"plain ones with {near} on the identity, {far} on a random net and {against} on -x;"
        in lead
    )
    plots = [item for section in sections for item in section.items if isinstance(item, Plot)]
    assert [plot.name for plot in plots] == [
        "error-depth",
        "curves",
        "error-target",
        "steps",
        "move",
        "line",
    ]
    for plot in plots:
        png = render(plot, LIGHT, "png")
        assert png.startswith(b"\x89PNG")
        assert struct.unpack(">II", png[16:24]) == (
            round(100 * plot.size[0]),
            round(100 * plot.size[1]),
        )
    assert b"residual, small start" in render(plots[0], DARK, "svg")
    table = next(item for item in sections[0].items if isinstance(item, Table))
    row = next(row for row in table.rows if row[0] == SMALL.name)
    assert row[1] == "0.012 (0.011 to 0.013)" and row[5] == "not finite"
    line = sections[4].items[1]
    assert (
        isinstance(line, Table) and len(line.rows) == 2 * 3 * 5
    )  # points, noises; three forms and two polynomials
    curve = next(
        curve
        for curve in record["results"]["polynomials"]
        if curve["degree"] > 1 and curve["noise"] > 0
    )
    cells = next(
        row
        for row in line.rows
        if row[:2] == [str(curve["points"]), f"{curve['noise']:g}"] and "degree" in row[2]
    )
    assert cells[4] == say(median(curve["fresh"]))


def test_the_time_left_is_estimated_by_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lab, "time", SimpleNamespace(monotonic=iter([0.0, 10.0, 60.0, 80.0]).__next__)
    )
    told: list[str] = []
    plan = [
        (name, blocks, lambda: {"seconds": 1}) for name, blocks in (("a", 1), ("b", 3), ("c", 4))
    ]
    lab._all(tmp_path, plan, told.append)
    assert [line.split("about ")[1] for line in told] == ["70 s left", "60 s left", "0 s left"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"depths": ()}, "depths"),
        ({"depths": "124"}, "depths"),
        ({"depths": (0, 2)}, "depths holds 0"),
        ({"depths": (1, 2.5)}, "depths holds 2.5"),
        ({"seeds": 0}, "seeds is 0"),
        ({"seeds": True}, "seeds is True"),
        ({"steps": 1.5}, "steps is 1.5"),
        ({"width": -1}, "width is -1"),
        ({"rate": 0}, "rate is 0"),
        ({"rate": float("nan")}, "rate is nan"),
        ({"rate": "fast"}, "rate is 'fast'"),
    ],
)
def test_refusals_name_the_setting_and_leave_nothing(
    wrong: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ReszooError) as refused:
        lab.identity(tmp_path / "out", **wrong)
    assert (
        said in str(refused.value)
        and "must be" in str(refused.value)
        and "\n" not in str(refused.value)
    )
    assert not (tmp_path / "out").exists()
