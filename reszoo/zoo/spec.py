"""What a net is: one frozen record of orthogonal fields; a pair that would silently go wrong is refused here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reszoo.errors import ReszooError, did_you_mean
from reszoo.zoo.foreign import explain_argument

CHOICES: dict[str, tuple[str, ...]] = {
    "block": ("basic", "bottleneck"),
    "stem": ("cifar", "imagenet", "deep", "bare"),
    "shortcut": ("none", "A", "B", "C"),
    "pad_at": ("both", "end"),
    "shrink": ("stride", "avgpool"),
    "shrink_at": ("first", "last"),
    "gate": ("none", "exclusive", "shortcut_only"),
    "order": ("post", "bn_after_add", "relu_before_add", "relu_pre", "pre"),
    "stride_at": ("conv1", "conv2"),
    "bias": ("none", "unnormed", "all"),
}
EXPANSION = {"basic": 1, "bottleneck": 4}


@dataclass(frozen=True, kw_only=True)
class Spec:
    """A net of the residual family, without its input shape and classes, which belong to `build`.

    block: "basic" (two 3x3) or "bottleneck" (1x1, 3x3, 1x1 of four times the width); arXiv 1512.03385, figure 5.
    depths: blocks in each stage. widths: channels inside each stage's blocks (a bottleneck puts out four times as many).
    stem: "cifar" (3x3), "imagenet" (7x7 stride 2, max-pool), "deep" (three 3x3, the first of stride 2, max-pool; ResNet-D),
        "bare" ("imagenet" with neither normalisation nor ReLU, before order "pre"; keras.applications, resnet.py).
    stem_width: channels that leave the stem.
    shortcut: "none" (a plain net), "A" (identity, zero-padded where channels grow), "B" (1x1 projection where the shape
        changes), "C" (projection in every block); 1512.03385, section 3.3.
    pad_at: where option A puts its zero channels: "both" sides, or at the "end" (published weights differ in it).
    shrink: how a projection halves its input: by "stride", or by a 2x2 "avgpool" before it (ResNet-D, arXiv 1812.01187).
    shrink_at: which block of a stage halves: the "first" one of all stages but stage 1, or the "last" one of all but the last,
        whose identity then keeps every second pixel (keras.applications' v2, after the authors' own code).
    shortcut_scale, branch_scale: constants on the two paths; 1603.05027, section 3.1.
    gate: "exclusive" or "shortcut_only" gating by a 1x1 convolution and a sigmoid, its bias starting at `gate_bias`.
    shortcut_dropout: rate of dropout on the shortcut's output; 1603.05027, section 3.1.
    order: where normalisation and ReLU stand, 1603.05027, figure 4: "post" (a), "bn_after_add" (b), "relu_before_add" (c),
        "relu_pre" (d), "pre" (e).
    stride_at: which convolution of a bottleneck strides: "conv1" (v1, the paper) or "conv2" (v1.5).
    groups, group_width: grouped 3x3 of a bottleneck; inside width = width * group_width / 64 * groups (ResNeXt, wide nets).
    se_ratio: squeeze-and-excitation's reduced channels over the block's, 0 for none (arXiv 1709.01507: 1/16).
    zero_gamma: the last normalisation scale of each branch starts at 0, so that each block starts as the identity.
    rezero: a learned scalar from 0 on each branch (arXiv 2003.04887).
    bias: which convolutions have one: "none", those that are "unnormed" (no normalisation follows), "all". Beside it, the
        gates' and squeeze-and-excitation's always have.
    bn_epsilon: what normalisation adds to the variance.
    dropout: rate between a basic block's convolutions, or before a bottleneck's last (arXiv 1605.07146).
    drop_path: chance of dropping the last block's branch in training, rising linearly with depth (arXiv 1603.09382).

    Raises ReszooError for an impossible value or a pair of fields that contradict each other.
    """

    name: str
    block: str
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    stem: str
    stem_width: int
    shortcut: str
    pad_at: str = "both"
    shrink: str = "stride"
    shrink_at: str = "first"
    shortcut_scale: float = 1.0
    branch_scale: float = 1.0
    gate: str = "none"
    gate_bias: float = -6.0
    shortcut_dropout: float = 0.0
    order: str = "post"
    stride_at: str = "conv1"
    groups: int = 1
    group_width: int = 64
    se_ratio: float = 0.0
    zero_gamma: bool = False
    rezero: bool = False
    bias: str = "none"
    bn_epsilon: float = 1e-5
    dropout: float = 0.0
    drop_path: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, self._typed(field.name, field.type, getattr(self, field.name)))
        for reason in self._range_errors() + self._conflicts():
            raise ReszooError(f"{self.name}: {reason}")

    def _typed(self, key: str, kind: Any, value: Any) -> Any:
        """Return `value` as the field's type, or raise naming the type wanted."""

        def refuse(wanted: str) -> ReszooError:
            return ReszooError(f"{self.name}: {key} is {value!r}, but must be {wanted}")

        if key in CHOICES:
            if value not in CHOICES[key]:
                near = did_you_mean(value, CHOICES[key]) if isinstance(value, str) else ""
                raise refuse("one of " + ", ".join(repr(choice) for choice in CHOICES[key]) + near)
            return value
        if kind == "str":
            if not isinstance(value, str) or not value:
                raise ReszooError(f"a spec's name is {value!r}, but must be a word")
            return value
        if kind == "bool":
            if not isinstance(value, bool):
                raise refuse("true or false")
            return value
        if kind == "tuple[int, ...]":
            if not isinstance(value, list | tuple) or not value or not all(_is_int(item) for item in value):
                raise refuse("a list of whole numbers, such as [3, 3, 3]")
            return tuple(int(item) for item in value)
        if kind == "int":
            if not _is_int(value):
                raise refuse("a whole number")
            return int(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise refuse("a number")
        return float(value)

    def _range_errors(self) -> list[str]:
        errors = []
        if len(self.depths) != len(self.widths):
            errors.append(f"depths has {len(self.depths)} stages, widths {len(self.widths)}; give both the same number")
        for key in ("depths", "widths"):
            if min(getattr(self, key)) < 1:
                errors.append(f"{key} is {getattr(self, key)}, but every stage needs at least 1")
        for key in ("stem_width", "groups", "group_width"):
            if getattr(self, key) < 1:
                errors.append(f"{key} is {getattr(self, key)}, but must be at least 1")
        if self.stem == "deep" and self.stem_width == 1:
            errors.append("stem_width is 1, but stem='deep' halves it in its first convolutions; give at least 2")
        for key in ("dropout", "shortcut_dropout", "drop_path"):
            if not 0 <= getattr(self, key) < 1:
                errors.append(f"{key} is {getattr(self, key)}, but must be at least 0 and below 1")
        if not 0 <= self.se_ratio <= 1:
            errors.append(f"se_ratio is {self.se_ratio}, but must be between 0 (none) and 1; the paper's is 0.0625")
        if not 0 < self.bn_epsilon < 1:
            errors.append(f"bn_epsilon is {self.bn_epsilon}, but must be above 0 and below 1; the usual is 1e-05")
        if not 0 < self.branch_scale < float("inf"):
            errors.append(
                f"branch_scale is {self.branch_scale}, but must be above 0; with rezero=true it is learned from 0"
            )
        if not 0 < self.shortcut_scale < float("inf"):
            errors.append(
                f"shortcut_scale is {self.shortcut_scale}, but must be above 0; for no shortcut give shortcut='none'"
            )
        if abs(self.gate_bias) == float("inf"):
            errors.append("gate_bias must be finite")
        return errors

    def _conflicts(self) -> list[str]:
        errors = []
        if self.shortcut == "none":
            for key in ("zero_gamma", "rezero", "drop_path"):
                if getattr(self, key):
                    errors.append(
                        f"{key} would silence a block that has no shortcut; drop {key} or give shortcut='A', 'B' or 'C'"
                    )
            if self.shortcut_scale != 1 or self.shortcut_dropout or self.gate != "none":
                errors.append(
                    "shortcut='none' leaves nothing for shortcut_scale, shortcut_dropout or gate to act on; drop them"
                )
            if self.branch_scale != 1:
                errors.append("branch_scale weighs a branch against its shortcut; with shortcut='none' drop it")
        if self.zero_gamma and self.rezero:
            errors.append("zero_gamma and rezero together leave every branch without a gradient; choose one")
        if self.zero_gamma and self.order in ("pre", "bn_after_add"):
            errors.append(
                f"order='{self.order}' has no normalisation at its branch's end for zero_gamma; use rezero=true"
            )
        if self.zero_gamma and self.order == "relu_before_add":
            errors.append(
                "zero_gamma under a ReLU leaves the branch without a gradient; use rezero=true with order='relu_before_add'"
            )
        if self.rezero and self.branch_scale != 1:
            errors.append("rezero learns the branch's scale; drop branch_scale")
        if self.gate == "none" and self.gate_bias != -6:
            errors.append("gate_bias needs gate='exclusive' or gate='shortcut_only'")
        if self.pad_at != "both" and self.shortcut != "A":
            errors.append(f"pad_at places the zero channels of shortcut='A'; this net has shortcut='{self.shortcut}'")
        if self.shrink == "avgpool" and self.shortcut not in ("B", "C"):
            errors.append(
                f"shrink='avgpool' pools before a projection; shortcut='{self.shortcut}' has none, give 'B' or 'C'"
            )
        if self.stem == "bare" and self.order != "pre":
            errors.append(
                f"stem='bare' leaves normalisation to a block of order 'pre'; this net has order='{self.order}'"
            )
        if self.bias == "unnormed" and self.order not in ("pre", "bn_after_add"):
            errors.append(f"bias='unnormed' finds no such convolution in order '{self.order}'; give 'none' or 'all'")
        if self.shrink_at == "last" and self.shortcut == "A":
            errors.append("shrink_at='last' parts what shortcut='A' does at once, shrinking and padding; give 'B'")
        if self.shrink_at == "last" and self.shrink == "avgpool":
            errors.append(
                "shrink_at='last' halves without a projection, so shrink='avgpool' has nothing to pool; drop one"
            )
        if self.block == "basic":
            if self.groups != 1 or self.group_width != 64:
                errors.append(
                    "groups and group_width shape a bottleneck's 3x3; with block='basic' change widths instead"
                )
            if self.stride_at != "conv1":
                errors.append(
                    "stride_at chooses among a bottleneck's convolutions; a basic block always strides in conv1"
                )
        if len(self.depths) == 1 and (self.shrink, self.shrink_at, self.stride_at) != ("stride", "first", "conv1"):
            errors.append(
                "a net of one stage never shrinks after its stem: shrink, shrink_at and stride_at have nothing to act on"
            )
        for width in self.widths:
            if (width * self.group_width) % 64:
                errors.append(
                    f"group_width {self.group_width} does not fit widths {list(self.widths)}: width * group_width / 64 must be whole"
                )
                break
        if self.shortcut == "A":
            channels = [self.stem_width, *(self.out_channels(stage) for stage in range(len(self.widths)))]
            if any(after < before for before, after in zip(channels, channels[1:], strict=False)):
                errors.append(f"shortcut='A' cannot pad to fewer channels ({channels}); give 'B'")
        return errors

    def out_channels(self, stage: int) -> int:
        """Return the channels that leave stage `stage` (from 0)."""
        return self.widths[stage] * EXPANSION[self.block]

    def inner_channels(self, stage: int) -> int:
        """Return the channels of the 3x3 convolution in the blocks of stage `stage` (from 0)."""
        return self.widths[stage] * self.group_width // 64 * self.groups

    def stride(self, stage: int, index: int) -> int:
        """Return the stride of block `index` of stage `stage` (both from 0): 2 where the stage halves its maps, else 1."""
        if self.shrink_at == "first":
            return 2 if stage and not index else 1
        return 2 if stage < len(self.depths) - 1 and index == self.depths[stage] - 1 else 1

    def has_bias(self, *, normed: bool) -> bool:
        """Return whether a convolution has a bias, `normed` saying that a normalisation follows it."""
        return self.bias == "all" or (self.bias == "unnormed" and not normed)

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last stage's map, which is also the smallest input side the net bears."""
        return (1 if self.stem == "cifar" else 4) * 2 ** (len(self.depths) - 1)

    @property
    def default_input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the data the family was published on."""
        return (32, 32, 3) if self.stem == "cifar" else (224, 224, 3)

    @property
    def default_classes(self) -> int:
        """Classes of the data the family was published on: 10 (CIFAR-10) or 1000 (ImageNet)."""
        return 10 if self.stem == "cifar" else 1000

    def survival(self, index: int) -> float:
        """Return the chance that branch `index` (from 0) is kept in training: 1 - (index + 1) / blocks * drop_path.

        The linear rule of arXiv 1603.09382, equation 4.
        """
        return 1 - (index + 1) / sum(self.depths) * self.drop_path

    def replace(self, **fields: Any) -> Spec:
        """Return this spec with some fields changed. Raises ReszooError for an unknown field, with the nearest one."""
        known = [field.name for field in dataclasses.fields(self)]
        for key in fields:
            if key not in known:
                if text := explain_argument(key, fields[key], model=self.name, stem=self.stem, known=known):
                    raise ReszooError(text)
                raise ReszooError(
                    f"{self.name}: no field '{key}'{did_you_mean(key, known) or ': the fields are ' + ', '.join(known)}"
                )
        return dataclasses.replace(self, **fields)

    def plain_twin(self) -> Spec:
        """Return the same net without shortcuts: the other arm of the degradation experiment.

        Raises ReszooError where a field needs a shortcut to act on, such as drop_path.
        """
        named = "resnet" in self.name or self.shortcut == "none"
        name = self.name.replace("resnet", "plain") if named else f"plain_{self.name}"
        return self.replace(shortcut="none", name=name)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values for JSON."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Spec:
        """Return the spec that `to_dict` wrote. Raises ReszooError for a missing or unknown field."""
        known = {field.name for field in dataclasses.fields(cls)}
        needed = {field.name for field in dataclasses.fields(cls) if field.default is dataclasses.MISSING}
        if wrong := sorted(set(fields) - known):
            raise ReszooError(f"a spec has no field '{wrong[0]}'{did_you_mean(wrong[0], known)}")
        if missing := sorted(needed - set(fields)):
            raise ReszooError(f"a spec needs {', '.join(missing)}")
        return cls(**fields)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
