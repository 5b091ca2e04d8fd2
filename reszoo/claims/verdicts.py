"""Verdicts on claims, computed from the records of experiments."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from reszoo.claims.ledger import Claim
from reszoo.errors import ReszooError
from reszoo.types import JsonMapping

RECORD = "record.json"
Verdict = Literal["reproduced", "not reproduced", "depends", "not run"]


@dataclass(frozen=True)
class Finding:
    """A claim and what was measured.

    Attributes:
        claim: The claim.
        verdict: "reproduced" if all measured numbers satisfy the criterion, "not reproduced" if
            none does, "depends" if some do, "not run" without a record.
        number: The measured number.
        others: Numbers under other conditions, by condition.
        record: The record that they are from.
    """

    claim: Claim
    verdict: Verdict
    number: float | None = None
    others: JsonMapping = field(default_factory=dict)
    record: Path | None = None

    @property
    def text(self) -> str:
        """The measured numbers as text."""
        if self.number is None:
            return "-"
        write = self.claim.write
        others = (f"{condition}: {write(number)}" for condition, number in self.others.items())
        return "; ".join([self.claim.with_unit(write(self.number)), *others])


def judge(claim: Claim, folder: str | os.PathLike[str]) -> Finding:
    """Return the verdict on a claim from the records below a folder.

    Args:
        claim: The claim.
        folder: The folder of the ledger; each experiment has a folder of its name in it.

    Raises:
        ReszooError: If a record lacks the claim's measure.
    """
    path = Path(folder) / claim.experiment / RECORD
    if not path.is_file():
        return Finding(claim, "not run")
    try:
        results = json.loads(path.read_text(encoding="utf-8"))["results"]
    except (ValueError, KeyError, TypeError):
        raise ReszooError(
            f"{path} is damaged; delete {path.parent} and run `reszoo claims run {claim.id}`"
        ) from None
    names = [claim.measure, *claim.others.values()]
    measures = {name: _look_up(results, name) for name in names}
    if missing := [name for name in names if measures[name] is None]:
        raise ReszooError(
            f"{path} has no number {missing[0]!r}; delete {path.parent} and run "
            f"`reszoo claims run {claim.id}`"
        )
    numbers = {name: number for name, number in measures.items() if number is not None}
    held = [claim.holds(numbers[name]) for name in names]
    verdict: Verdict = "reproduced" if all(held) else "depends" if any(held) else "not reproduced"
    others = {condition: numbers[name] for condition, name in claim.others.items()}
    return Finding(claim, verdict, numbers[claim.measure], others, path)


def _look_up(results: JsonMapping, name: str) -> float | None:
    """Return the number at a dotted path below the results; None if there is none."""
    found: Any = results
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return float(found) if isinstance(found, int | float) and found == found else None
