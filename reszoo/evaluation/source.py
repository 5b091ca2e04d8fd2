"""Find a trained model by a run, a model name with published weights, or a Keras model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.keywords import explain_keywords
from reszoo.training.run import Run
from reszoo.types import JsonObject
from reszoo.weights.published import Weights, find_weights
from reszoo.zoo.catalog import spec as find_spec

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Source:
    """A trained model that is not loaded yet.

    Attributes:
        name: Its name in messages and titles.
        load: Loads the model; call it in the strategy's scope.
        preprocessing: How an image becomes its input.
        class_names: Of its logits.
        multi_label: Whether an image may have several classes: each logit has its own sigmoid.
        class_ids: Other class names that its dataset's folders may have.
        run: The run that trained it, if any.
        details: What the card of an export records.
    """

    name: str
    load: Callable[[], keras.Model]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    multi_label: bool = False
    class_ids: tuple[str, ...] = ()
    run: Run | None = None
    details: JsonObject = field(default_factory=dict)


Named: TypeAlias = Union[Source, Run, "keras.Model", str, os.PathLike[str]]
"""A run or its folder, a model name, or a model that `build` gave published weights."""


def open_source(named: Named, weights: str | None = None) -> Source:
    """Find a trained model. Does not import TensorFlow.

    Args:
        named: A run or its folder, a model name, or a model that `build` gave published weights.
        weights: Which published weights, for a model name; by default the model's first.

    Raises:
        ReszooError: `named` is anything else, the weights do not fit the model, or the
            preprocessing or classes of the model are unknown.
    """
    if isinstance(named, Source):
        return named
    if isinstance(named, Run):
        return _from_run(named)
    if not isinstance(named, str | os.PathLike):
        return _from_model(named)
    path = Path(named)
    if path.is_dir():
        if weights is not None:
            raise ReszooError(
                f"weights: {weights} is invalid, because {named} is a run folder, which has its "
                "own weights; drop it"
            )
        return _from_run(Run.open(path))
    if path.is_file():
        raise ReszooError(
            f"{named} is a file, whose preprocessing and class names are unknown; expected a run "
            "folder or a model name"
        )
    try:
        spec = find_spec(os.fspath(named))
    except ReszooError as error:
        raise ReszooError(f"no run folder {named}, and {error}") from None
    row = find_weights(spec, weights)

    def load() -> keras.Model:
        from reszoo.models.build import build

        return build(spec, weights=row.tag)

    return _from_weights(row, row.transforms, row.class_names, row.class_ids, load)


@explain_keywords
def preprocessing(model: Named, *, weights: str | None = None) -> Preprocessing:
    """Return how an image becomes the input of a model, as evaluation does it.

    The result is a function for one's own loop: `dataset.map(reszoo.preprocessing(model))` takes
    the bytes of JPEG and PNG files, or pixels. `str()` describes it.

    Args:
        model: A run or its folder, a model name, or a model that `build` gave published weights,
            with or without their classifier.
        weights: Which published weights, for a model name; by default the model's first.

    Raises:
        ReszooError: `model` is anything else, or its preprocessing is unknown.
    """
    pretrained = getattr(model, "pretrained", None)
    if pretrained is not None and weights is None:
        transforms: Preprocessing = pretrained.transforms
        return transforms
    return open_source(model, weights).preprocessing


def _from_run(run: Run) -> Source:
    recipe, meta = run.recipe, run.meta
    details = {key: meta.get(key) for key in ("spec", "weights", "data", "versions")}
    return Source(
        name=recipe.name,
        load=run.load_model,
        preprocessing=run.preprocessing,
        class_names=run.class_names,
        multi_label=recipe.data.multi_label,
        run=run,
        details={**details, "name": recipe.name, "recipe": recipe.to_dict()},
    )


def _from_model(model: keras.Model) -> Source:
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(model, keras.Model):
        raise ReszooError(
            f"model: {model!r} is invalid; expected a run, its folder, a model name or a Keras "
            "model"
        )
    from reszoo.weights.load import Pretrained

    pretrained = getattr(model, "pretrained", None)
    if not isinstance(pretrained, Pretrained):
        raise ReszooError(
            f"{model.name}: the preprocessing of its images is unknown; expected a model built "
            "with published weights, or a run folder"
        )
    if not pretrained.class_names:
        raise ReszooError(
            f"{model.name}: the model has no trained classifier; build it with the classes of its "
            "weights, train it by `reszoo train finetune`, or export it by export_model with "
            "class_names"
        )
    transforms = pretrained.transforms
    if transforms.channels not in (1, 3):
        raise ReszooError(
            f"{model.name}: an input of {transforms.channels} channels is invalid; images are "
            "decoded to 1 or 3 channels"
        )
    names, ids = pretrained.class_names, pretrained.class_ids
    return _from_weights(pretrained.weights, transforms, names, ids, lambda: model)


def _from_weights(
    weights: Weights,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...],
    class_ids: tuple[str, ...],
    load: Callable[[], keras.Model],
) -> Source:
    name, spec = f"{weights.model} {weights.tag}", find_spec(weights.model)
    return Source(
        name=name,
        load=load,
        preprocessing=preprocessing,
        class_names=class_names,
        class_ids=class_ids,
        details={"name": name, "spec": spec.to_dict(), "weights": weights.to_dict()},
    )
