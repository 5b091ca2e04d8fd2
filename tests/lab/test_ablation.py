"""Variants of the block: what differs, what is measured, and what the report shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from reszoo.errors import ReszooError
from reszoo.lab import ablation as lab
from reszoo.lab.ablation import IDENTITY, VARIANTS, ablation, compare_variants, variant_recipe
from reszoo.lab.ablation_page import make_page
from reszoo.lab.degradation import base_recipe
from reszoo.lab.report import finding
from reszoo.reporting.plots import LIGHT, Plot
from reszoo.training.run import Run


def test_variants_differ_in_the_fields_of_the_papers_tables_alone() -> None:
    base = base_recipe("digits", 40, ["model.widths=[16,16,32]"])
    first = variant_recipe(IDENTITY, 14, base, seed=3)
    assert first.train.seed == 3 and first.model.spec.widths == (16, 16, 32)
    plain = first.model.spec.to_dict()
    changed = {}
    for name in VARIANTS:
        recipe = variant_recipe(name, 14, base, seed=3)
        assert recipe.replace(name=first.name, model=first.model) == first
        own = recipe.model.spec.to_dict()
        changed[name] = {key: own[key] for key in own if own[key] != plain[key]}
    assert (
        changed
        == {
            "identity": {},
            "scaled": {"shortcut_scale": 0.5},
            "scaled_both": {"shortcut_scale": 0.5, "branch_scale": 0.5},
            "exclusive_0": {"gate": "exclusive", "gate_bias": 0},
            "exclusive_6": {"gate": "exclusive"},  # -6 is the default
            "shortcut_only_0": {"gate": "shortcut_only", "gate_bias": 0},
            "shortcut_only_6": {"gate": "shortcut_only"},
            "projection": {"shortcut": "C"},
            "dropout": {"shortcut_dropout": 0.5},
            **{order: {"order": order} for order in list(VARIANTS)[9:]},
        }
    )


def row(test: list[float], training: list[float], curve: list[float]) -> dict[str, object]:
    steps = [10, 20, 30, 40]
    return {
        "steps": steps, "test_error": test, "training_error": training, "training_curve": [curve],
    }  # fmt: skip


def test_gaps_are_differences_from_the_identity() -> None:
    rows = {
        "identity": row([2, 4], [1, 1], [50, 10, 5, 1]),
        "exclusive_0": row([30, 40], [20, 30], [90, 90, 80, 30]),
        "exclusive_6": row([5, 5], [0, 1], [60, 20, 9, 2]),
        "pre": row([1, 1], [0, 0], [40, 9, 1, 0]),
    }
    found = compare_variants(rows)
    assert found["exclusive_0"] == {
        "test_error": 35, "training_error": 25, "early_error": 90,
        "test_gap": 32, "training_gap": 24, "early_gap": 40,
    }  # fmt: skip
    assert found["pre"]["test_gap"] == -2 and found["pre"]["early_gap"] == -10
    assert found["exclusive"] == {"gate_gain": 30} and "shortcut_only" not in found
    assert found["smallest_gap"] == {"test": 2, "training": -0.5}  # of shortcuts, not of orders


def test_a_record_has_all_variants_and_a_report(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs of another experiment stand for the variants' runs."""
    planned = []

    def pretend(folder: Path, plan: dict[str, object], **_: object) -> dict[str, Run]:
        planned.extend(plan)
        kinds = {name: "plain14" if name.startswith("dropout") else "resnet8" for name in plan}
        return {name: Run(done / "runs" / f"{kind}-seed0") for name, kind in kinds.items()}

    monkeypatch.setattr(lab, "train_all", pretend)
    monkeypatch.setattr(lab, "write_report", lambda folder: None)  # figures are drawn below
    chosen = ["pre", "dropout"]
    record = ablation(tmp_path / "out", variants=chosen, seeds=2, budget=4, depth=8, quiet=True)
    assert planned == [
        f"{name}-seed{seed}" for seed in (0, 1) for name in ("identity", "dropout", "pre")
    ]
    found = record["results"]
    assert list(found["variants"]) == ["identity", "dropout", "pre"]
    assert found["measures"]["pre"]["test_gap"] == 0
    text = finding(record)
    assert f"dropout of 0.5 with {found['measures']['dropout']['test_error']:.2f} %" in text
    errors, curves = (
        item for item in make_page(record).sections[0].items if isinstance(item, Plot)
    )
    figures = Figure(), Figure()
    errors.draw(figures[0], LIGHT)
    curves.draw(figures[1], LIGHT)
    shown = [text.get_text() for text in figures[0].axes[0].get_yticklabels()]
    assert shown == [VARIANTS[name].text for name in ("pre", "dropout", "identity")]
    titles = [axes.get_title() for axes in figures[1].axes]
    assert titles == [VARIANTS["dropout"].text, VARIANTS["pre"].text, "", ""]
    more = ablation(tmp_path / "out", seeds=1, budget=4, depth=8, quiet=True)
    assert list(more["results"]["variants"]) == list(VARIANTS)


def test_unknown_variants_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(ReszooError, match="variants: 'dropuot' is invalid; did you mean 'dropout'"):
        ablation(tmp_path / "out", variants=["dropuot"], quiet=True)
