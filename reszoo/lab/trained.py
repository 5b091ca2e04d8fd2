"""Trained models that an experiment measures, each with images of its own preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from reszoo.config.data import NoCrop
from reszoo.data.catalog import name_data
from reszoo.data.pipeline import Pipeline, open_dataset
from reszoo.errors import ReszooError
from reszoo.evaluation.evaluate import other_data
from reszoo.evaluation.source import Source, open_source
from reszoo.images.preprocessing import Preprocessing
from reszoo.lab.sampling import sample_examples
from reszoo.types import Array
from reszoo.zoo.catalog import spec as find_spec
from reszoo.zoo.count import count
from reszoo.zoo.spec import Spec

BATCH = 128


@dataclass(frozen=True)
class TrainedModel:
    """A trained model and its data.

    Attributes:
        name: As the experiment shows it, such as "resnet20 (seed 1)".
        spec: Its specification.
        model: From images to logits.
        preprocessing: How an image becomes its input.
        pipeline: The data, which all models of an experiment share.
    """

    name: str
    spec: Spec
    model: keras.Model
    preprocessing: Preprocessing
    pipeline: Pipeline

    @property
    def kind(self) -> str:
        """Whether it is "plain" or "residual"."""
        return "plain" if self.spec.shortcut == "none" else "residual"

    @property
    def depth(self) -> int:
        """The number of layers, as in "resnet20"."""
        return count(self.spec).depth

    def sample(self, split: str, wanted: int) -> tuple[Array, Array]:
        """Return up to `wanted` images of a split, float32 [n, h, w, c], and labels [n].

        They are the same images for all models, each with the model's own preprocessing.
        """
        self.pipeline.preprocessing = self.preprocessing
        return sample_examples(self.pipeline, split, wanted)


def open_trained(names: Sequence[str], data: str = "") -> list[TrainedModel]:
    """Load trained models.

    Args:
        names: Folders of finished runs, and names of models with published weights as NAME@WEIGHTS.
        data: The images; by default those of the first run.

    Raises:
        ReszooError: For an unknown model, an unfinished run, models of different classes, or
            published weights without data.
    """
    sources = [_find(name) for name in names]
    run = next((source.run for source in sources if source.run), None)
    if not (data or run):
        raise ReszooError(
            "data: none is given, and published weights have no images of their own; expected a "
            "dataset. Example: --data cifar10"
        )
    first = sources[0]
    if run and not data:
        pipeline = run.open_pipeline(BATCH)
    else:
        other = other_data(name_data(data), None, first.preprocessing)
        pipeline = open_dataset(other, NoCrop(), batch_size=BATCH, seed=0)
    shape = first.preprocessing.input_shape
    for source in sources:
        classes = source.class_names, source.class_ids
        if pipeline.info.class_names not in classes or source.preprocessing.input_shape != shape:
            raise ReszooError(
                f"models: {source.name} does not classify the images of {pipeline.info.name} as "
                f"{first.name} does; give models of one dataset"
            )
    found = []
    for name, source in zip(names, sources, strict=True):
        own = source.run
        spec = own.recipe.model.spec if own else find_spec(name.partition("@")[0])
        label = f"{spec.name} (seed {own.meta['seed']})" if own else name
        found.append(TrainedModel(label, spec, source.load(), source.preprocessing, pipeline))
    return found


def _find(name: str) -> Source:
    if Path(name).is_dir():
        source = open_source(name)
        if source.run:
            source.run.reject_unfinished()
        return source
    model, _, weights = name.partition("@")
    return open_source(model, weights or None)
