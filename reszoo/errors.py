"""The one error a user meets, and the hint that goes with a misspelt name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReszooError(ValueError):
    """Something the caller can mend: one line saying what is wrong, where, and what to type instead.

    The command line prints the line and exits with status 2; in Python it is a `ValueError`.
    """


class ChangedDataError(ReszooError):
    """The images at a run's location are not those that the run was trained on."""


def did_you_mean(word: str, options: Iterable[str], count: int = 3) -> str:
    """Return `"; did you mean 'a' or 'b'?"` with the options nearest to `word`, or `""` when none is near."""
    near = difflib.get_close_matches(word.lower(), list(options), n=count, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
