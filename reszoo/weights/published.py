"""Published weights: one row of published.tsv each, and those in the package. Standard library."""

from __future__ import annotations

import fnmatch
import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError, did_you_mean
from reszoo.images.preprocessing import Preprocessing
from reszoo.reporting.notebook import html_table
from reszoo.types import JsonObject
from reszoo.weights.files import PACKAGED, RemoteFile, packaged_path
from reszoo.zoo.catalog import ALIASES, list_models
from reszoo.zoo.catalog import spec as make_spec
from reszoo.zoo.count import count
from reszoo.zoo.spec import Spec

# Fields in which models of the same weights may differ: initial values, and training alone.
FREE = (
    *("name", "zero_gamma", "gate_bias", "dropout", "shortcut_dropout", "drop_path"),
    *("head_dropout", "head_bias"),
)

NEAR = 3  # fields in which a model may differ and still be meant

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Published weights of one model.

    Attributes:
        model: The model's name.
        tag: Their name, "publisher/variant" or "publisher".
        layout: The layout of their tensors.
        data: The dataset that they classify, "imagenet", "cifar10" or "fashion_mnist".
        top1: Accuracy in percent on its test images (ImageNet: validation), one crop; published,
            except those of "mlperf" and of the weights in the package, which were measured here.
        top5: As `top1`; None if not published.
        transforms: The preprocessing of images.
        license: SPDX identifier.
        source: Where accuracy and license are stated.
        files: Where they lie, the preferred first.
        names: Class names in the order of the logits, unless `data` decides them.
        ids: Names of the dataset's class folders, likewise.
        card: Of weights in the package: how they were trained and measured.
    """

    model: str
    tag: str
    layout: str
    data: str
    top1: float
    top5: float | None
    transforms: Preprocessing
    license: str
    source: str
    files: tuple[RemoteFile, ...]
    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    card: JsonObject = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """The number of trainable parameters, the classifier included."""
        return count(self.model).parameters

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the logits."""
        cifar10 = self.data == "cifar10"
        return self.names or (CIFAR10 if cifar10 else tuple(name for _, name in _imagenet()))

    @property
    def class_ids(self) -> tuple[str, ...]:
        """Names of the dataset's class folders: ImageNet's WordNet numbers."""
        cifar10 = self.data == "cifar10"
        return self.ids or (CIFAR10 if cifar10 else tuple(number for number, _ in _imagenet()))

    def classifies(self, names: tuple[str, ...]) -> bool:
        """Return whether `names` are the classes of these weights, in the order of their logits."""
        return names in (self.class_names, self.class_ids)

    def to_dict(self) -> JsonObject:
        """Return a JSON-able dict, for cards and run.json."""
        values = {
            key: getattr(self, key)
            for key in ("model", "tag", "data", "top1", "top5", "license", "source")
        }
        return {
            **values,
            "transforms": self.transforms.to_dict(),
            "files": [file.url for file in self.files],
            **({"training": self.card} if self.card else {}),
        }


class WeightsList(list[Weights]):
    """A list of published weights, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        headers = ("model", "weights", "data", "image", "top-1", "top-5", "license")
        rows = [
            (
                each.model,
                each.tag,
                each.data,
                "x".join(map(str, each.transforms.image_size)),
                f"{each.top1:g} %",
                "" if each.top5 is None else f"{each.top5:g} %",
                each.license,
            )
            for each in self
        ]
        return html_table(headers, rows)


@functools.cache
def published() -> tuple[Weights, ...]:
    """Return all weights. The first of a model are what its dataset's name stands for."""
    head, *lines = (
        (Path(__file__).parent / "published.tsv").read_text(encoding="utf-8").splitlines()
    )
    rows = [_row(dict(zip(head.split("\t"), line.split("\t"), strict=True))) for line in lines]
    cards = sorted(packaged_path("").glob("*.json"))
    return (*rows, *(_packaged(path) for path in cards))


def _packaged(path: Path) -> Weights:
    """Return the weights that a JSON file in the package describes."""
    values: JsonObject = json.loads(path.read_text(encoding="utf-8"))
    file = RemoteFile(url=f"{PACKAGED}{path.stem}.safetensors", digest=values.pop("digest"))
    values |= {key: tuple(values[key]) for key in ("names", "ids")}
    transforms = Preprocessing.from_dict(values.pop("transforms"))
    return Weights(tag=path.stem, layout="reszoo", transforms=transforms, files=(file,), **values)


def _row(cells: dict[str, str]) -> Weights:
    side = int(cells["image_size"])
    transforms = Preprocessing.from_dict(
        {
            **cells,
            "image_size": (side, side),
            "channels": 3,
            "mean": [float(value) for value in cells["mean"].split(",")],
            "std": [float(value) for value in cells["std"].split(",")],
        }
    )
    files = []
    for file in cells["files"].split():
        url, digest = file.split("|")
        files.append(RemoteFile(url=url, digest=digest))
    keys = ("model", "tag", "layout", "data", "license", "source")
    texts: JsonObject = {key: cells[key] for key in keys}
    return Weights(
        **texts,
        top1=float(cells["top1"]),
        top5=float(cells["top5"]) if cells["top5"] else None,
        transforms=transforms,
        files=tuple(files),
    )


@functools.cache
def _imagenet() -> tuple[tuple[str, str], ...]:
    lines = (
        (Path(__file__).parent / "imagenet_classes.tsv").read_text(encoding="utf-8").splitlines()
    )
    return tuple((number, name) for number, name in (line.split("\t") for line in lines))


def list_weights(pattern: str = "*") -> WeightsList:
    """Return the published weights of models whose name or alias matches a shell-style wildcard.

    Those of a model stand together; the first is what its dataset's name stands for.
    """
    pattern = pattern.lower()
    names: dict[str, list[str]] = {}
    for alias, row in ALIASES.items():
        names.setdefault(row, []).append(alias)
    order = {name: place for place, name in enumerate(list_models())}
    return WeightsList(
        weights
        for weights in sorted(published(), key=lambda row: order[row.model])
        if any(
            fnmatch.fnmatchcase(name, pattern)
            for name in (weights.model, *names.get(weights.model, ()))
        )
    )


def find_compatible(spec: Spec) -> list[Weights]:
    """Return the published weights that a model can hold, whatever its name."""
    return [weights for weights in published() if not differences(spec, weights)]


def find_weights(spec: Spec, tag: str | None = None) -> Weights:
    """Return published weights of a model.

    Args:
        spec: The model.
        tag: A tag ("timm/a1_in1k"), its second half ("a1_in1k") or a dataset ("imagenet"), in any
            case; by default the model's first weights.

    Raises:
        ReszooError: If the model cannot hold them, or the tag does not exist.
    """
    fits = find_compatible(spec)
    if found := fits if tag is None else _tagged(fits, tag):
        return found[0]
    others = published() if tag is None else _tagged(published(), tag)
    nearest = min(
        others,
        key=lambda weights: (weights.model != spec.name, len(differences(spec, weights))),
        default=None,
    )
    if nearest and len(differences(spec, nearest)) <= NEAR:
        raise ReszooError(f"{spec.name}: {_describe_mismatch(spec, nearest)}")
    if not fits:
        raise ReszooError(
            f"{spec.name} has no published weights; `reszoo list --weights` shows the models with "
            "published weights"
        )
    tags = [weights.tag for weights in fits]
    near = did_you_mean(
        str(tag),
        {part.lower() for name in tags for part in (name, name.split("/")[-1])} | {fits[0].data},
    )
    raise ReszooError(f"{spec.name} has no weights '{tag}'{near or '; it has ' + ', '.join(tags)}")


def differences(spec: Spec, weights: Weights) -> list[tuple[str, Any, Any]]:
    """Return (field, the model's value, the weights' model's value) for each field that differs."""
    own = _spec_of(weights.model)
    return [
        (name, getattr(spec, name), getattr(own, name))
        for name in Spec.model_fields
        if name not in FREE and getattr(spec, name) != getattr(own, name)
    ]


_spec_of = functools.cache(make_spec)


def _tagged(rows: Iterable[Weights], tag: str) -> list[Weights]:
    wanted = tag.lower()
    return [
        row for row in rows if wanted in (row.tag.lower(), row.tag.lower().split("/")[-1], row.data)
    ]


def _describe_mismatch(spec: Spec, weights: Weights) -> str:
    fields = differences(spec, weights)
    shown = "; ".join(
        f"{name} is {here!r} here and {there!r} there" for name, here, there in fields
    )
    names = ", ".join(name for name, _, _ in fields)
    remedy = (
        f"leave {names} as it is"
        if weights.model == spec.name
        else f"build '{weights.model}' instead"
    )
    return f"weights '{weights.tag}' belong to {weights.model}: {shown}; {remedy}"
