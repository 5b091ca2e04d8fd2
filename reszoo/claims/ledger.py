"""The claims: statements with source, experiment, expected value and criterion, read from data."""

from __future__ import annotations

import fnmatch
import functools
import tomllib
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from pydantic import Field

from reszoo.errors import ReszooError, did_you_mean
from reszoo.validation.table import Table


class Experiment(Table):
    """A command of `reszoo lab` whose record claims are read from."""

    TABLE = "experiment"

    lab: str = Field(description="The experiment of `reszoo lab`.")
    arguments: dict[str, Any] = Field({}, description="Its arguments.")
    smoke: dict[str, Any] = Field({}, description="Arguments that take seconds instead.")
    minutes: float = Field(ge=0, description="Minutes on two idle cores.")


class Claim(Table):
    """A statement with a number, and the criterion by which a measured number satisfies it."""

    TABLE = "claim"

    id: str = Field(pattern=r"^[a-z0-9-]+$", description="Its name on the command line.")
    statement: str = Field(description="What the source says, in one sentence.")
    paper: str = Field(description="The source: arXiv number, or whose question it is.")
    place: str = Field(description="Section, figure or table.")
    value: str = Field(description="The source's value, as text.")
    experiment: str = Field(description="The name of the experiment.")
    measure: str = Field(description="Dotted path of the measured number in the record's results.")
    shown: str = Field(
        "{}",
        pattern=r"\{%?\}",
        description="How the number is written: `{} points`; `{%} of blocks` for a fraction.",
    )
    low: float | None = Field(None, description="The least number that satisfies the claim.")
    high: float | None = Field(None, description="The largest number that satisfies it.")
    variable: str = Field("", description="What the claim may depend on.")
    others: dict[str, str] = Field(
        {}, description="Paths of the same quantity under other conditions, by condition."
    )
    note: str = Field("", description="What a reader must know to compare the two numbers.")

    def check(self) -> None:
        """Raise ReszooError for a claim without a criterion."""
        if self.low is None and self.high is None:
            raise ReszooError(f"claim {self.id}: no criterion; expected low, high or both")
        if bool(self.variable) != bool(self.others):
            raise ReszooError(f"claim {self.id}: variable and others go together")

    def holds(self, number: float) -> bool:
        """Return whether a number satisfies the criterion."""
        low = -float("inf") if self.low is None else self.low
        return low <= number <= (float("inf") if self.high is None else self.high)

    def write(self, number: float, digits: int = 3) -> str:
        """Return a number as text without its unit, such as "1,202" or "89 %"."""
        percent = "{%}" in self.shown
        number *= 100 if percent else 1
        short = f"{number:.{digits}g}"
        text = f"{number if abs(number) < 1e6 else float(short):,.0f}"
        return (text if abs(number) >= 1000 else short) + " %" * percent

    def with_unit(self, text: str) -> str:
        """Return the text of a number with its unit, such as "89 % of the blocks"."""
        return self.shown.replace("{%}", "{}").replace("{}", text)

    @property
    def criterion(self) -> str:
        """The criterion as text, such as "0.9 to 1.1 points"."""
        low, high = (
            None if bound is None else self.write(bound, 6) for bound in (self.low, self.high)
        )
        if low is None:
            return self.with_unit(f"at most {high}")
        if low == high:
            return self.with_unit(f"exactly {low}")
        return self.with_unit(f"at least {low}" if high is None else f"{low} to {high}")


@functools.cache
def _ledger() -> tuple[dict[str, Experiment], dict[str, Claim]]:
    text = (files("reszoo.claims") / "claims.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    experiments = {name: Experiment(**values) for name, values in content["experiment"].items()}
    claims = {values["id"]: Claim(**values) for values in content["claim"]}
    for claim in claims.values():
        if claim.experiment not in experiments:
            raise ReszooError(f"claim {claim.id}: no experiment {claim.experiment!r}")
    if len(claims) != len(content["claim"]):
        raise ReszooError("claims.toml: two claims have one id")
    return experiments, claims


def list_experiments() -> dict[str, Experiment]:
    """Return the experiments by name."""
    return _ledger()[0]


def find_claims(patterns: Sequence[str] = ()) -> list[Claim]:
    """Return the claims whose id, experiment or paper matches a pattern; all without patterns.

    Args:
        patterns: Shell-style wildcards such as "batch-norm-*", or "all".

    Raises:
        ReszooError: For a pattern that matches nothing, with the nearest id or experiment.
    """
    claims = _ledger()[1]
    found: dict[str, Claim] = {}
    for pattern in patterns or ["all"]:
        matched = {
            claim.id: claim
            for claim in claims.values()
            if pattern == "all"
            or any(
                fnmatch.fnmatchcase(text, pattern)
                for text in (claim.id, claim.experiment, claim.paper)
            )
        }
        if not matched:
            names = {*claims, *list_experiments()}
            hint = did_you_mean(pattern, names) or "; `reszoo claims` lists them"
            raise ReszooError(f"no claim '{pattern}'{hint}")
        found |= matched
    return list(found.values())
