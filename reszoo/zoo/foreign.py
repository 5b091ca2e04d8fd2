"""Arguments and model names of Keras, torchvision, timm and others, and what replaces them here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from reszoo.errors import shorten


class Replacement(NamedTuple):
    """What replaces an argument of another library.

    Attributes:
        ours: What to use here.
        example: A format of `value`, `model`, `weights`, `height`, `width` and `channels`.
        default: The value in the example unless one of the same type was given.
    """

    ours: str
    example: str
    default: Any = None


LOGITS = Replacement("logits followed by a layer", "keras.layers.Softmax()(model.output)")
POOLED = "top=False for average-pooled features, or reszoo.features for the maps"
WEIGHTS = Replacement("weights", "weights={weights}")
FILE = Replacement("weights", "weights={value!r}", "mine.pth")
CLASSES = Replacement("classes", "classes={value}", 10)
CHANNELS = Replacement(
    "the last number of input_shape", "input_shape=({height}, {width}, {value})", 1
)
SIZE = Replacement("input_shape", "input_shape=({height}, {width}, {channels})")
MAPS = Replacement("reszoo.features", "reszoo.features(reszoo.build({model!r}))")
DROP_PATH = Replacement("drop_path", "drop_path={value}", 0.1)
DROPOUT = Replacement(
    "a dropout layer on top=False, or dropout inside the blocks", "dropout={value}", 0.1
)
ZERO_GAMMA = Replacement("zero_gamma", "zero_gamma=True")
GROUP_WIDTH = Replacement("group_width", "group_width={value}", 4)
DEPTHS = Replacement("depths", "depths=(3, 4, 6, 3)")
WIDTHS = Replacement("widths", "widths=(64, 128, 256, 512)")
SE_RATIO = Replacement("se_ratio", "se_ratio=0.0625")
EPSILON = Replacement("bn_epsilon", "bn_epsilon={value}", 1e-5)

ARGUMENTS: dict[str, Replacement] = {
    # Keras
    "include_top": Replacement("top", "top={value}", False),
    "input_tensor": Replacement("a call of the model", "reszoo.build({model!r})(input_tensor)"),
    "pooling": Replacement(POOLED, "top=False"),
    "preact": Replacement("order", 'order="pre"'),
    "use_bias": Replacement("bias", 'bias="all"'),
    "data_format": Replacement("images [n, height, width, channels]", SIZE.example),
    "trainable": Replacement("reszoo.freeze", 'reszoo.freeze(model, until="stage3")'),
    "dtype": Replacement("Keras' policy", 'keras.config.set_dtype_policy("mixed_bfloat16")'),
    # timm and torchvision
    "pretrained_cfg": Replacement("weights, by tag", 'weights="timm/a1_in1k"'),
    "pretrained_cfg_overlay": Replacement("weights", 'weights="mine.safetensors"'),
    "global_pool": Replacement(POOLED, "top=False"),
    "cardinality": Replacement("groups", "groups={value}", 32),
    "depth": Replacement("the model name, or depths", 'reszoo.build("resnet50")'),
    "stem_type": Replacement("stem", 'stem="deep"'),
    "avg_down": Replacement("shrink", 'shrink="avgpool"'),
    "act_layer": Replacement("activation", 'activation="tanh"'),
    "norm_layer": Replacement("norm", 'norm="group"'),
    "aa_layer": Replacement("blur", "blur=True"),
}
for _names, _replacement in {
    "classifier_activation": LOGITS,
    "pretrained pretrained_backbone weights_backbone": WEIGHTS,
    "checkpoint checkpoint_path weights_path": FILE,
    "num_classes n_classes nb_classes num_labels class_count": CLASSES,
    "in_chans in_channels input_channels channels": CHANNELS,
    "img_size image_size input_size": SIZE,
    "features_only out_indices": MAPS,
    "drop_path_rate stochastic_depth": DROP_PATH,
    "drop_rate dropout_rate": DROPOUT,
    "zero_init_residual zero_init_last": ZERO_GAMMA,
    "base_width width_per_group": GROUP_WIDTH,
    "layers num_blocks blocks": DEPTHS,
    "width filters": WIDTHS,
    "attn_layer rd_ratio": SE_RATIO,
    "epsilon bn_eps": EPSILON,
}.items():
    ARGUMENTS |= dict.fromkeys(_names.split(), _replacement)

# Foreign arguments that nothing here replaces, and why.
UNSUPPORTED: dict[str, str] = {
    "output_stride": "the strides of the stages are fixed",
    "replace_stride_with_dilation": "the strides of the stages are fixed",
    "dilation": "convolutions are not dilated",
    "drop_block_rate": "DropBlock is not supported",
    "bn_momentum": "the momentum of batch normalization is fixed",
    "weight_decay": "weight decay is a key of the recipe, optimizer.weight_decay",
    "scriptable": "there is nothing to script",
    "exportable": "every model can be exported",
    "progress": "progress is always shown on a terminal",
    "cache_dir": "the cache is set by the environment variables RESZOO_HOME and HF_HOME",
}


def explain_argument(
    argument: str, value: object, model: str, input_shape: tuple[int, int, int]
) -> str | None:
    """Return the message for an argument that another library takes, or None for another name.

    Args:
        argument: The argument.
        value: Its value.
        model: The name of the model that was asked for.
        input_shape: The usual input shape of that model.
    """
    key, start = argument.lower(), f"{model}: {argument}={shorten(value)} is invalid"
    if key in UNSUPPORTED:
        return f"{start}; it is not supported, because {UNSUPPORTED[key]}"
    if key not in ARGUMENTS:
        return None
    ours, example, default = ARGUMENTS[key]
    height, width, channels = input_shape
    weights: str | None = "cifar10" if height == 32 else "imagenet"
    example = example.format(
        value=value if type(value) is type(default) and value else default,
        model=model,
        weights=repr(None if value in (False, None) else weights),
        height=height,
        width=width,
        channels=channels,
    )
    return f"{start}; expected {ours}. Example: {example}"


# Patterns of foreign model names, without prefix and with "_" as the only separator, and ours.
NAMES: tuple[tuple[str, str], ...] = (
    (r"(?:pre_?act_?res_?net|resnetv2|resnet_v2)_?(\d+)(?:x1_bit|_bit)?", r"resnet\1_v2"),
    (r"res_?net_?(\d+)_?v2", r"resnet\1_v2"),
    (r"resnet_v1_?(\d+)", r"resnet\1_v1"),
    (r"res_?net_?(\d+)_?v1_?5", r"resnet\1_v1_5"),
    (r"res_?net_?(\d+)_?v1", r"resnet\1_v1"),
    (r"res_?net_?(\d+)_?v1_?b", r"resnet\1"),
    (r"res_?net_?(\d+)_?(?:v1_?)?d", r"resnet\1_d"),
    (r"(?:wide_?res_?net|wrn)_?(50|101)_2(?:_bottleneck)?", r"wide_resnet\1_2"),
    (r"(?:wide_?res_?net|wrn)_?(\d+)_(\d+)", r"wrn\1_\2"),
    (r"se_?res_?net_?(\d+)", r"se_resnet\1"),
    (r"res_?next_?(\d+)_(\d+x\d+d)", r"resnext\1_\2"),
    (r"(?:cifar_?10_?|cifar_?100_?)res_?net_?(\d+)", r"resnet\1"),
    (r"res_?net_?(\d+)_?cifar_?(?:100|10)?", r"resnet\1"),
    (r"res_?net_?(\d+)", r"resnet\1"),
    (r"plain_?(?:net_?)?(\d+)", r"plain\1"),
)
_PUBLISHERS = r"^(tv|gluon|ssl|swsl|legacy|tf|torch|ig)_"


def suggest_models(
    name: str, is_model: Callable[[str], bool], listed: Sequence[str]
) -> tuple[str, str] | None:
    """Return (our model name, timm's tag or "") for a model name of another library, or None.

    Examples: "ResNet-50", "wide-resnet50-2", "keras.applications.ResNet50V2" and
    "timm/resnet50.a1_in1k".

    Args:
        name: The name.
        is_model: Returns whether a name can be built.
        listed: The names of `list_models`.
    """
    whole = name.strip().lower()
    last = re.split(r"[/:]", whole)[-1]
    stem, tag = last, ""
    if match := re.fullmatch(r"(.+)\.([a-z0-9]+(?:_[a-z0-9]+)*_in\d+k\w*)", last):
        stem, tag = match[1], f"timm/{match[2]}"
    else:
        # torchvision.models.resnet50, keras.applications.ResNet50; but "resnet50_v1.5" keeps its
        # dot.
        stem = re.sub(r"^(?:[a-z_]\w*\.)+(?=[a-z])", "", last)
    plain = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    plain = re.sub(_PUBLISHERS, "", plain)
    if "applications" in whole:
        plain = re.sub(r"res_?net_?(\d+)(?!\d|_?v2)", r"resnet\1_keras", plain)
        plain = re.sub(r"res_?net_?(\d+)_?v2", r"resnet\1_v2_keras", plain)
    found = [
        plain,
        *(re.sub(form, ours, plain) for form, ours in NAMES if re.fullmatch(form, plain)),
    ]
    squeezed = {re.sub("[^a-z0-9]", "", known): known for known in reversed(listed)}
    found.append(squeezed.get(plain.replace("_", ""), ""))
    return next(((made, tag) for made in found if made != name and is_model(made)), None)
