"""The table [search] of a search space: the tuner, and the limits of a search and of its models."""

from __future__ import annotations

import re
from typing import ClassVar, Literal

from pydantic import Field

from reszoo.errors import ReszooError
from reszoo.validation.messages import contradiction
from reszoo.validation.table import Table

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


class SearchConfig(Table):
    """How a search proceeds, without its space."""

    TABLE: ClassVar[str] = "search"

    tuner: Literal["random", "bayesian", "hyperband", "grid"] = Field(
        "random",
        description="random; bayesian (a Gaussian process after some random trials); hyperband "
        "(many short trials, of which the better ones continue; arXiv 1603.06560); grid (all "
        "combinations).",
    )
    trials: int = Field(
        0,
        ge=0,
        description="Largest number of trials. For hyperband, as many sweeps as this number of "
        "full trainings pays for, at least one. 0: 30, one sweep, or the whole grid.",
    )
    executions: int = Field(
        1, ge=1, description="Runs per trial, with consecutive seeds; the score is their mean."
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Seed of the proposals, and of the first execution."
    )
    max_params: int = Field(0, ge=0, description="Most parameters of a model; 0 for no limit.")
    max_macs: int = Field(0, ge=0, description="Most MACs per image; 0 for no limit.")
    max_failures: int = Field(3, ge=1, description="Failed trials in a row that stop the search.")

    def check(self) -> None:
        """Raise ReszooError if the last execution's seed is too large."""
        most = 2**31 - self.executions
        if self.seed > most:
            expected = f"an integer <= 2**31 - search.executions = {most}"
            raise contradiction("search.seed", self.seed, expected, "search.seed=0")


def parse_amount(text: str) -> int:
    """Return the number of text such as "1M", "1.5G" or "200000"; k, M, G and T are powers of 1000.

    Raises:
        ReszooError: For any other text.
    """
    plain = text.strip().replace("_", "").replace(",", "")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kMGT]?)", plain)
    number = float(found[1]) * UNITS[found[2]] if found else 0.5
    if number != int(number):
        raise ReszooError(f'"{text}" is invalid; expected an amount such as 1M, 2.5G or 200000')
    return int(number)
