"""What is decided of a search beside its space: the tuner, how much it may try, and what no trial may exceed. Standard library only."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import Any, Literal

from reszoo.errors import ReszooError
from reszoo.training.fields import Checked

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, kw_only=True)
class SearchConfig(Checked):
    """The table [search] of a space.

    tuner: "random"; "bayesian" (a Gaussian process after the first random ones); "hyperband" (many short trials, the better
        ones gone on with; arXiv 1603.06560); "grid" (every combination).
    trials: at most so many; for hyperband, as many whole sweeps as the training of so many full trials pays for, at least
        one. 0: 30, one sweep, or the whole grid.
    executions: runs of each trial, with seeds one apart; its score is their mean.
    seed: of the choices, and of the first execution.
    max_params, max_macs: the most parameters, and multiply-adds of one image, that a net may have; 0 for no limit.
    max_failures: so many failed trials in a row stop the search.
    """

    TABLE = "search"

    tuner: Literal["random", "bayesian", "hyperband", "grid"] = "random"
    trials: int = 0
    executions: int = 1
    seed: int = 0
    max_params: int = 0
    max_macs: int = 0
    max_failures: int = 3

    def check(self) -> None:
        for name in ("trials", "max_params", "max_macs"):
            self.refuse_unless(getattr(self, name) >= 0, name, "at least 0")
        for name in ("executions", "max_failures"):
            self.refuse_unless(getattr(self, name) >= 1, name, "at least 1")
        self.refuse_unless(
            0 <= self.seed < 2**31 - self.executions, "seed", "from 0 to 2147483647, less the executions"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return dataclasses.asdict(self)


def quantity(text: str) -> int:
    """Return the number that text such as "1M", "1.5G" or "200000" spells (k, M, G and T are powers of 1000).

    Raises ReszooError for anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]?)", text.strip().replace("_", "").replace(",", ""))
    if not found:
        raise ReszooError(f"{text!r} is no amount: give one such as 1M, 2.5G or 200000")
    number = float(found[1]) * UNITS[found[2]]
    if number != int(number):
        raise ReszooError(f"{text!r} is not a whole amount")
    return int(number)
