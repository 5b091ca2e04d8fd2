"""One page on all claims: what the papers say, what was measured, and the verdicts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from reszoo.claims.verdicts import Finding
from reszoo.reporting.page import Page, Section, Table, write_page

VERDICTS = ("reproduced", "depends", "not reproduced", "not run")
HEADERS = ("claim", "verdict", "measured", "source's value", "criterion", "source")


def claim_row(finding: Finding) -> list[str]:
    """Return the cells of a finding below `HEADERS`."""
    claim = finding.claim
    verdict = f"depends on {claim.variable}" if finding.verdict == "depends" else finding.verdict
    source = f"{claim.paper}, {claim.place}"
    return [claim.statement, verdict, finding.text, claim.value, claim.criterion, source]


def summarize(findings: Sequence[Finding]) -> str:
    """Return the number of claims per verdict in one sentence."""
    counts: Counter[str] = Counter(finding.verdict for finding in findings)
    sources = {finding.claim.paper for finding in findings}
    papers = sum(source.startswith("arXiv") for source in sources)
    shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"{len(findings)} claims of {papers} paper{'s' * (papers != 1)}: {shown}."


def write_ledger(findings: Sequence[Finding], out: str | os.PathLike[str]) -> Path:
    """Write `out`/report.html with a table per experiment; return its path."""
    sections = []
    for name in dict.fromkeys(finding.claim.experiment for finding in findings):
        own = [finding for finding in findings if finding.claim.experiment == name]
        notes = " ".join(finding.claim.note for finding in own if finding.claim.note)
        sections.append(Section(name, [Table(HEADERS, [claim_row(each) for each in own], notes)]))
    return write_page(Path(out), Page("Claims on residual learning", summarize(findings), sections))
