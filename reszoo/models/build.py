"""From a name or a spec to a Keras functional model, and from a model to the maps its stages give."""

from __future__ import annotations

import os
from typing import Any, Unpack

import keras

from reszoo.errors import ReszooError, did_you_mean
from reszoo.models.blocks import block
from reszoo.models.layers import norm, relu
from reszoo.models.settings import DATA_FORMAT, building_policy, fixed_settings
from reszoo.models.stems import stem
from reszoo.weights.load import load, resolve
from reszoo.weights.published import Weights
from reszoo.zoo.catalog import spec as get_spec
from reszoo.zoo.count import check_classes, check_input
from reszoo.zoo.foreign import ARGUMENTS, UNSUPPORTED
from reszoo.zoo.layer_names import parse_block_layer
from reszoo.zoo.spec import Spec, SpecFields


def build(
    name_or_spec: str | Spec,
    *,
    classes: int | None = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    weights: str | os.PathLike[str] | None = None,
    top: bool = True,
    **fields: Unpack[SpecFields],
) -> keras.Model:
    """Build a net by name or spec, with some spec fields changed, as a plain Keras functional model.

    Takes float images [n, height, width, channels], normalised as the recipe says; gives float32 logits [n, classes], or with
    top=False the pooled features [n, channels]. input_shape and classes default to the data the weights were trained on, or
    else the family was published on: (32, 32, 3) and 10, or (224, 224, 3) and 1000; a height or width of None takes any size.

    weights: published ones by tag ("torchvision/IMAGENET1K_V1", `list_weights` has them all) or by their data
    ("imagenet", "cifar10": the first in that list), a file of one's own (`.weights.h5`, `.safetensors`, `.pth`, ...
    in this or another framework's layout), or None for fresh ones. Where `classes` is given and theirs are others,
    the classifier is new; other input channels get a first convolution summed or repeated to fit. Both are said on
    standard error. With published weights the model has an attribute `pretrained`, with their record, transforms and
    class names, by which evaluate, predict and export go.

    Layers are named `stem_conv1`, `stage2_block1_conv2`, `..._bn2`, `..._shortcut_conv`, `..._add`, `head_dense`.
    Raises ReszooError for an unknown name (with the nearest), fields that contradict each other, an input the net cannot bear,
    and weights that are not there, cannot be fetched or do not fit, naming the field or the tensor that differs.
    """
    _refuse_misspelt(dict(fields))
    spec = get_spec(name_or_spec, **fields)
    source = None if weights is None else resolve(spec, weights)
    told = classes is not None  # only then may a file's classifier be put aside
    shape = input_shape
    if shape is None:
        shape = (
            (*source.transforms.image_size, 3)
            if isinstance(source, Weights)
            else spec.default_input_shape
        )
    check_input(spec, shape)
    if not top and classes is not None:
        raise ReszooError(
            f"{spec.name}: top=False leaves the classifier out, so classes={classes} has no place; drop one of the two"
        )
    if classes is None:
        classes = len(source.class_names) if isinstance(source, Weights) else spec.default_classes
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
            x = norm(x, "head_bn", spec.bn_epsilon)
        if spec.order in ("pre", "relu_pre"):
            x = relu(x, "head_relu")
        # In at least float32 under every policy: sums over many pixels, and logits, lose too much in 16 bits.
        full = "float64" if policy.compute_dtype == "float64" else "float32"
        x = keras.layers.GlobalAveragePooling2D(DATA_FORMAT, name="head_pool", dtype=full)(x)
        if top:
            x = keras.layers.Dense(
                classes, kernel_initializer="he_normal", name="head_dense", dtype=full
            )(x)
        model = keras.Model(images, x, name=spec.name)
        if source is not None:
            load(model, spec, source, other_classes=told)
    return model


def _refuse_misspelt(fields: dict[str, Any]) -> None:
    """Raise ReszooError for a keyword that is nearly one of `build`'s own and neither a field nor another library's."""
    for key in fields:
        if key not in Spec.model_fields and key.lower() not in (*ARGUMENTS, *UNSUPPORTED):
            own = ("classes", "input_shape", "weights", "top")
            if near := did_you_mean(key, own, count=1):
                raise ReszooError(f"build: {key} is not an argument{near}")


def features(model: keras.Model) -> keras.Model:
    """Return a model that gives the map of every stage: {"stage1": [n, h1, w1, c1], "stage2": ...}, for detection and the like.

    It shares the layers and weights of `model`, any net that `build` made. A stage's map is what leaves its last block; in
    a pre-activation net the last stage's is normalised and rectified as its classifier sees it.
    Raises ReszooError for a model without such layers.
    """
    ends: dict[str, Any] = {}
    for layer in model.layers:
        if found := parse_block_layer(layer.name):
            ends[found.stage_name] = layer.output
        elif layer.name in ("head_bn", "head_relu") and ends:
            ends[list(ends)[-1]] = layer.output
    if not ends:
        raise ReszooError(
            f"{model.name} has no layers named stage1_block1_...; features() takes a net that reszoo built"
        )
    return keras.Model(model.input, ends, name=f"{model.name}_features")
