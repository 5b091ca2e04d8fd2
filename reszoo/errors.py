"""The one error that users see, and what its messages share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ReszooError(ValueError):
    """Invalid input: one line that names the key or file, the value, what was expected and the fix.

    The command line prints the line and exits with `status`. In Python it is a `ValueError`.
    """

    status = 2
    """The exit status of the command line. 2 is final: the same command fails again."""


class ChangedDataError(ReszooError):
    """The images at a run's location are not those that the run was trained on."""


class PeerLost(ReszooError):  # noqa: N818, an event that no input caused
    """Another worker of the run is missing or was lost. To start all again with --resume helps."""

    status = 200  # >= 128, so that Kubeflow's TFJob restarts the worker; no shell or signal uses it


def did_you_mean(word: str, options: Iterable[str], count: int = 3) -> str:
    """Return `"; did you mean 'a' or 'b'?"` with the options nearest to `word`, `""` for none."""
    near = difflib.get_close_matches(word.lower(), list(options), n=count, cutoff=0.6)
    return f"; did you mean {' or '.join(repr(name) for name in near)}?" if near else ""


def shorten(value: object) -> str:
    """Return the first line of a value's representation, at most 40 characters."""
    text = repr(value).partition("\n")[0]
    return text if len(text) <= 40 else f"{text[:37]}..."
