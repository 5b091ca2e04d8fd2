"""A net to score, ask or export, wherever it comes from: a run's folder, a name with published weights, a model built with them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras

from reszoo.data.preprocessing import Preprocessing
from reszoo.errors import ReszooError
from reszoo.nets.build import build
from reszoo.training.named import find_net
from reszoo.training.run import Run
from reszoo.weights.load import Pretrained
from reszoo.zoo.catalog import spec as find_spec


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a trained net brings along.

    name: what to call it. load: makes the model; call it in the strategy's scope. preprocessing: how images become its input.
    class_names: of its logits; class_ids: what its data set's folders may call them instead. run: where it was trained, if
    that was here. details: what a card says of where it comes from.
    """

    name: str
    load: Callable[[], keras.Model]
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...] = ()
    run: Run | None = None
    details: dict[str, Any] = field(default_factory=dict)


Given: TypeAlias = Source | Run | keras.Model | str | os.PathLike[str]


def open_source(given: Given, weights: str | None = None) -> Source:
    """Return the net that `given` means: a Run or its folder, a model that `build` gave published weights, or a net's name.

    weights: which published weights, for a name; the net's first when left out. Raises ReszooError for anything else, and
    for a model whose images and classes nobody knows.
    """
    if isinstance(given, Source):
        return given
    if isinstance(given, keras.Model):
        return _of_model(given)
    if isinstance(given, Run):
        return _of_run(given)
    found = find_net(given, weights)
    if isinstance(found, Run):
        return _of_run(found)
    net, row = found
    record = Pretrained(weights=row, transforms=row.transforms, class_names=row.class_names, class_ids=row.class_ids)
    return _of_weights(record, lambda: build(net, weights=row.tag))


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
    return _of_weights(pretrained, lambda: model)


def _of_weights(pretrained: Pretrained, load: Callable[[], keras.Model]) -> Source:
    return Source(
        name=f"{pretrained.weights.model} {pretrained.weights.tag}",
        load=load,
        preprocessing=Preprocessing.from_transforms(pretrained.transforms),
        class_names=pretrained.class_names,
        class_ids=pretrained.class_ids,
        details={
            "name": f"{pretrained.weights.model} {pretrained.weights.tag}",
            "spec": find_spec(pretrained.weights.model).to_dict(),
            "weights": pretrained.weights.to_dict(),
        },
    )
