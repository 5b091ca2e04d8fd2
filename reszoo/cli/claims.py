"""`reszoo claims`: what the literature says about residual learning, measured again."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from reszoo.cli.output import load_tensorflow, print_table

ACTIONS = ("list", "run", "report")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `reszoo claims`."""
    parser.add_argument(
        "action", nargs="?", default="list", choices=ACTIONS, metavar="ACTION",
        help="list (default): claims and last verdicts; run: run their experiments; report: write "
        "a page",
    )  # fmt: skip
    parser.add_argument(
        "claims", nargs="*", metavar="CLAIM",
        help="ids, experiments or arXiv numbers; wildcards are allowed (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("claims"),
        metavar="DIR",
        help="folder of the records; the same command resumes there (default %(default)s)",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="run each experiment at a size that takes seconds"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """List, run or report claims."""
    from reszoo.claims.ledger import find_claims

    claims = find_claims(args.claims)
    if args.action == "run":
        load_tensorflow()
        from reszoo.claims.run import run_claims

        findings = run_claims(claims, args.out, smoke=args.smoke, quiet=args.json)
    else:
        from reszoo.claims.verdicts import judge

        findings = [judge(claim, args.out) for claim in claims]
    if args.action != "list":
        from reszoo.claims.page import summarize, write_ledger

        page = write_ledger(findings, args.out)
    if args.json:
        shown = [
            {
                **each.claim.to_dict(),
                "verdict": each.verdict,
                "measured": each.number,
                "measured_others": dict(each.others),
            }
            for each in findings
        ]
        print(json.dumps(shown, indent=2))
        return 0
    rows = [
        (each.claim.id, each.claim.paper, each.claim.value, each.text, each.verdict)
        for each in findings
    ]
    print_table(("claim", "paper", "value", "measured", "verdict"), rows)
    if args.action != "list":
        print(f"\n{summarize(findings)}\nreport: {page}")
    return 0
