"""What an export says of itself: card.json for programs, README.md for people, both made from records."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reszoo.evaluation.scores import one_class_line
from reszoo.exporting.formats import FORMATS
from reszoo.exporting.parity import BOUNDS
from reszoo.reporting.template import render_template
from reszoo.zoo.count import count
from reszoo.zoo.spec import Spec

SIGNATURES = {
    "savedmodel": {
        "serving_default": "images float32 [n, h, w, c], pixels 0..255 of any size -> probabilities, logits",
        "image_bytes": "image_bytes string [n], JPEG or PNG files -> probabilities, labels, scores, "
        "status (0: answered, 1: cannot be decoded, 2: too large)",
        "features": "images as serving_default -> features, what the classifier sees",
    },
    "litert": {
        "serving_default": "images {dtype} [n, {height}, {width}, {channels}], pixels 0..255 -> probabilities, logits"
    },
    "onnx": {
        "": "images float32 [n, {height}, {width}, {channels}], pixels 0..255 -> probabilities, logits"
    },
}


def machine() -> dict[str, Any]:
    """Return what a speed was measured on."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = (line for line in cpuinfo.read_text().splitlines() if line.startswith("model name"))
        name = next(lines, name).partition(":")[2].strip() or name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"processor": name, "cores": cores}


def signatures(
    kind: str, precision: str, input_shape: tuple[int, int, int], *, features: bool
) -> dict[str, str]:
    """Return what the export can be asked, in words."""
    height, width, channels = input_shape
    words = {
        "dtype": "uint8" if precision == "int8" else "float32",
        "height": height,
        "width": width,
        "channels": channels,
    }
    said = {name: text.format(**words) for name, text in SIGNATURES[kind].items()}
    return said if features else {name: text for name, text in said.items() if name != "features"}


def multiply_adds(
    spec: Mapping[str, Any] | None, input_shape: tuple[int, int, int], classes: int
) -> int | None:
    """Return what one image costs, where the net is one of the zoo's."""
    return count(Spec(**spec), input_shape, classes).multiply_adds if spec else None


def readme(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown, with a program that runs the export."""
    check, names = card["check"], card["class_names"]
    facts = [
        ("model", f"{card['net']}, {card['parameters']:,} parameters"),
        ("MACs", f"{card['multiply_adds']:,} per image" if card["multiply_adds"] else "unknown"),
        ("input", " x ".join(map(str, card["input_shape"])) + " (height, width, channels)"),
        (
            "classes",
            f"{card['classes']}: {', '.join(names[:10])}{', ...' if len(names) > 10 else ''}",
        ),
        (
            "format",
            f"{FORMATS[card['format']].title}, {card['precision']}, {card['bytes'] / 1e6:.1f} MB",
        ),
        *_origin(card),
        ("license", card["licence"]),
    ]
    return render_template(
        "card.md.j2",
        card=card,
        facts=facts,
        check=check,
        bounds=BOUNDS[card["precision"]],
        program=f"run_{card['format']}.py.j2",
        one_class=""
        if check["single_class"] is None
        else one_class_line(names[check["single_class"]]),
        numbers=lambda values: " ".join(f"{value:.4g}" for value in values),
    )


def _origin(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    if isinstance(recipe := card.get("recipe"), Mapping):
        rows.append(("recipe", f"{recipe['name']}, seed {recipe['train']['seed']}"))
    if isinstance(data := card.get("data"), Mapping):
        parts = ", ".join(f"{number:,} {name}" for name, number in data["examples"].items())
        rows.append(("data", f"{data['name']}: {parts}"))
    if isinstance(weights := card.get("weights"), Mapping):
        rows.append(("weights", f"{weights['model']} {weights['tag']}, {weights['source']}"))
    if isinstance(test := card.get("test"), Mapping):
        balanced = test.get("balanced_accuracy")  # absent in older records
        rest = f", balanced {100 * balanced:.2f} %" if balanced is not None else ""
        rows.append(
            ("test accuracy", f"{100 * test['top1']:.2f} %{rest}, n = {test['examples']:,}")
        )
    return rows
