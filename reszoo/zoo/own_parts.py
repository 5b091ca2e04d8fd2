"""A user's own shortcuts and blocks: how they are registered, found and counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from reszoo.errors import ReszooError, did_you_mean
from reszoo.references import invalid_reference, is_reference, load_reference

BUILT_IN = {"shortcut": ("none", "A", "B", "C"), "block": ("basic", "bottleneck")}
Numbers = tuple[int, int, int]
"""Weights that are trained, weights that are not, and MACs for one image."""


@dataclass(frozen=True)
class OwnPart:
    """A registered function.

    Attributes:
        function: Makes the part of a Keras model.
        count: Counts it by arithmetic; None if it has no weights and no MACs.
        depth: Layers on the main path, of a block.
    """

    function: Callable[..., Any]
    count: Callable[[Numbers, int, int], Numbers] | None
    depth: int = 0

    def numbers(self, shape: Numbers, channels: int, stride: int) -> Numbers:
        """Return the counts for an input [height, width, channels]."""
        return self.count(shape, channels, stride) if self.count else (0, 0, 0)


_PARTS: dict[str, dict[str, OwnPart]] = {"shortcut": {}, "block": {}}


def register_shortcut(
    name: str,
    function: Callable[..., Any],
    count: Callable[[Numbers, int, int], Numbers] | None = None,
) -> None:
    """Register a shortcut, for `reszoo.build(..., shortcut=name)` and recipes.

    Args:
        name: At least two letters, digits or underscores. A second call replaces the first.
        function: Called in every block with (x, channels, stride, name). It brings x, [n, h, w, c],
            to `channels` and to every `stride`-th pixel, by Keras layers whose names begin with
            `name`.
        count: Called with (shape, channels, stride), where `shape` is (h, w, c) of x. It returns
            (weights that are trained, weights that are not, MACs). None: no weights. `build`
            compares it with the model.

    Raises:
        ReszooError: For the name of a built-in shortcut, or what is not a name.
    """
    _register("shortcut", name, OwnPart(function, count))


def register_block(
    name: str,
    function: Callable[..., Any],
    count: Callable[[Numbers, int, int], Numbers] | None = None,
    *,
    depth: int,
) -> None:
    """Register a residual branch F, for `reszoo.build(..., block=name)` and recipes.

    A block computes ReLU(shortcut(x) + F(x)). The branch has `widths` output channels.

    Args:
        name: At least two letters, digits or underscores. A second call replaces the first.
        function: Called with (x, channels, stride, name). It returns the branch, [n, ceil(h /
            stride), ceil(w / stride), channels], by Keras layers whose names begin with `name`.
        count: As in `register_shortcut`.
        depth: Convolutions and dense layers on the main path of the branch.

    Raises:
        ReszooError: For the name of a built-in block, or what is not a name.
    """
    _register("block", name, OwnPart(function, count, depth))


def find_part(kind: str, name: str) -> OwnPart | None:
    """Return the user's own "shortcut" or "block" by name or reference; None for a built-in one.

    Raises:
        ReszooError: If it is not registered.
    """
    own, built_in = _PARTS[kind], BUILT_IN[kind]
    if name in built_in:
        return None
    if is_reference(name):
        function = load_reference(f"model.{kind}", name)
        for part in own.values():
            if part.function is function:
                return part
        why = f"its module must call reszoo.register_{kind} with this function"
        raise invalid_reference(f"model.{kind}", name, why)
    if name not in own:
        near = did_you_mean(name, [*built_in, *own])
        shown = ", ".join(f'"{each}"' for each in (*built_in, *own))
        raise ReszooError(
            f'{kind}: "{name}" is invalid; expected one of {shown}, or a name given to '
            f"reszoo.register_{kind}{near}"
        )
    return own[name]


def check_own_parts(spec: BaseModel) -> None:
    """Raise ReszooError for fields that have no effect on a user's own shortcut or block."""
    for kind, unused in UNUSED.items():
        name = getattr(spec, kind)
        if find_part(kind, name) is None:
            continue
        for field in unused:
            default = DEFAULTS.get(field, type(spec).model_fields[field].default)
            if (value := getattr(spec, field)) != default:
                raise ReszooError(
                    f"{field}={value!r} is invalid with {kind}={name!r}; expected {default!r}, "
                    f"because your function makes the {kind}"
                )


UNUSED = {
    "shortcut": ("pad_at", "shortcut_bn", "shortcut_from", "shrink", "shrink_at"),
    "block": (
        *("order", "norm", "activation", "initialization", "expansions", "groups", "group_width"),
        *("stride_at", "zero_gamma", "bias", "padding", "se_ratio", "dropout"),
    ),
}
DEFAULTS = {"order": "post"}


def _register(kind: str, name: str, part: OwnPart) -> None:
    if name in BUILT_IN[kind] or not name.isidentifier() or len(name) < 2:
        raise ReszooError(
            f"register_{kind}: name: {name!r} is invalid; expected a word of at least two letters "
            f"other than {', '.join(BUILT_IN[kind])}. Example: reszoo.register_{kind}('gain', ...)"
        )
    if not callable(part.function) or not (part.count is None or callable(part.count)):
        raise ReszooError(f"register_{kind}: {name}: expected functions as function and count")
    _PARTS[kind][name] = part
