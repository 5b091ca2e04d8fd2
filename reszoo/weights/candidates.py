"""Find the model among the names of a checkpoint, whatever wrapped it, and account for the names that are ignored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.weights.formats import RAW

# A tensor that every model of a layout has. What stands before it in a file is a wrapper's prefix.
SIGNS = ("layer1.0.conv1.weight", "stem_conv1/kernel", "conv1_conv/kernel")
# What torch.compile, FSDP, activation checkpointing and Lightning Fabric put into names, at any place.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
AVERAGED = {"ema", "swa", "averaged", "average", "averager", "avg", "polyak"}
# First words of names that a loss, a metric, an average or a profiler keeps beside the layers. No output depends on them.
BESIDE = {
    "criterion", "loss", "losses", "metric", "metrics", "acc", "accuracy", "auroc", "auc", "f1", "f1score", "precision", "recall",
    "confmat", "confusion", "averaged", "n_averaged", "initted", "num_updates",
}  # fmt: skip
# Last words of names that PyTorch and profilers count in. No output depends on them.
COUNTS = ("num_batches_tracked", "total_ops", "total_params")
SHOWN = 4
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One model in a file: `prefix` stands before the names of its tensors. averaged: they are averages over training."""

    prefix: str
    averaged: bool

    @property
    def name(self) -> str:
        """The prefix without its last separator, as `FILE#ENTRY` takes it."""
        return self.prefix.rstrip("./")

    def matches(self, entry: str) -> bool:
        """Return whether `entry` is a run of whole words of the prefix."""
        own, wanted = re.split(r"[./]", self.name), re.split(r"[./]", entry.rstrip("./"))
        return any(own[start : start + len(wanted)] == wanted for start in range(len(own)))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The model chosen from a file.

    names: from a tensor's name without the prefix to its name in the file. averaged: whether they are averages.
    ignored: names in the file that were left out.
    notes: what the choice means for whoever loads the file, each a sentence.
    """

    prefix: str
    names: dict[str, str]
    averaged: bool = False
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def describe(self, file: str) -> list[str]:
        """Return lines that say what was loaded from `file` and what was ignored; none for a plain file of one model."""
        lines = [f"{file}: {note}" for note in self.notes]
        counted = {name.rpartition(".")[2] for name in self.names if name.endswith(COUNTS)}
        groups = group_names(self.ignored, self.prefix)
        what = "averaged weights" if self.averaged else "weights"
        where = f"loaded the {what} under '{self.prefix}'" if self.prefix else f"loaded the {what}"
        if groups:
            shown = [*groups[:SHOWN], *sorted(counted)]
            more = f" and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
            lines.append(f"{file}: {where}; ignored {', '.join(shown)}{more}")
        elif self.prefix and not self.notes:
            lines.append(f"{file}: {where}")
        return lines


def select_model(
    values: Mapping[str, Any],
    *,
    others: Sequence[str] = (),
    entry: str = "",
    to_array: Callable[[Any], np.ndarray] = np.asarray,
) -> Selection:
    """Choose the model among the tensors `values`, by name, of a file.

    others: names in the file that hold no tensors. entry: which of several models is meant, as in `FILE#ENTRY`.
    to_array: makes a NumPy array of a value, to see whether two models are the same.
    Of raw and averaged weights the averaged ones are taken. Raises ReszooError if several models are left, or none is called `entry`.
    """
    spelled = strip_wrappers(values)
    found = find_candidates(spelled)
    if not found:
        if entry:
            raise ReszooError(
                f"'#{entry}' is invalid; the file holds no model whose names are known"
            )
        return Selection(prefix="", names=dict(spelled))
    chosen, notes = choose(_distinct(found, spelled, values, to_array), entry)
    nested = tuple(c.prefix for c in found if c.prefix.startswith(chosen.prefix) and c != chosen)
    names, ignored = {}, []
    for name, stored in spelled.items():
        own = name.removeprefix(chosen.prefix)
        inside = name.startswith(chosen.prefix) and not (nested and name.startswith(nested))
        if inside and not is_beside(own):
            names[own] = stored
        elif not any(other != chosen and name.startswith(other.prefix) for other in found):
            ignored.append(name)
    return Selection(
        prefix=chosen.prefix,
        names=names,
        averaged=chosen.averaged,
        ignored=(*ignored, *others),
        notes=notes,
    )


def find_candidates(names: Iterable[str]) -> list[Candidate]:
    """Return each model whose first known tensor is among `names`, in their order."""
    known = list(names)
    prefixes = []
    for name in known:
        for sign in SIGNS:
            if name == sign or name.endswith((f".{sign}", f"/{sign}")):
                prefixes.append(name.removesuffix(sign))
    there = set(known)
    # Lightning's averaging callback keeps the averages under state_dict and the raw weights under current_model_state.
    swapped = any(prefix.startswith("current_model_state.") for prefix in prefixes)
    return [
        Candidate(
            prefix=prefix,
            averaged=bool(AVERAGED & set(tokens(prefix)))
            or f"{prefix.removesuffix('module.')}n_averaged" in there
            or (swapped and prefix.startswith("state_dict.")),
        )
        for prefix in dict.fromkeys(prefixes)
    ]


def choose(candidates: Sequence[Candidate], entry: str = "") -> tuple[Candidate, tuple[str, ...]]:
    """Return the candidate that is meant, and what whoever loads the file should know. Raises ReszooError if none or several are."""
    names = ", ".join(f"'{one.name or '(no prefix)'}'" for one in candidates)
    left = list(candidates)
    if entry == RAW and not any(one.matches(entry) for one in candidates):
        left = [one for one in candidates if not one.averaged]
        if not left:
            raise ReszooError(f"'#{RAW}' is invalid; the file holds averaged weights only: {names}")
    elif entry:
        exact = [one for one in candidates if one.name == entry.rstrip("./")]
        left = exact or [one for one in candidates if one.matches(entry)]
        if not left:
            raise ReszooError(f"'#{entry}' is invalid; the file holds {names}")
    averaged = [one for one in left if one.averaged]
    if len(left) > 1 and len(averaged) == 1:
        raw = ", ".join(f"'{one.name or '(no prefix)'}'" for one in left if not one.averaged)
        return averaged[0], (
            f"loaded the averaged weights '{averaged[0].name}', not the raw ones ({raw}); add #{RAW} to the file name for those",
        )
    if len(left) == 1:
        return left[0], ()
    # MoCo trains the query encoder and keeps a moving average of it, the key encoder; its authors evaluate the first.
    queries = [one for one in left if one.name.endswith("encoder_q")]
    if len(queries) == 1 and all(one.name.endswith(("encoder_q", "encoder_k")) for one in left):
        return queries[0], (
            f"loaded the query encoder '{queries[0].name}'; add #encoder_k to the file name for the key encoder",
        )
    example = left[-1].name or left[0].name
    raise ReszooError(
        f"it holds several models ({names}); name one behind the file name. Example: FILE#{example}"
    )


def strip_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return from each name without the segments that wrappers put into it to the name itself."""
    known = list(names)
    stripped = [
        ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in known
    ]
    if len(set(stripped)) < len(known):
        stripped = known
    return dict(zip(stripped, known, strict=True))


def is_beside(name: str) -> bool:
    """Return whether a name, without prefix, belongs to a loss, a metric or an average and not to a layer."""
    first = re.split(r"[./]", name)[0]
    return first in BESIDE or bool(BESIDE & set(tokens(first)))


def tokens(text: str) -> list[str]:
    """Return the words of a name in lower case: "EMACallback.ema_model" is ema, callback, ema, model."""
    return [word.lower() for word in _TOKEN.findall(text.replace("_", " "))]


def group_names(names: Sequence[str], prefix: str) -> list[str]:
    """Shorten the ignored names of a file: those that share their first word behind a wrapper's are one, with their number."""
    outer = re.split(r"[./]", prefix)[0]
    groups: dict[str, list[str]] = {}
    for name in names:
        parts = re.split(r"[./]", name)
        depth = 2 if outer and parts[0] == outer and len(parts) > 1 else 1
        groups.setdefault(".".join(parts[:depth]), []).append(name)
    return [
        some[0] if len(some) == 1 else f"{group}.* ({len(some)} tensors)"
        for group, some in groups.items()
    ]


def _distinct(
    candidates: Sequence[Candidate],
    spelled: Mapping[str, str],
    values: Mapping[str, Any],
    to_array: Callable[[Any], np.ndarray],
) -> list[Candidate]:
    """Leave out candidates whose tensors are those of an earlier one, as where a module is stored under two names."""
    kept: list[tuple[Candidate, dict[str, str]]] = []
    for one in candidates:
        own = {
            name.removeprefix(one.prefix): stored
            for name, stored in spelled.items()
            if name.startswith(one.prefix)
        }
        if not any(_same(own, theirs, values, to_array) for _, theirs in kept):
            kept.append((one, own))
    return [one for one, _ in kept]


def _same(
    own: Mapping[str, str],
    theirs: Mapping[str, str],
    values: Mapping[str, Any],
    to_array: Callable[[Any], np.ndarray],
) -> bool:
    if own.keys() != theirs.keys() or any(
        values[own[n]].shape != values[theirs[n]].shape for n in own
    ):
        return False
    return all(
        np.array_equal(to_array(values[own[name]]), to_array(values[theirs[name]])) for name in own
    )
