"""What a model is: one immutable record of orthogonal fields; pairs that would silently go wrong are rejected here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypedDict

from pydantic import Field

from reszoo.errors import ReszooError, did_you_mean
from reszoo.validation.table import AS_TUPLE, Table
from reszoo.zoo.foreign import explain_argument

EXPANSION = {"basic": 1, "bottleneck": 4}

Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], AS_TUPLE]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Spec(Table):
    """A model of the residual family, without its input shape and classes, which belong to `build`.

    Raises:
        ReszooError: For an invalid value, or fields that contradict each other.
    """

    name: str = Field(min_length=1, description="Name of the model.")
    block: Literal["basic", "bottleneck"] = Field(
        description="basic (two 3x3 convolutions) or bottleneck (1x1, 3x3, 1x1 of four times the width); "
        "arXiv 1512.03385, figure 5."
    )
    depths: Counts = Field(min_length=1, examples=[[3, 3, 3]], description="Blocks in each stage.")
    widths: Counts = Field(
        min_length=1,
        examples=[[16, 32, 64]],
        description="Channels inside each stage's blocks; a bottleneck's output has four times as many.",
    )
    stem: Literal["cifar", "imagenet", "deep", "bare"] = Field(
        description="cifar (3x3), imagenet (7x7 stride 2, max-pool), deep (three 3x3, the first of stride 2, max-pool; "
        'ResNet-D), bare ("imagenet" without batch norm and ReLU, before order "pre"; keras.applications, resnet.py).'
    )
    stem_width: Count = Field(description="Output channels of the stem.")
    shortcut: Literal["none", "A", "B", "C"] = Field(
        description="none (a plain model), A (identity, zero-padded where channels grow), B (1x1 projection where the shape "
        "changes), C (projection in every block); arXiv 1512.03385, section 3.3."
    )
    pad_at: Literal["both", "end"] = Field(
        "both",
        description="Where shortcut A puts its zero channels; published weights differ in it.",
    )
    shrink: Literal["stride", "avgpool"] = Field(
        "stride",
        description="How a projection halves its input: by stride, or by 2x2 average pooling before it (ResNet-D, "
        "arXiv 1812.01187).",
    )
    shrink_at: Literal["first", "last"] = Field(
        "first",
        description="Which block of a stage halves: the first of all stages but stage 1, or the last of all but the last "
        "stage, whose identity then keeps every second pixel (keras.applications' v2, after the authors' own code).",
    )
    shortcut_scale: float = Field(
        1.0, gt=0, description="Constant factor of the shortcut; arXiv 1603.05027, section 3.1."
    )
    branch_scale: float = Field(1.0, gt=0, description="Constant factor of the residual branch.")
    gate: Literal["none", "exclusive", "shortcut_only"] = Field(
        "none",
        description="Gating by a 1x1 convolution and a sigmoid; arXiv 1603.05027, section 3.1.",
    )
    gate_bias: float = Field(-6.0, description="Initial bias of the gate.")
    shortcut_dropout: Rate = Field(
        0.0, description="Rate of dropout on the shortcut's output; arXiv 1603.05027, section 3.1."
    )
    order: Literal["post", "bn_after_add", "relu_before_add", "relu_pre", "pre"] = Field(
        "post",
        description="Position of batch norm and ReLU: arXiv 1603.05027, figure 4, (a) to (e).",
    )
    stride_at: Literal["conv1", "conv2"] = Field(
        "conv1",
        description="Which convolution of a bottleneck strides: conv1 (v1, the paper) or conv2 (v1.5).",
    )
    groups: Count = Field(
        1, description="Groups of a bottleneck's 3x3 convolution (ResNeXt, arXiv 1611.05431)."
    )
    group_width: Count = Field(
        64,
        description="Inside width of a bottleneck = width * group_width / 64 * groups (ResNeXt, wide models).",
    )
    se_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Reduced channels of squeeze-and-excitation over the block's; 0 for none (arXiv 1709.01507: 1/16).",
    )
    zero_gamma: bool = Field(
        False,
        description="The last batch norm scale of each branch starts at 0, so each block starts as the identity.",
    )
    rezero: bool = Field(
        False, description="A learned scalar, initially 0, on each branch (arXiv 2003.04887)."
    )
    bias: Literal["none", "unnormed", "all"] = Field(
        "none",
        description="Which convolutions have a bias: none, those that no batch norm follows (unnormed), or all. "
        "Gates and squeeze-and-excitation always have one.",
    )
    bn_epsilon: float = Field(1e-5, gt=0, lt=1, description="Added to the variance in batch norm.")
    dropout: Rate = Field(
        0.0,
        description="Rate between a basic block's convolutions, or before a bottleneck's last (arXiv 1605.07146).",
    )
    drop_path: Rate = Field(
        0.0,
        description="Probability of dropping the last block's branch in training; it rises linearly with depth "
        "(arXiv 1603.09382).",
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ReszooError as error:
            raise ReszooError(f"{values.get('name') or 'Spec'}: {error}") from None

    def check(self) -> None:
        """Raise ReszooError for the first contradiction between fields."""
        if len(self.depths) != len(self.widths):
            raise ReszooError(
                f"depths has {len(self.depths)} stages, widths {len(self.widths)}; give both the same number"
            )
        if self.stem == "deep" and self.stem_width == 1:
            raise ReszooError(
                "stem_width is 1, but stem='deep' halves it in its first convolutions; give at least 2"
            )
        for reason in self._conflicts():
            raise ReszooError(reason)

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
                errors.append(
                    "branch_scale weighs a branch against its shortcut; with shortcut='none' drop it"
                )
        if self.zero_gamma and self.rezero:
            errors.append(
                "zero_gamma and rezero together leave every branch without a gradient; choose one"
            )
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
            errors.append(
                f"pad_at places the zero channels of shortcut='A'; this net has shortcut='{self.shortcut}'"
            )
        if self.shrink == "avgpool" and self.shortcut not in ("B", "C"):
            errors.append(
                f"shrink='avgpool' pools before a projection; shortcut='{self.shortcut}' has none, give 'B' or 'C'"
            )
        if self.stem == "bare" and self.order != "pre":
            errors.append(
                f"stem='bare' leaves normalisation to a block of order 'pre'; this net has order='{self.order}'"
            )
        if self.bias == "unnormed" and self.order not in ("pre", "bn_after_add"):
            errors.append(
                f"bias='unnormed' finds no such convolution in order '{self.order}'; give 'none' or 'all'"
            )
        if self.shrink_at == "last" and self.shortcut == "A":
            errors.append(
                "shrink_at='last' parts what shortcut='A' does at once, shrinking and padding; give 'B'"
            )
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
        if len(self.depths) == 1 and (self.shrink, self.shrink_at, self.stride_at) != (
            "stride",
            "first",
            "conv1",
        ):
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
            channels = [
                self.stem_width,
                *(self.out_channels(stage) for stage in range(len(self.widths))),
            ]
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

    def replace(self, **changes: Any) -> Spec:
        """Return this spec with some fields changed.

        Raises:
            ReszooError: For an unknown field, with the nearest one, or an invalid value.
        """
        known = list(type(self).model_fields)
        for key, value in changes.items():
            if key not in known:
                if text := explain_argument(
                    key, value, model=self.name, stem=self.stem, known=known
                ):
                    raise ReszooError(text)
                raise ReszooError(
                    f"{self.name}: no field '{key}'{did_you_mean(key, known) or ': the fields are ' + ', '.join(known)}"
                )
        return super().replace(**changes)

    def plain_twin(self) -> Spec:
        """Return the same net without shortcuts: the other arm of the degradation experiment.

        Raises ReszooError where a field needs a shortcut to act on, such as drop_path.
        """
        named = "resnet" in self.name or self.shortcut == "none"
        name = self.name.replace("resnet", "plain") if named else f"plain_{self.name}"
        return self.replace(shortcut="none", name=name)


class SpecFields(TypedDict, total=False):
    """The fields of `Spec` that a model's name leaves open to change, for type checkers and editors."""

    block: str
    depths: Sequence[int]
    widths: Sequence[int]
    stem: str
    stem_width: int
    shortcut: str
    pad_at: str
    shrink: str
    shrink_at: str
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
    bn_epsilon: float
    dropout: float
    drop_path: float
