"""The tables [model] and [published]: the model, and the published figure to compare with."""

from __future__ import annotations

import functools
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from reszoo.errors import ReszooError
from reszoo.images.preprocessing import Preprocessing
from reszoo.images.views import Views
from reszoo.references import invalid_reference, is_reference
from reszoo.types import JsonMapping, JsonObject
from reszoo.validation.table import Table
from reszoo.weights.files import is_file_name
from reszoo.weights.published import Weights, find_weights
from reszoo.zoo.catalog import spec
from reszoo.zoo.spec import Spec


class ModelConfig(Table):
    """A model by name, with some fields of its spec changed, and the weights that it starts from.

    Every other key is a field of `Spec`, or with a reference an argument of the user's function.

    Raises:
        ReszooError: If the zoo has no such model, or the model no such weights.
    """

    TABLE: ClassVar[str] = "model"

    model_config = ConfigDict(extra="allow")

    name: str = Field(
        examples=["resnet20"],
        description="Name of the model. `reszoo list` prints all names. Or your own function, as "
        '`"package.module:attribute"`, of `input_shape`, `classes` and other keys of this table, '
        "that returns a Keras model from images to logits.",
    )
    weights: str = Field(
        "",
        examples=["imagenet"],
        description="Initial weights: published ones by tag or dataset, or a file. Empty: new "
        "ones.",
    )

    def __init__(self, /, **values: Any) -> None:
        super().__init__(**{key: _as_tuples(value) for key, value in values.items()})

    def check(self) -> None:
        """Raise ReszooError for a model or weights that do not exist."""
        if self.is_own:
            self.reject_unused("weights", "name")
        else:
            _ = self.spec, self.published

    @property
    def fields(self) -> JsonMapping:
        """The fields of the spec that are changed."""
        return self.model_extra or {}

    @property
    def is_own(self) -> bool:
        """Whether the user's own function makes the model, which has no spec."""
        return is_reference(self.name)

    @functools.cached_property
    def spec(self) -> Spec:
        """The spec of the model."""
        if self.is_own:
            why = "only a model that `reszoo list` prints can be counted, grown or converted"
            raise invalid_reference("model.name", self.name, why)
        try:
            return spec(self.name, **self.fields)
        except ReszooError as error:
            raise ReszooError(f"model: {error}") from None

    @functools.cached_property
    def published(self) -> Weights | None:
        """The published weights that training starts from, if any."""
        if not self.weights or is_file_name(self.weights):
            return None
        try:
            return find_weights(self.spec, self.weights)
        except ReszooError as error:
            raise ReszooError(f"model.weights: {error}") from None

    @property
    def transforms(self) -> Preprocessing | None:
        """The preprocessing of those weights."""
        return self.published.transforms if self.published else None

    def to_dict(self) -> JsonObject:
        """Return plain values for TOML and JSON, without weights if there are none."""
        return {
            key: value
            for key, value in super().to_dict().items()
            if value != "" or key != "weights"
        }


class Published(Table):
    """The published figure to compare a run with."""

    TABLE: ClassVar[str] = "published"

    metric: str = Field(examples=["test error"], description="The kind of error.")
    value: float = Field(ge=0, le=100, examples=[8.75], description="The error in percent.")
    source: str = Field(examples=["arXiv 1512.03385, table 6"], description="Its publication.")
    test: str = Field(
        "1-crop",
        examples=["10-crop"],
        description="The test that the error is of: `1-crop`, `10-crop` or `scales 224,256,...`, "
        "then perhaps `flip`, `ratio X`, `bilinear` or `bicubic`, as options of `reszoo evaluate`.",
    )

    def check(self) -> None:
        """Raise ReszooError for the name of an unknown test."""
        try:
            Views.parse(self.test)
        except ReszooError:
            expected = "1-crop, 10-crop or scales A,B,..., then perhaps flip, ratio X, or bicubic"
            raise self.contradiction("test", expected, "10-crop") from None

    @property
    def views(self) -> Views:
        """The views of an image in the test."""
        return Views.parse(self.test)

    def __str__(self) -> str:
        """Return the error, its kind and its source."""
        return f"{self.value:g} % ({self.metric}; {self.source})"


def _as_tuples(value: Any) -> Any:
    return tuple(map(_as_tuples, value)) if isinstance(value, list | tuple) else value
