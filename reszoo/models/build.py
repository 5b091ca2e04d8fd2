"""Build a Keras functional model by name or specification, and read the maps of its stages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Unpack

import keras

from reszoo.errors import ReszooError, did_you_mean
from reszoo.models.blocks import block
from reszoo.models.layers import ScalarBias, activate, normalize
from reszoo.models.settings import DATA_FORMAT, building_policy, fixed_settings
from reszoo.models.stems import stem
from reszoo.weights.load import load, resolve
from reszoo.weights.published import Weights
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.count import check_classes, check_input, count
from reszoo.zoo.fields import SpecFields
from reszoo.zoo.foreign import ARGUMENTS, UNSUPPORTED
from reszoo.zoo.layer_names import parse_block_layer
from reszoo.zoo.own_parts import UNUSED, find_part
from reszoo.zoo.spec import Spec


def build(
    name_or_spec: str | Spec,
    *,
    classes: int | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    top: bool = True,
    **fields: Unpack[SpecFields],
) -> keras.Model:
    """Build a model by name or specification as a plain Keras functional model.

    Args:
        name_or_spec: A name of `list_models`, or a specification.
        classes: Number of classes. By default that of the weights, or of the data of the family: 10
            or 1000. If it is given and the weights have other classes, the classifier is new, which
            is reported on standard error.
        input_shape: (height, width, channels) of the images. A height or width of None takes any
            size. By default that of the weights, or (32, 32, 3) or (224, 224, 3). For other
            channels than the weights', their first convolution is summed or repeated.
        weights: Published ones by tag ("torchvision/IMAGENET1K_V1") or dataset ("imagenet",
            "cifar10": the first in `list_weights`), a file (`.weights.h5`, `.safetensors`, `.pth`,
            ...), or None for new ones.
        top: False for a model without classifier.
        **fields: Fields of the specification that are changed.

    Returns:
        A model from normalized float images [n, height, width, channels] to float32 logits [n,
        classes], or with top=False to pooled features [n, channels]. Layers are named `stem_conv1`,
        `stage2_block1_conv2`, `..._bn2`, `..._shortcut_conv`, `..._add`, `head_dense`. With
        published weights its attribute `pretrained` holds their record, transforms and class names.

    Raises:
        ReszooError: For an unknown name, fields that contradict each other, an input that the model
            does not take, and weights that do not exist, cannot be downloaded or do not fit.
    """
    _reject_misspelled(fields)
    spec = get_spec(name_or_spec, **fields)
    source = None if weights is None else resolve(spec, weights)
    published = source if isinstance(source, Weights) else None
    new_classifier = classes is not None  # only then may a file's classifier be left out
    shape = input_shape
    if shape is None:
        shape = published.transforms.input_shape if published else spec.default_input_shape
    check_input(spec, shape)
    if not top and classes is not None:
        raise ReszooError(
            f"{spec.name}: classes: {classes} is invalid with top=False, which has no classifier"
        )
    if classes is None:
        classes = len(published.class_names) if published else spec.default_classes
    check_classes(spec, classes)

    policy = building_policy()
    with fixed_settings(policy):
        images = keras.Input(shape, dtype="float32", name="images")
        x = stem(images, spec)
        done = 0
        for stage, blocks in enumerate(spec.depths):
            for index in range(blocks):
                x = block(x, spec, stage, index, first=done == 0, survival=spec.survival(done))
                done += 1
        if spec.order == "pre":
            x = normalize(x, "head_bn", spec)
        if spec.order in ("pre", "relu_pre"):
            x = activate(x, "head_relu", spec)
        # In >= 32 bits under every policy: sums over many pixels, and logits, lose too much in 16.
        full = "float64" if policy.compute_dtype == "float64" else "float32"
        x = keras.layers.GlobalAveragePooling2D(DATA_FORMAT, name="head_pool", dtype=full)(x)
        fixup = spec.initialization == "fixup"
        if fixup:
            x = ScalarBias(name="head_bias", dtype=full)(x)
        if top:
            if spec.head_dropout:
                x = keras.layers.Dropout(spec.head_dropout, name="head_dropout", dtype=full)(x)
            x = keras.layers.Dense(
                classes,
                kernel_initializer="zeros" if fixup else "he_normal",
                bias_initializer=keras.initializers.Constant(spec.head_bias),
                name="head_dense",
                dtype=full,
            )(x)
        model = keras.Model(images, x, name=spec.name)
        _check_own_count(model, spec, shape)
        if source is not None:
            load(model, spec, source, other_classes=new_classifier)
    return model


def _check_own_count(
    model: keras.Model, spec: Spec, shape: tuple[int | None, int | None, int]
) -> None:
    """Raise ReszooError if the count of a user's own shortcut or block is wrong."""
    own = [
        f'{kind} "{getattr(spec, kind)}"' for kind in UNUSED if find_part(kind, getattr(spec, kind))
    ]
    if not own:
        return
    height, width, channels = spec.default_input_shape
    parts = count(spec, (shape[0] or height, shape[1] or width, shape[2] or channels)).parts
    counted = sum(part.parameters + part.state for part in parts if part.place != "head_dense")
    built = sum(layer.count_params() for layer in model.layers if layer.name != "head_dense")
    if counted != built:
        raise ReszooError(
            f"{spec.name} with {' and '.join(own)}: the built model has {built:,} weights before "
            f"its classifier, and count says {counted:,}; correct the function or its count"
        )


def _reject_misspelled(fields: Iterable[str]) -> None:
    """Raise ReszooError for a keyword that is nearly one of `build` and unknown elsewhere."""
    for key in fields:
        if key not in Spec.model_fields and key.lower() not in (*ARGUMENTS, *UNSUPPORTED):
            own = ("classes", "input_shape", "weights", "top")
            if near := did_you_mean(key, own, count=1):
                raise ReszooError(f"build: {key} is not an argument{near}")


def features(model: keras.Model) -> keras.Model:
    """Return a model whose output is the map of every stage, for detection and segmentation.

    Args:
        model: A model that `build` made. Its layers and weights are shared.

    Returns:
        A model with output {"stage1": [n, h1, w1, c1], "stage2": ...}. The map is the output of the
        last block. In a pre-activation model that of the last stage is normalized and rectified.

    Raises:
        ReszooError: For a model without such layers.
    """
    ends: dict[str, keras.KerasTensor] = {}
    for layer in model.layers:
        if found := parse_block_layer(layer.name):
            ends[found.stage_name] = layer.output
        elif layer.name in ("head_bn", "head_relu") and ends:
            ends[list(ends)[-1]] = layer.output
    if not ends:
        raise ReszooError(f"{model.name} is invalid; features expects a model that reszoo built")
    return keras.Model(model.input, ends, name=f"{model.name}_features")
