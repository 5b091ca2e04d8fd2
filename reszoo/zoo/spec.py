"""The specification of a model: one immutable record of fields that do not overlap."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from reszoo.errors import ReszooError, did_you_mean
from reszoo.validation.table import AS_TUPLE, OwnName, Table
from reszoo.zoo.conflicts import find_conflict
from reszoo.zoo.foreign import explain_argument
from reszoo.zoo.own_parts import check_own_parts

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
    block: Literal["basic", "bottleneck"] | OwnName = Field(
        description="`basic`: two 3x3 convolutions. `bottleneck`: 1x1, 3x3 and 1x1, with an output "
        "of four times `widths` (arXiv 1512.03385, figure 5)."
    )
    depths: Counts = Field(min_length=1, examples=[[3, 3, 3]], description="Blocks in each stage.")
    widths: Counts = Field(
        min_length=1,
        examples=[[16, 32, 64]],
        description="Channels inside the blocks of each stage.",
    )
    expansions: Counts = Field(
        (),
        examples=[[4, 2, 2]],
        description="Output channels / `widths` of each stage's bottlenecks, if not 4.",
    )
    stem: Literal["cifar", "imagenet", "deep", "rs", "bare"] = Field(
        description="`cifar`: 3x3. `imagenet`: 7x7 of stride 2, then 3x3 max pooling of stride 2. "
        "`deep`: three 3x3, the first of stride 2, the first two half as wide, then the pooling "
        "(arXiv 1812.01187). `rs`: `deep` with a fourth 3x3, of stride 2, for the pooling (arXiv "
        "2103.07579). `bare`: `imagenet` without batch norm and ReLU, before order `pre` "
        "(keras.applications, resnet.py)."
    )
    stem_width: Count = Field(description="Output channels of the stem.")
    shortcut: Literal["none", "A", "B", "C"] | OwnName = Field(
        description="`none`: a plain model. `A`: identity, zero channels where channels grow. `B`: "
        "1x1 projection where the shape changes. `C`: projection in every block (arXiv 1512.03385, "
        "section 3.3)."
    )
    pad_at: Literal["both", "end"] = Field(
        "both",
        description="Where option A puts its zero channels: half before and half behind "
        "(akamaster), or all behind (fb.resnet.torch).",
    )
    padding: Literal["both", "same"] = Field(
        "both",
        description="How convolutions and pooling of stride 2 are padded: equally on both sides, "
        "or as TensorFlow's `same`, which pads even sizes at the end only.",
    )
    shrink: Literal["stride", "avgpool"] = Field(
        "stride",
        description="How a projection halves its input: by stride, or by 2x2 average pooling "
        "before it (arXiv 1812.01187).",
    )
    shrink_at: Literal["first", "last"] = Field(
        "first",
        description="Which block of a stage halves its maps: the first of all stages but stage 1, "
        "or the last of all stages but the last, whose identity keeps every second pixel "
        "(keras.applications, resnet_v2.py).",
    )
    blur: bool = Field(
        False,
        description="Blur by [1, 2, 1] / 4 in both directions before each strided convolution but "
        "the stem's, and between maximum and stride of max pooling (arXiv 1904.11486, as "
        "Composer's BlurPool with `blur_first`). Option A is not blurred.",
    )
    shortcut_bn: bool = Field(
        True, description="Whether a batch norm follows a projection where one ends the branch."
    )
    shortcut_from: Literal["activation", "input"] = Field(
        "activation",
        description="What a projection takes where batch norm and ReLU come first: their output, "
        "as the branch does, or the block's input (keras.io).",
    )
    shortcut_scale: float = Field(
        1.0, gt=0, description="Constant factor of the shortcut (arXiv 1603.05027, section 3.1)."
    )
    branch_scale: float = Field(
        1.0, gt=0, description="Constant factor of the residual branch (the same)."
    )
    gate: Literal["none", "exclusive", "shortcut_only"] = Field(
        "none",
        description="With g = sigmoid(1x1 convolution of the shortcut's output x): `exclusive` is "
        "(1 - g) x + g F, `shortcut_only` is (1 - g) x + F (arXiv 1603.05027, section 3.1).",
    )
    gate_bias: float = Field(
        -6.0, description="Initial bias of the gate (arXiv 1603.05027, table 1)."
    )
    shortcut_dropout: Rate = Field(
        0.0, description="Dropout rate of the shortcut's output (arXiv 1603.05027, section 3.1)."
    )
    order: Literal["post", "bn_after_add", "relu_before_add", "relu_pre", "pre"] = Field(
        "post",
        description="Position of batch norm and ReLU (arXiv 1603.05027, figure 4, a to e).",
    )
    stride_at: Literal["conv1", "conv2"] = Field(
        "conv1",
        description="Which convolution of a bottleneck strides: `conv1` (v1, the paper) or `conv2` "
        "(v1.5).",
    )
    groups: Count = Field(
        1, description="Groups of a bottleneck's 3x3 convolution (arXiv 1611.05431)."
    )
    group_width: Count = Field(
        64,
        description="Width of a bottleneck's 3x3 = width * `group_width` / 64 * `groups`, as in "
        "torchvision.",
    )
    se_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Squeeze-and-excitation: reduced channels / channels of the block. 0: none "
        "(arXiv 1709.01507: 1/16).",
    )
    zero_gamma: bool = Field(
        False,
        description="The last batch norm scale of each branch starts at 0, so each block starts as "
        "its shortcut (arXiv 1706.02677, section 5.1).",
    )
    rezero: bool = Field(
        False, description="A learned scalar on each branch, initially 0 (arXiv 2003.04887)."
    )
    bias: Literal["none", "unnormed", "all"] = Field(
        "none",
        description="Convolutions with a bias: none, those without batch norm after them, or all. "
        "Gates and squeeze-and-excitation always have one.",
    )
    norm: Literal["batch", "group", "scaled_weight", "none"] = Field(
        "batch",
        description="Normalization: `batch`, `group` (arXiv 1803.08494), `none`, or "
        "`scaled_weight`: of each filter instead of the maps, with inputs of branches scaled to "
        "variance 1 (arXiv 2101.08692). `none` with `rezero` is SkipInit (arXiv 2002.10444).",
    )
    norm_groups: Count = Field(32, description="Groups of channels of norm `group`.")
    activation: Literal["relu", "tanh"] = Field("relu", description="Of stem and blocks.")
    initialization: Literal["he", "delta_orthogonal", "fixup"] = Field(
        "he",
        description="`he`: normal of variance 2 / fan_in (with tanh 1). `delta_orthogonal`: "
        "orthogonal matrices in the middle of kernels (arXiv 1806.05393). `fixup`: the last "
        "convolution of each branch and the classifier start at 0, the others of L branches with m "
        "convolutions at L^(-1/(2m-2)) of `he`; scalar biases and multipliers are learned (arXiv "
        "1901.09321).",
    )
    bn_epsilon: float = Field(
        1e-5, gt=0, lt=1, description="Added to the variance in normalization."
    )
    dropout: Rate = Field(
        0.0,
        description="Dropout rate before the last convolution of each branch (arXiv 1605.07146).",
    )
    head_dropout: Rate = Field(0.0, description="Dropout rate before the classifier.")
    head_bias: float = Field(
        0.0,
        examples=[-6.9078],
        description="Initial bias of the classifier, such as -log(classes) for a binary loss.",
    )
    drop_path: Rate = Field(
        0.0,
        description="Probability of dropping the last block's branch in training, per example. "
        "Block l of L is dropped with l / L of it. The kept branches are scaled up (arXiv "
        "1603.09382, equation 4).",
    )

    def __init__(self, /, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ReszooError as error:
            raise ReszooError(f"{values.get('name') or 'Spec'}: {error}") from None

    def check(self) -> None:
        """Raise ReszooError for the first contradiction between fields."""
        stages = len(self.depths)
        if stages != len(self.widths):
            raise self._error("depths", f"as many numbers as widths = {list(self.widths)}")
        if len(self.expansions) not in (0, stages):
            raise self._error("expansions", f"as many numbers as widths = {list(self.widths)}")
        small = self.block == "bottleneck" and self.stride_at == "conv1"
        if self.padding == "same" and self.stem == "cifar" and (small or stages == 1):
            raise self._error("padding", "'both', because only 1x1 convolutions have stride 2")
        if self.stem in ("deep", "rs") and self.stem_width == 1:
            raise self._error("stem_width", f"at least 2 with stem={self.stem!r}, which halves it")
        check_own_parts(self)
        if conflict := find_conflict(self):
            raise ReszooError(conflict)
        if self.norm == "group" and (wrong := self._not_divided()):
            raise self._error("norm_groups", f"a divisor of all channels, such as of {wrong}")
        if any((width * self.group_width) % 64 for width in self.widths):
            expected = f"width * group_width / 64 to be whole for widths {list(self.widths)}"
            raise self._error("group_width", expected)
        channels = [self.stem_width, *map(self.out_channels, range(stages))]
        if self.shortcut == "A" and channels != sorted(channels):
            expected = f"'B' or 'C', because option A cannot remove channels ({channels})"
            raise self._error("shortcut", expected)

    def _not_divided(self) -> int:
        """Return a number of channels that `norm_groups` does not divide; 0 if there is none."""
        channels = [self.stem_width, *map(self.out_channels, range(self.stages))]
        if self.stem in ("deep", "rs"):
            channels.append(self.stem_width // 2)
        if self.block == "bottleneck":
            channels += map(self.inner_channels, range(self.stages))
        return next((each for each in channels if each % self.norm_groups), 0)

    def _error(self, name: str, expected: str) -> ReszooError:
        return ReszooError(f"{name}={getattr(self, name)!r} is invalid; expected {expected}")

    @property
    def stages(self) -> int:
        """The number of stages."""
        return len(self.depths)

    def out_channels(self, stage: int) -> int:
        """Return the channels that leave stage `stage` (from 0)."""
        own = self.expansions[stage] if self.expansions else EXPANSION.get(self.block, 1)
        return self.widths[stage] * own

    def inner_channels(self, stage: int) -> int:
        """Return the channels of the 3x3 convolution in the blocks of stage `stage` (from 0)."""
        return self.widths[stage] * self.group_width // 64 * self.groups

    def stride(self, stage: int, index: int) -> int:
        """Return the stride of block `index` of stage `stage` (both from 0): 1 or 2."""
        if self.shrink_at == "first":
            return 2 if stage and not index else 1
        return 2 if stage < len(self.depths) - 1 and index == self.depths[stage] - 1 else 1

    def has_bias(self, *, normed: bool) -> bool:
        """Return whether a convolution has a bias. `normed`: a batch norm follows it."""
        return self.bias == "all" or (self.bias == "unnormed" and not normed)

    @property
    def normalizes_maps(self) -> bool:
        """Whether the model has layers that normalize maps."""
        return self.norm in ("batch", "group")

    @property
    def total_stride(self) -> int:
        """Input pixels per pixel of the last stage's map: the smallest side of an input."""
        stride: int = (1 if self.stem == "cifar" else 4) * 2 ** (len(self.depths) - 1)
        return stride

    @property
    def default_input_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of the data the family was published on."""
        return (32, 32, 3) if self.stem == "cifar" else (224, 224, 3)

    @property
    def default_classes(self) -> int:
        """Classes of the data the family was published on: 10 (CIFAR-10) or 1000 (ImageNet)."""
        return 10 if self.stem == "cifar" else 1000

    def survival(self, index: int) -> float:
        """Return the probability that branch `index` (from 0) is kept in training.

        Reference: arXiv 1603.09382, equation 4: 1 - (index + 1) / blocks * drop_path.
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
                text = explain_argument(key, value, self.name, self.default_input_shape)
                hint = did_you_mean(key, known) or f": the fields are {', '.join(known)}"
                raise ReszooError(text or f"{self.name}: no field '{key}'{hint}")
        return super().replace(**changes)

    def plain_twin(self) -> Spec:
        """Return the same model without shortcuts, to compare with it.

        Raises:
            ReszooError: If a field needs a shortcut, such as drop_path.
        """
        named = "resnet" in self.name or self.shortcut == "none"
        name = self.name.replace("resnet", "plain") if named else f"plain_{self.name}"
        return self.replace(shortcut="none", name=name)
