"""Compare runs by recipe: scores over seeds and paired differences, as a page and as CSV files."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from reszoo.comparison.groups import Group, check_score, find_runs, group_runs
from reszoo.comparison.page import (
    Pair,
    describe_difference,
    format_mean,
    list_cells,
    make_page,
)
from reszoo.comparison.statistics import paired_difference
from reszoo.files import check_output, write_text
from reszoo.keywords import explain_keywords
from reszoo.reporting.page import write_page


@dataclass(frozen=True)
class Comparison:
    """What `compare` returns.

    Attributes:
        page: The HTML page. runs.csv, differences.csv and the figure are next to it.
        groups: The runs by recipe.
        pairs: The differences of recipes with common seeds and the same test images.
        finding: The result in one sentence.
    """

    page: Path
    groups: tuple[Group, ...]
    pairs: tuple[Pair, ...]
    finding: str


@explain_keywords
def compare(
    runs: Iterable[str | os.PathLike[str]],
    *,
    out: str | os.PathLike[str] = "comparison",
    score: str = "error",
) -> Comparison:
    """Compare runs by recipe, and write a report. The same call writes it anew.

    Args:
        runs: Run folders, or folders of runs such as those of `train_seeds`. Runs that train the
            same on the same images, but for the seed, form a group. Runs that have not finished are
            in the curves.
        out: The folder of the report.
        score: A test score: "error" in percent, or a key of test.json such as "loss".

    Raises:
        ReszooError: If there are no runs, or a file of a run cannot be read.
    """
    folder = Path(out)
    check_output(folder / "report.html", "out")
    groups = group_runs(find_runs(runs))
    check_score(groups, score)
    pairs = []
    for first, second in itertools.combinations(groups, 2):
        same = len({run.images.get("test") for run in (*first.runs, *second.runs)}) == 1
        difference = paired_difference(first.values(score), second.values(score))
        if same and difference is not None:
            pairs.append(Pair(first, second, difference))
    finding = _finding(groups, pairs, score)
    page = write_page(folder, make_page(groups, pairs, score, finding))
    _write_csv(folder / "runs.csv", *list_cells(groups))
    rows = [
        [
            pair.second.label,
            pair.first.label,
            score,
            pair.difference.mean,
            *(pair.difference.interval or ("", "")),
            len(pair.difference.seeds),
        ]
        for pair in pairs
    ]
    headers = ["second", "first", "score", "difference", "low", "high", "seeds"]
    _write_csv(folder / "differences.csv", headers, rows)
    return Comparison(page, tuple(groups), tuple(pairs), finding)


def _finding(groups: Sequence[Group], pairs: Sequence[Pair], score: str) -> str:
    finished = [group for group in groups if group.values(score)]
    if not finished:
        return "No run has finished yet."
    if len(finished) == 1:
        values = list(finished[0].values(score).values())
        name = score.replace("_", " ")
        return f"{finished[0].label}: {name} {format_mean(values, score)}, seeds: {len(values)}."
    if not pairs:
        return "No two recipes have finished runs with a common seed and the same test images."
    clear = sum(pair.difference.is_clear for pair in pairs)
    if len(pairs) > 1:
        return f"{clear} of {len(pairs)} paired differences have an interval that excludes 0."
    (pair,) = pairs
    if pair.difference.interval is None:
        verdict = "cannot be distinguished by one seed"
    else:
        verdict = "differs" if clear else "does not differ clearly"
    return (
        f"The {score.replace('_', ' ')} of {pair.second.label} {verdict} from that of "
        f"{pair.first.label}: {describe_difference(pair.difference, score)}."
    )


def _write_csv(path: Path, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headers)
    writer.writerows(rows)
    write_text(path, text.getvalue())
