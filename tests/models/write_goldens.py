"""Write goldens/*.json, the names and shapes that saved weights depend on. From the root: python -m tests.models.write_goldens

A change in them is a change for everyone who has saved weights: say so in the changelog.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reszoo import Spec, build, spec

FOLDER = Path(__file__).with_name("goldens")
THIN: dict[str, Any] = {"depths": (2, 1, 1, 1), "widths": (16, 16, 32, 32)}
NETS: dict[str, Spec] = {
    "plain8": spec("plain8"),
    "resnet8": spec("resnet8"),
    "resnet8_v2": spec("resnet8_v2"),
    "resnet18": spec("resnet18"),
    "resnet50_d_thin": spec("resnet50_d", **THIN),
    "se_resnext_thin": spec("resnext50_32x4d", **THIN, se_ratio=1 / 16),
    "resnet8_everything": spec(
        "resnet8_v2",
        shortcut="C",
        gate="exclusive",
        rezero=True,
        se_ratio=0.5,
        shortcut_scale=0.5,
        shortcut_dropout=0.1,
        dropout=0.1,
        drop_path=0.1,
    ),
}


def describe(net: Spec) -> dict[str, Any]:
    """Return a net's layers by name, in order, and the shapes of their weights."""
    model = build(net)
    return {
        "name": model.name,
        "layers": [layer.name for layer in model.layers],
        "weights": {
            f"{layer.name}/{weight.name}": list(weight.shape)
            for layer in model.layers
            for weight in layer.weights
        },
    }


def text(described: dict[str, Any]) -> str:
    weights = ",\n  ".join(
        f"{json.dumps(name)}: {json.dumps(shape)}" for name, shape in described["weights"].items()
    )
    layers = ",\n  ".join(json.dumps(name) for name in described["layers"])
    name = json.dumps(described["name"])
    return f'{{\n "name": {name},\n "layers": [\n  {layers}\n ],\n "weights": {{\n  {weights}\n }}\n}}\n'


if __name__ == "__main__":
    for name, net in NETS.items():
        (FOLDER / f"{name}.json").write_text(text(describe(net)), encoding="utf-8")
