"""Arguments and model names of Keras, torchvision, timm and others, and what they are called here. Standard library only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

# From a foreign argument of a model's builder to (what replaces it here, an example).
ARGUMENTS: dict[str, tuple[str, str]] = {
    # Keras
    "include_top": ("top", "top=False"),
    "input_tensor": ("a call of the model", "reszoo.build({model!r})(input_tensor)"),
    "pooling": (
        "top=False for average-pooled features, or reszoo.features for the maps",
        "top=False",
    ),
    "classifier_activation": ("logits followed by a layer", "keras.layers.Softmax()(model.output)"),
    "activation": ("logits followed by a layer", "keras.layers.Softmax()(model.output)"),
    "preact": ("order", 'order="pre"'),
    "use_bias": ("bias", 'bias="all"'),
    "data_format": (
        "no argument: images are [n, height, width, channels]",
        "input_shape=(224, 224, 3)",
    ),
    "trainable": ("reszoo.freeze", 'reszoo.freeze(model, until="stage3")'),
    "dtype": ("Keras' policy", 'keras.config.set_dtype_policy("mixed_bfloat16")'),
    # timm and torchvision
    "pretrained": ("weights", "weights={usual!r}"),
    "pretrained_backbone": ("weights", "weights={usual!r}"),
    "pretrained_cfg": ("weights, by tag", 'weights="timm/a1_in1k"'),
    "pretrained_cfg_overlay": ("weights, by tag or file", 'weights="mine.safetensors"'),
    "weights_backbone": ("weights", "weights={usual!r}"),
    "checkpoint_path": ("weights", 'weights="mine.pth"'),
    "checkpoint": ("weights", 'weights="mine.pth"'),
    "weights_path": ("weights", 'weights="mine.pth"'),
    "num_classes": ("classes", "classes=10"),
    "n_classes": ("classes", "classes=10"),
    "nb_classes": ("classes", "classes=10"),
    "num_labels": ("classes", "classes=10"),
    "class_count": ("classes", "classes=10"),
    "in_chans": ("the last number of input_shape", "input_shape={shape1}"),
    "in_channels": ("the last number of input_shape", "input_shape={shape1}"),
    "input_channels": ("the last number of input_shape", "input_shape={shape1}"),
    "channels": (
        "the last number of input_shape, or widths inside the model",
        "input_shape={shape1}",
    ),
    "img_size": ("input_shape", "input_shape={shape}"),
    "image_size": ("input_shape", "input_shape={shape}"),
    "input_size": ("input_shape", "input_shape={shape}"),
    "features_only": ("reszoo.features", "reszoo.features(reszoo.build({model!r}))"),
    "out_indices": (
        "reszoo.features, whose result is a table by stage",
        "reszoo.features(reszoo.build({model!r}))",
    ),
    "global_pool": (
        "top=False for average-pooled features, or reszoo.features for the maps",
        "top=False",
    ),
    "drop_path_rate": ("drop_path", "drop_path=0.1"),
    "stochastic_depth": ("drop_path", "drop_path=0.1"),
    "drop_rate": ("a dropout layer on top=False, or dropout inside the blocks", "dropout=0.1"),
    "dropout_rate": ("a dropout layer on top=False, or dropout inside the blocks", "dropout=0.1"),
    "zero_init_residual": ("zero_gamma", "zero_gamma=True"),
    "zero_init_last": ("zero_gamma", "zero_gamma=True"),
    "cardinality": ("groups", "groups=32"),
    "base_width": ("group_width", "group_width=4"),
    "width_per_group": ("group_width", "group_width=4"),
    "layers": ("depths", "depths=(3, 4, 6, 3)"),
    "num_blocks": ("depths", "depths=(3, 4, 6, 3)"),
    "blocks": ("depths", "depths=(3, 4, 6, 3)"),
    "depth": ("the model name, or depths", 'reszoo.build("resnet50")'),
    "width": ("widths", "widths=(64, 128, 256, 512)"),
    "filters": ("widths", "widths=(64, 128, 256, 512)"),
    "stem_type": ("stem", 'stem="deep"'),
    "avg_down": ("shrink", 'shrink="avgpool"'),
    "attn_layer": ("se_ratio", "se_ratio=0.0625"),
    "rd_ratio": ("se_ratio", "se_ratio=0.0625"),
    "epsilon": ("bn_epsilon", "bn_epsilon=1e-5"),
    "bn_eps": ("bn_epsilon", "bn_epsilon=1e-5"),
}
# Foreign arguments that nothing here replaces, and why.
UNSUPPORTED: dict[str, str] = {
    "output_stride": "the strides of the stages are fixed",
    "replace_stride_with_dilation": "the strides of the stages are fixed",
    "dilation": "convolutions are not dilated",
    "act_layer": "every activation is a ReLU",
    "norm_layer": "every normalization is batch normalization",
    "aa_layer": "there is no anti-aliasing",
    "drop_block_rate": "there is no DropBlock",
    "bn_momentum": "the momentum of batch normalization is fixed",
    "weight_decay": "weight decay is a key of the recipe, optimizer.weight_decay",
    "scriptable": "there is nothing to script",
    "exportable": "every model can be exported",
    "progress": "progress is always shown on a terminal",
    "cache_dir": "the cache is set by the environment variables RESZOO_HOME and HF_HOME",
}


def explain_argument(
    argument: str, value: Any, *, model: str, stem: str, known: Iterable[str] = ()
) -> str | None:
    """Return the message for an argument that another library takes, or None for a name that is not known.

    model, stem: of the model that was asked for. known: names that are right here and are not explained.
    """
    key = argument.lower()
    if key in known:
        return None
    if key in UNSUPPORTED:
        return f"{model}: {argument}={_short(value)} is invalid; it is not supported, because {UNSUPPORTED[key]}"
    if key not in ARGUMENTS:
        return None
    ours, example = ARGUMENTS[key]
    side = 32 if stem == "cifar" else 224
    usual = "cifar10" if stem == "cifar" else "imagenet"
    if key == "include_top" and value is True:
        example = "top=True"
    elif key.startswith("pretrained") and value in (False, None):
        example = "weights=None"
    elif (
        key.startswith(("num_", "n_", "nb_"))
        and isinstance(value, int)
        and not isinstance(value, bool)
        and value > 0
    ):
        example = f"classes={value}" if "classes=" in example else example
    elif (
        key in ("in_chans", "in_channels", "input_channels")
        and isinstance(value, int)
        and 0 < value < 100
    ):
        example = f"input_shape={(side, side, value)}"
    elif (
        key in ("checkpoint_path", "checkpoint", "weights_path")
        and isinstance(value, str)
        and value
    ):
        example = f"weights={value!r}"
    elif key in ("drop_path_rate", "stochastic_depth") and isinstance(value, float):
        example = f"drop_path={value}"
    example = example.format(
        model=model, usual=usual, shape=(side, side, 3), shape1=(side, side, 1)
    )
    return f"{model}: {argument}={_short(value)} is invalid; expected {ours}. Example: {example}"


def _short(value: Any) -> str:
    text = repr(value).partition("\n")[0]
    return text if len(text) <= 40 else f"{text[:37]}..."


# Patterns of foreign model names, without prefix and separators unified to "_", and what they are called here.
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
_PUBLISHERS = re.compile(r"(tv|gluon|ssl|swsl|legacy|tf|torch|ig)_")


def suggest_models(
    name: str, is_model: Callable[[str], bool], listed: Sequence[str]
) -> tuple[str, str] | None:
    """Return (model name here, timm's tag or "") that a model name of another library means, or None.

    "ResNet-50", "wide-resnet50-2", "keras.applications.ResNet50V2" and "timm/resnet50.a1_in1k" are such names.
    is_model: whether a name can be built. listed: the names of `list_models`.
    """
    whole = name.strip().lower()
    last = re.split(r"[/:]", whole)[-1]
    stem, tag = last, ""
    if match := re.fullmatch(r"(.+)\.([a-z0-9]+(?:_[a-z0-9]+)*_in\d+k\w*)", last):
        stem, tag = match[1], f"timm/{match[2]}"
    else:
        # torchvision.models.resnet50, keras.applications.ResNet50; but "resnet50_v1.5" keeps its dot.
        stem = re.sub(r"^(?:[a-z_]\w*\.)+(?=[a-z])", "", last)
    plain = re.sub(r"[^a-z0-9]+", "_", stem).strip("_")
    plain = _PUBLISHERS.sub("", plain) if _PUBLISHERS.match(plain) else plain
    squeezed = {re.sub("[^a-z0-9]", "", known): known for known in reversed(listed)}
    if "applications" in whole:
        plain = re.sub(
            r"res_?net_?(\d+)_?(v2)?",
            lambda part: f"resnet{part[1]}{'_v2' if part[2] else ''}_keras",
            plain,
        )
    found = [plain] + [
        re.sub(pattern, ours, plain) for pattern, ours in NAMES if re.fullmatch(pattern, plain)
    ]
    if known := squeezed.get(plain.replace("_", "")):
        found.append(known)
    return next(((made, tag) for made in found if made != name and is_model(made)), None)
