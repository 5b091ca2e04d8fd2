"""Find the model among a checkpoint's names, whatever wrapped it, and report what is ignored."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reszoo.errors import ReszooError
from reszoo.types import Array, JsonMapping
from reszoo.weights.files import RAW

# A tensor that every model of a layout has. What stands before it in a file is a wrapper's prefix.
SIGNS = (
    *("layer1.0.conv1.weight", "stages.0.0.conv1.gain"),
    *("stem_conv1/kernel", "conv1_conv/kernel"),
)
# What torch.compile, FSDP, activation checkpointing and Lightning Fabric put into names, anywhere.
WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
AVERAGED = {"ema", "swa", "averaged", "average", "averager", "avg", "polyak"}
# First words of names that a loss, a metric, an average or a profiler keeps in addition to the
# layers. No output depends on them.
AUXILIARY = set(
    "criterion loss losses metric metrics acc accuracy auroc auc f1 f1score precision recall "
    "confmat confusion averaged n_averaged initted num_updates".split()
)
# Last words of names in which PyTorch and profilers count. No output depends on them.
COUNTERS = ("num_batches_tracked", "total_ops", "total_params")
SHOWN = 4  # groups of ignored names in a line
_TOKEN = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+")

ToArray = Callable[[Any], Array]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model in a file.

    Attributes:
        prefix: What stands before the names of its tensors.
        averaged: Whether they are averages over training.
    """

    prefix: str
    averaged: bool

    @property
    def name(self) -> str:
        """The prefix without its last separator, as in `FILE#ENTRY`."""
        return self.prefix.rstrip("./")

    def matches(self, entry: str) -> bool:
        """Return whether `entry` is a run of whole words of the prefix."""
        own, wanted = re.split(r"[./]", self.name), re.split(r"[./]", entry.rstrip("./"))
        return any(own[start : start + len(wanted)] == wanted for start in range(len(own)))


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The model chosen from a file.

    Attributes:
        prefix: What stands before the names of its tensors.
        names: From a tensor's name without the prefix to its name in the file.
        averaged: Whether they are averages over training.
        ignored: Names in the file that are not loaded.
        notes: What a person should know of the choice, one sentence each.
    """

    prefix: str
    names: dict[str, str]
    averaged: bool = False
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def describe(self, file: str) -> list[str]:
        """Return lines about what was loaded and ignored; none for a plain file of one model."""
        lines = [f"{file}: {note}" for note in self.notes]
        what = "averaged weights" if self.averaged else "weights"
        where = f"loaded the {what} under '{self.prefix}'" if self.prefix else f"loaded the {what}"
        if groups := group_names(self.ignored, self.prefix):
            counters = {name.rpartition(".")[2] for name in self.names if name.endswith(COUNTERS)}
            shown = ", ".join([*groups[:SHOWN], *sorted(counters)])
            more = f" and {len(groups) - SHOWN} more" if len(groups) > SHOWN else ""
            lines.append(f"{file}: {where}; ignored {shown}{more}")
        elif self.prefix and not self.notes:
            lines.append(f"{file}: {where}")
        return lines


def select_model(
    values: JsonMapping,
    *,
    others: Sequence[str] = (),
    entry: str = "",
    to_array: ToArray = np.asarray,
) -> Selection:
    """Choose the model among the tensors of a file. Averaged weights are preferred to raw ones.

    Args:
        values: The tensors by name.
        others: Names in the file that hold no tensors.
        entry: Which of several models is meant, as in `FILE#ENTRY`.
        to_array: Makes an array of a tensor, to compare models.

    Raises:
        ReszooError: If several models are left, or none is called `entry`.
    """
    names = strip_wrappers(values)
    found = find_candidates(names)
    if not found:
        if entry:
            raise ReszooError(
                f"'#{entry}' is invalid; the file holds no model whose names are known"
            )
        return Selection(prefix="", names=dict(names))
    chosen, notes = choose_candidate(_drop_copies(found, names, values, to_array), entry)
    nested = tuple(c.prefix for c in found if c.prefix.startswith(chosen.prefix) and c != chosen)
    kept, ignored = {}, []
    for name, stored in names.items():
        own = name.removeprefix(chosen.prefix)
        inside = name.startswith(chosen.prefix) and not (nested and name.startswith(nested))
        if inside and not is_auxiliary(own):
            kept[own] = stored
        elif not any(other != chosen and name.startswith(other.prefix) for other in found):
            ignored.append(name)
    return Selection(
        prefix=chosen.prefix,
        names=kept,
        averaged=chosen.averaged,
        ignored=(*ignored, *others),
        notes=notes,
    )


def find_candidates(names: Iterable[str]) -> list[Candidate]:
    """Return the models whose first known tensor is among `names`, in their order."""
    known = list(names)
    prefixes = [
        name.removesuffix(sign)
        for name in known
        for sign in SIGNS
        if name == sign or name.endswith((f".{sign}", f"/{sign}"))
    ]
    there = set(known)
    # Lightning's averaging callback keeps the averages under state_dict and the raw weights under
    # current_model_state.
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


def choose_candidate(
    candidates: Sequence[Candidate], entry: str = ""
) -> tuple[Candidate, tuple[str, ...]]:
    """Return the candidate that is meant, and notes on the choice.

    Raises:
        ReszooError: If none or several are meant.
    """
    names = _list_names(candidates)
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
    if len(left) == 1:
        return left[0], ()
    averaged = [one for one in left if one.averaged]
    if len(averaged) == 1:
        raw = _list_names([one for one in left if not one.averaged])
        return averaged[0], (
            f"loaded the averaged weights '{averaged[0].name}', not the raw ones ({raw}); "
            f"add #{RAW} to the file name for those",
        )
    # MoCo trains the query encoder and keeps a moving average of it, the key encoder; its authors
    # evaluate the query encoder.
    queries = [one for one in left if one.name.endswith("encoder_q")]
    if len(queries) == 1 and all(one.name.endswith(("encoder_q", "encoder_k")) for one in left):
        return queries[0], (
            f"loaded the query encoder '{queries[0].name}'; add #encoder_k to the file name for "
            "the key encoder",
        )
    raise ReszooError(
        f"it holds several models ({names}); name one behind the file name. "
        f"Example: FILE#{left[-1].name or left[0].name}"
    )


def strip_wrappers(names: Iterable[str]) -> dict[str, str]:
    """Return from each name without the parts that wrappers put into it to the name itself."""
    known = list(names)
    stripped = [
        ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in known
    ]
    return dict(zip(stripped if len(set(stripped)) == len(known) else known, known, strict=True))


def is_auxiliary(name: str) -> bool:
    """Return whether a name without prefix belongs to a loss, metric or average, not to a layer."""
    first = re.split(r"[./]", name)[0]
    return first in AUXILIARY or bool(AUXILIARY & set(tokens(first)))


def tokens(text: str) -> list[str]:
    """Return a name's words in lower case: ema, callback, ema, model of "EMACallback.ema_model"."""
    return [word.lower() for word in _TOKEN.findall(text.replace("_", " "))]


def group_names(names: Sequence[str], prefix: str) -> list[str]:
    """Shorten ignored names: those that share the first word behind the wrapper's are one group."""
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


def _list_names(candidates: Sequence[Candidate]) -> str:
    return ", ".join(f"'{one.name or '(no prefix)'}'" for one in candidates)


def _drop_copies(
    candidates: Sequence[Candidate],
    names: Mapping[str, str],
    values: JsonMapping,
    to_array: ToArray,
) -> list[Candidate]:
    """Drop candidates whose tensors equal an earlier one's: one module stored under two names."""

    def equal(own: Mapping[str, str], theirs: Mapping[str, str]) -> bool:
        if own.keys() != theirs.keys():
            return False
        pairs = [(values[own[name]], values[theirs[name]]) for name in own]
        return all(one.shape == other.shape for one, other in pairs) and all(
            np.array_equal(to_array(one), to_array(other)) for one, other in pairs
        )

    kept: list[tuple[Candidate, dict[str, str]]] = []
    for one in candidates:
        start = one.prefix
        own = {n.removeprefix(start): stored for n, stored in names.items() if n.startswith(start)}
        if not any(equal(own, theirs) for _, theirs in kept):
            kept.append((one, own))
    return [one for one, _ in kept]
