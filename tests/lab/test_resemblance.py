"""The comparison of shallow and deep models, on cases that are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reszoo.lab.resemblance as lab
from reszoo.errors import ReszooError
from reszoo.lab.report import finding
from reszoo.lab.resemblance import resemblance
from reszoo.lab.resemblance_measures import PAIRINGS, compute_measures, pair_blocks

SHALLOW = [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in (1, 2, 3)]
DEEP = [f"stage{stage}_block{block}" for stage in (1, 2, 3) for block in range(1, 10)]


def test_blocks_are_paired_in_three_ways() -> None:
    found = pair_blocks(SHALLOW, DEEP)
    last = [pairs[-1] for pairs in found.values()]
    assert last == [
        ("stage3_block3", other) for other in ("stage1_block9", "stage3_block3", "stage3_block9")
    ]
    assert found["relative"][3] == ("stage2_block1", "stage2_block3")
    assert {other for _, other in found["literal"]} == set(DEEP[:9])


def test_shares_are_1_at_the_ceiling_and_0_at_the_floor() -> None:
    blocks, floor, ceiling = 4, 0.2, 0.8
    pair = {"deep": [ceiling] * 3, "untrained": [floor] * 3}
    seeds = np.full((blocks, blocks), 0.1) + 0.7 * np.eye(blocks)
    seeds[[1, 2], 3] = 0.9  # two blocks are mistaken in one direction, one in the other
    found: dict[str, Any] = {
        "cka": {"deep": seeds, "within": np.eye(blocks), "within_shallow": np.ones((4, 4))},
        "pairs": {
            "ceiling": [ceiling] * 3,
            "literal": {**pair, "deep": [floor] * 3},
            "by_stage": {**pair, "deep": [0.5] * 3},
            "relative": pair,
        },
        "probes": {"shallow": [0.1, 0.5, 0.6, 0.9], "deep": [0.1, 0.9, 0.91, 0.92, 0.7]},
        "stitches": [{"what": "deep front", "penalty": points} for points in (1.0, -2.0)],
    }
    measures = compute_measures(found, [seeds])
    shares = [measures[f"{pairing}_share"] for pairing in PAIRINGS]
    np.testing.assert_allclose(shares, [0, 0.5, 1], atol=1e-12)
    assert measures["identified"] == pytest.approx(5 / 8)
    assert (measures["alike_deep"], measures["alike_shallow"]) == (0, 1)
    assert (measures["plateau_deep"], measures["plateau_shallow"]) == (0.25, 1)
    assert measures["probe_order_shallow"] == 1 > measures["probe_order_deep"]
    assert measures["probe_gap"] == pytest.approx(90 - 92)
    assert measures["deep_front_penalty"] == 1


def test_a_model_resembles_itself(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one run given twice, all blocks correspond. Stitching is tested in test_similarity."""
    stitched = []

    def stitch(front: Any, back: Any, at: tuple[str, str], *data: Any) -> float:
        stitched.append((front.name, back.name, *at))
        return 50.0

    monkeypatch.setattr(lab, "stitch_error", stitch)
    runs = [str(done / "runs" / f"{name}-seed0") for name in ("resnet8", "resnet8", "resnet14")]
    record = resemblance(tmp_path / "out", models=runs, images=20, quiet=True)
    measures = record["results"]["measures"]
    assert measures["residual_ceiling"] == pytest.approx(1, abs=1e-3)
    assert measures["residual_identified"] == 1
    assert stitched[:4] == [
        ("resnet8", "resnet8", "stage1_block1", "stage1_block1"),
        ("resnet14", "resnet8", "stage1_block2", "stage1_block1"),
        ("resnet8", "resnet14", "stage1_block1", "stage1_block2"),
        ("resnet8", "resnet14", "stage1_block1", "stage1_block2"),
    ]
    assert stitched[-1] == ("resnet14", "resnet8", "stage3_block2", "stage3_block1")
    assert finding(record).startswith("Residual models: the first layers of 14 resemble the 8")
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made >= {"record.json", "report.html", "cka.png", "pairs.png", "probes.png"}
    with pytest.raises(ReszooError, match="models: too few"):
        resemblance(tmp_path / "few", models=runs[1:], images=20, quiet=True)
