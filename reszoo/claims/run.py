"""Run the experiments that claims are read from."""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

from reszoo.claims.ledger import Claim, list_experiments
from reszoo.claims.verdicts import RECORD, Finding, judge
from reszoo.reporting.reporter import Reporter


def run_claims(
    claims: Sequence[Claim],
    out: str | os.PathLike[str],
    *,
    smoke: bool = False,
    quiet: bool = False,
) -> list[Finding]:
    """Run the experiments of some claims and return the verdicts.

    An experiment with a record is not run again, and one that was interrupted resumes.

    Args:
        claims: The claims.
        out: The folder of the ledger; each experiment gets a folder of its name in it.
        smoke: Run each experiment at a size that takes seconds. Verdicts then say little.
        quiet: Print nothing.

    Raises:
        ReszooError: As the experiments do.
    """
    reporter, experiments = Reporter(quiet=quiet), list_experiments()
    names = list(dict.fromkeys(claim.experiment for claim in claims))
    for number, name in enumerate(names, 1):
        experiment, folder = experiments[name], Path(out) / name
        if (folder / RECORD).is_file():
            reporter.line(f"{name}: {folder / RECORD} exists")
            continue
        cost = "" if smoke else f" (about {experiment.minutes:g} min on two cores)"
        reporter.line(f"{number}/{len(names)} {name}{cost}")
        function = getattr(importlib.import_module(f"reszoo.lab.{experiment.lab}"), experiment.lab)
        arguments = experiment.smoke if smoke else experiment.arguments
        function(out=folder, quiet=quiet, **arguments)
    return [judge(claim, out) for claim in claims]
