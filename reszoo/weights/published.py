"""The published weights of the zoo's nets: one row for each, read from published.tsv. Standard library only."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reszoo.errors import ReszooError, did_you_mean
from reszoo.images.preprocessing import Preprocessing
from reszoo.weights.formats import RemoteFile
from reszoo.zoo.catalog import ALIASES, list_models, spec
from reszoo.zoo.count import count
from reszoo.zoo.spec import Spec

# What two nets of the same weights may differ in: where weights start, and what acts in training alone.
FREE = ("name", "zero_gamma", "gate_bias", "dropout", "shortcut_dropout", "drop_path")

NEAR = 3  # fields in which a net may differ and still be meant

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Published weights of one net.

    model: the net they belong to. tag: their name, "publisher/variant" or "publisher". layout: whose names their tensors
    have. data: the set they classify, "imagenet" or "cifar10". top1, top5: published accuracy in percent on its test images
    (ImageNet: validation), one crop as `transforms` says; None where not published. licence: SPDX. source: where that stands.
    files: where they lie, the preferred first.
    """

    model: str
    tag: str
    layout: str
    data: str
    top1: float
    top5: float | None
    transforms: Preprocessing
    licence: str
    source: str
    files: tuple[RemoteFile, ...]

    @property
    def parameters(self) -> int:
        """Trained weights of the net, its classifier included."""
        return count(self.model).parameters

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes in the order of the logits."""
        return CIFAR10 if self.data == "cifar10" else tuple(name for _, name in _imagenet())

    @property
    def class_ids(self) -> tuple[str, ...]:
        """The classes as their data set's folders are called: ImageNet's by their WordNet number."""
        return CIFAR10 if self.data == "cifar10" else tuple(number for number, _ in _imagenet())

    def classifies(self, names: tuple[str, ...]) -> bool:
        """Return whether `names` are the classes of these weights, in the order of their logits."""
        return names in (self.class_names, self.class_ids)

    def to_dict(self) -> dict[str, Any]:
        """Return what a card or a run says of them, fit for JSON."""
        values = {
            key: getattr(self, key)
            for key in ("model", "tag", "data", "top1", "top5", "licence", "source")
        }
        return {
            **values,
            "transforms": self.transforms.to_dict(),
            "files": [file.url for file in self.files],
        }


@functools.cache
def published() -> tuple[Weights, ...]:
    """Return every row; of those of one net the first is what its data set's name stands for."""
    head, *lines = (
        (Path(__file__).parent / "published.tsv").read_text(encoding="utf-8").splitlines()
    )
    return tuple(_row(dict(zip(head.split("\t"), line.split("\t"), strict=True))) for line in lines)


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
    return Weights(
        **{key: cells[key] for key in ("model", "tag", "layout", "data", "licence", "source")},
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


def list_weights(pattern: str = "*") -> list[Weights]:
    """Return the published weights of the nets whose name, or another name of theirs, matches a shell-style wildcard.

    Those of a net stand together, the first being what its data's name stands for.
    """
    pattern = pattern.lower()
    names: dict[str, list[str]] = {}
    for alias, row in ALIASES.items():
        names.setdefault(row, []).append(alias)
    order = {name: place for place, name in enumerate(list_models())}
    return [
        weights
        for weights in sorted(published(), key=lambda row: order[row.model])
        if any(
            fnmatch.fnmatchcase(name, pattern)
            for name in (weights.model, *names.get(weights.model, ()))
        )
    ]


def fitting(net: Spec) -> list[Weights]:
    """Return the published weights that `net` can hold, whatever it is called."""
    return [weights for weights in published() if not differences(net, weights)]


def find_weights(net: Spec, tag: str | None = None) -> Weights:
    """Return published weights of a model.

    Args:
        net: The model.
        tag: A tag ("timm/a1_in1k"), its second half ("a1_in1k") or a dataset ("imagenet"), in either case of letters; by
            default the model's first weights.

    Raises:
        ReszooError: If the model cannot hold them, naming the field that differs, or the tag does not exist.
    """
    fits = fitting(net)
    if found := fits if tag is None else _tagged(fits, tag):
        return found[0]
    others = published() if tag is None else _tagged(published(), tag)
    nearest = min(
        others,
        key=lambda weights: (weights.model != net.name, len(differences(net, weights))),
        default=None,
    )
    if nearest and len(differences(net, nearest)) <= NEAR:
        raise ReszooError(f"{net.name}: {_misfit(net, nearest)}")
    if not fits:
        raise ReszooError(
            f"{net.name} has no published weights; `reszoo list --weights` shows the nets that have"
        )
    tags = [weights.tag for weights in fits]
    near = did_you_mean(
        str(tag),
        {part.lower() for name in tags for part in (name, name.split("/")[-1])} | {fits[0].data},
    )
    raise ReszooError(f"{net.name} has no weights '{tag}'{near or '; it has ' + ', '.join(tags)}")


def differences(net: Spec, weights: Weights) -> list[tuple[str, Any, Any]]:
    """Return (field, its value in `net`, its value in the weights' own net) for each binding field that differs."""
    own = _spec_of(weights.model)
    return [
        (name, getattr(net, name), getattr(own, name))
        for name in Spec.model_fields
        if name not in FREE and getattr(net, name) != getattr(own, name)
    ]


@functools.cache
def _spec_of(model: str) -> Spec:
    return spec(model)


def _tagged(rows: Iterable[Weights], tag: str) -> list[Weights]:
    wanted = tag.lower()
    return [
        row for row in rows if wanted in (row.tag.lower(), row.tag.lower().split("/")[-1], row.data)
    ]


def _misfit(net: Spec, weights: Weights) -> str:
    fields = differences(net, weights)
    told = "; ".join(f"{name} is {here!r} here and {there!r} there" for name, here, there in fields)
    names = ", ".join(name for name, _, _ in fields)
    remedy = (
        f"leave {names} as it is"
        if weights.model == net.name
        else f"build '{weights.model}' instead"
    )
    return f"weights '{weights.tag}' belong to {weights.model}: {told}; {remedy}"
