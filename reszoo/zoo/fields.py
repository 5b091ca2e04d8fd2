"""The fields of a specification for type checkers and editors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict


class SpecFields(TypedDict, total=False):
    """The fields of `Spec` that can be changed, for type checkers and editors."""

    block: str
    depths: Sequence[int]
    widths: Sequence[int]
    expansions: Sequence[int]
    stem: str
    stem_width: int
    shortcut: str
    pad_at: str
    padding: str
    shrink: str
    shrink_at: str
    blur: bool
    shortcut_bn: bool
    shortcut_from: str
    shortcut_scale: float
    branch_scale: float
    gate: str
    gate_bias: float
    shortcut_dropout: float
    order: str
    stride_at: str
    groups: int
    group_width: int
    se_ratio: float
    zero_gamma: bool
    rezero: bool
    bias: str
    norm: str
    norm_groups: int
    activation: str
    initialization: str
    bn_epsilon: float
    dropout: float
    head_dropout: float
    head_bias: float
    drop_path: float
