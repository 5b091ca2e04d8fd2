"""What `reszoo lab resemblance` concludes from CKA, linear probes and stitches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from reszoo.types import Array, JsonObject

ALIKE = 0.9  # outputs with a larger CKA count as alike
PLATEAU = 0.95  # of the largest accuracy of a model's probes
PAIRINGS = ("literal", "by_stage", "relative")


def pair_blocks(shallow: Sequence[str], deep: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    """Return which block of the deep model each block of the shallow one is compared with.

    literal: the blocks with the same number from the input, which are the first layers of the deep
    model. by_stage: the first blocks of each stage, as `reszoo.grow` keeps them. relative: the
    block at the same share of its stage.

    Args:
        shallow: Names of blocks such as "stage1_block2", in order.
        deep: The same of the deep model.
    """
    ratio = len(deep) // len(shallow)
    relative = [
        f"{stage}_block{int(number) * ratio}"
        for stage, number in (name.split("_block") for name in shallow)
    ]
    others = {"literal": deep[: len(shallow)], "by_stage": shallow, "relative": relative}
    return {name: list(zip(shallow, other, strict=True)) for name, other in others.items()}


def pair_ckas(names: Sequence[Sequence[str]], cka: dict[str, Array]) -> JsonObject:
    """Return the CKA of each pair of blocks, the ceiling and the floor, by pairing."""
    shallow, deep = names
    found: JsonObject = {"ceiling": np.diag(cka["seeds"])[1:].tolist()}
    for pairing, pairs in pair_blocks(shallow[1:], deep[1:]).items():
        places = [(shallow.index(one), deep.index(other)) for one, other in pairs]
        found[pairing] = {
            name: [float(cka[name][place]) for place in places] for name in ("deep", "untrained")
        }
    return found


def compute_measures(found: JsonObject, seeds: Sequence[Array]) -> JsonObject:
    """Return the numbers that claims are about, by name.

    Args:
        found: What was measured on the models of one kind.
        seeds: The CKA of each pair of shallow models.
    """
    cka, pairs, probes = found["cka"], found["pairs"], found["probes"]
    ceiling = float(np.mean(pairs["ceiling"]))
    measures = {"ceiling": ceiling}
    for pairing in PAIRINGS:
        value, floor = (float(np.mean(pairs[pairing][name])) for name in ("deep", "untrained"))
        measures |= {
            f"{pairing}_cka": value,
            f"{pairing}_floor": floor,
            f"{pairing}_share": (value - floor) / (ceiling - floor),
        }
    identified = [
        (matrix.argmax(1) == np.arange(len(matrix))).mean()
        for each in seeds
        for matrix in (each, each.T)
    ]
    best, largest = cka["deep"].argmax(1), float(cka["deep"].max(1)[1:].mean())
    measures |= {
        "identified": float(np.mean(identified)),
        "order": _rank_correlation(best),
        "best_cka": largest,
        "best_share": largest / ceiling,
    }
    for which, name in (("deep", "within"), ("shallow", "within_shallow")):
        accuracies = np.array(probes[which])
        reached = (accuracies >= PLATEAU * accuracies.max()).argmax()
        measures |= {
            f"alike_{which}": float((cka[name][-1][1:-1] >= ALIKE).mean()),
            f"plateau_{which}": float(reached / (len(accuracies) - 1)),
            f"probe_order_{which}": _rank_correlation(accuracies),
        }
    shallow, deep = probes["shallow"], probes["deep"]
    measures["probe_gap"] = 100 * (shallow[-1] - deep[len(shallow) - 1])
    for what in dict.fromkeys(row["what"] for row in found["stitches"]):
        own = [row["penalty"] for row in found["stitches"] if row["what"] == what]
        measures[f"{what.replace(' ', '_')}_penalty"] = max(own)
    return measures


def _rank_correlation(values: Array) -> float:
    """Return that of values with their places; 0 if all are equal."""
    return float(spearmanr(np.arange(len(values)), values)[0]) if np.ptp(values) else 0.0
