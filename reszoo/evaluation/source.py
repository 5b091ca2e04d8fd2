"""A trained model by whatever a person names it: a run, a model name with published weights, or a Keras model."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.training.run import Run
from reszoo.weights.published import Weights, find_weights
from reszoo.zoo.catalog import spec as find_spec

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a trained model brings along.

    Attributes:
        name: What to call it.
        load: Makes the model; call it in the strategy's scope.
        preprocessing: How images become its input.
        class_names: Of its logits.
        class_ids: What its dataset's folders may call the classes instead.
        run: Where it was trained, if that was here.
        details: What a card says of where it comes from.
    """

    name: str
    load: Callable[[], keras.Model]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...] = ()
    run: Run | None = None
    details: dict[str, Any] = field(default_factory=dict)


Named: TypeAlias = Union[Source, Run, "keras.Model", str, os.PathLike[str]]
"""What names a trained model: a run or its folder, a model name, or a model that `build` gave published weights."""


def open_source(named: Named, weights: str | None = None) -> Source:
    """Return the trained model that is named. TensorFlow is not imported.

    Args:
        named: A run or its folder, a model name, or a model that `build` gave published weights.
        weights: Which published weights, for a model name; by default the model's first.

    Raises:
        ReszooError: For anything else, for weights that do not fit the model, and for a model whose images and classes
            are unknown.
    """
    if isinstance(named, Source):
        return named
    if isinstance(named, Run):
        return _of_run(named)
    if not isinstance(named, str | os.PathLike):
        return _of_model(named)
    path = Path(named)
    if path.is_dir():
        if weights is not None:
            raise ReszooError(
                f"{named} is a run's folder, which has weights of its own; drop weights '{weights}'"
            )
        return _of_run(Run.open(path))
    if path.is_file():
        raise ReszooError(
            f"{named} is a file, which does not say how its images were prepared or what its classes are called; "
            "give a run's folder or a model name"
        )
    try:
        spec = find_spec(os.fspath(named))
    except ReszooError as error:
        raise ReszooError(f"no run folder {named}, and {error}") from None
    row = find_weights(spec, weights)

    def load() -> keras.Model:
        from reszoo.models.build import build

        return build(spec, weights=row.tag)

    return _of_weights(row, row.transforms, row.class_names, row.class_ids, load)


def _of_run(run: Run) -> Source:
    meta = run.meta
    details = {key: meta.get(key) for key in ("spec", "weights", "data", "versions")}
    details |= {"name": run.recipe.name, "recipe": run.recipe.to_dict()}
    return Source(
        name=run.recipe.name,
        load=run.load_model,
        preprocessing=run.preprocessing,
        class_names=run.class_names,
        run=run,
        details=details,
    )


def _of_model(model: keras.Model) -> Source:
    keras = sys.modules.get("keras")
    if keras is None or not isinstance(model, keras.Model):
        raise ReszooError(
            f"{model!r} names no trained model; expected a run, its folder, a model name or a Keras model"
        )
    from reszoo.weights.load import Pretrained

    pretrained = getattr(model, "pretrained", None)
    if not isinstance(pretrained, Pretrained):
        raise ReszooError(
            f"{model.name} does not say how its images are prepared: build it with published weights, or give a run's folder"
        )
    if not pretrained.class_names:
        raise ReszooError(
            f"{model.name} has no trained classifier: build it whole and for its weights' classes, train it by "
            "`reszoo train finetune`, or give its classes to export_model"
        )
    preprocessing = pretrained.transforms
    if preprocessing.channels not in (1, 3):
        raise ReszooError(
            f"{model.name}: an input of {preprocessing.channels} channels is invalid; images are "
            "decoded to 1 or 3 channels"
        )
    return _of_weights(
        pretrained.weights,
        preprocessing,
        pretrained.class_names,
        pretrained.class_ids,
        lambda: model,
    )


def _of_weights(
    weights: Weights,
    preprocessing: Preprocessing,
    class_names: tuple[str, ...],
    class_ids: tuple[str, ...],
    load: Callable[[], keras.Model],
) -> Source:
    name = f"{weights.model} {weights.tag}"
    return Source(
        name=name,
        load=load,
        preprocessing=preprocessing,
        class_names=class_names,
        class_ids=class_ids,
        details={
            "name": name,
            "spec": find_spec(weights.model).to_dict(),
            "weights": weights.to_dict(),
        },
    )
