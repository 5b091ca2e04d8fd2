"""The files of a search folder as checked, typed dictionaries.

An alias is the name of a key in version 0.1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, NotRequired, Required, TypeVar

from pydantic import AliasChoices, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

from reszoo.errors import ReszooError
from reszoo.tuning.hyperparameters import Value
from reszoo.types import JsonObject

RECORD = "trial.json"
ENDED = ("completed", "failed")
NEEDED = ("score", "scores", "seeds", "share", "depth", "parameters", "macs")

FORMAT = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)
T = TypeVar("T")


@with_config(FORMAT)
class Trial(TypedDict, total=False):
    """trials/ID/trial.json: a trial, its cost and its scores; accuracies are from 0 to 1."""

    trial: Required[str]
    values: Required[dict[str, Value]]
    status: Required[Literal["running", "completed", "failed"]]
    reason: str
    continues: str | None
    share: float
    seeds: list[int]
    depth: int
    parameters: int
    macs: Annotated[int, Field(validation_alias=AliasChoices("macs", "multiply_adds"))]
    worker: str
    attempts: list[list[int]]
    scores: list[float]
    score: float
    training: list[float | None]
    steps: int
    trained_steps: int
    seconds: float


@with_config(FORMAT)
class Options(TypedDict):
    """A choice in the table `space` of search.json."""

    options: dict[str, JsonObject]


@with_config(FORMAT)
class Bounds(TypedDict):
    """A range in the table `space` of search.json."""

    low: int | float
    high: int | float
    log: NotRequired[bool]


@with_config(FORMAT)
class SearchFile(TypedDict):
    """search.json."""

    name: str
    description: NotRequired[str]
    search: JsonObject
    recipe: JsonObject
    space: dict[str, Options | Bounds]
    data: JsonObject
    environment: NotRequired[JsonObject]
    command: NotRequired[str]


@with_config(FORMAT)
class Rejection(TypedDict):
    """Values that were rejected, in oracle.json."""

    values: dict[str, Value]
    reason: str


@with_config(FORMAT)
class StateFile(TypedDict, total=False):
    """oracle.json, as far as a report needs it."""

    rejected: Annotated[
        list[Rejection], Field(validation_alias=AliasChoices("rejected", "refused"))
    ]


TRIAL, SEARCH, STATE = TypeAdapter(Trial), TypeAdapter(SearchFile), TypeAdapter(StateFile)


def folder_of(search: Path, trial_id: str) -> Path:
    """Return the folder of a trial in a search folder."""
    return search / "trials" / trial_id


def read_record(folder: Path) -> Trial | None:
    """Return the record of a trial's folder, if any. Raises ReszooError if it is damaged."""
    path = folder / RECORD
    return read_trial(path) if path.is_file() else None


def read_trial(path: Path) -> Trial:
    """Return a trial.json. Raises ReszooError if it is damaged."""
    trial = read_file(path, TRIAL)
    if trial["status"] == "completed" and (missing := [key for key in NEEDED if key not in trial]):
        raise ReszooError(f"{path} is damaged: {missing[0]} is missing")
    return trial


def read_file(path: Path, adapter: TypeAdapter[T]) -> T:
    """Return a JSON file of a known format. Raises ReszooError if it is damaged."""
    try:
        return adapter.validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ReszooError(
            f"{path} is damaged: {f'{place}: ' if place else ''}{first['msg']}"
        ) from None
