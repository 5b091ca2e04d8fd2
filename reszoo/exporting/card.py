"""The card of an export: card.json for programs and README.md for people, both from records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import keras

from reszoo.evaluation.scores import one_class_line
from reszoo.exporting.fold import Folded
from reszoo.exporting.formats import FORMATS, Artifact, Format
from reszoo.exporting.parity import BOUNDS, Check
from reszoo.exporting.savedmodel import find_features
from reszoo.machine import describe_machine
from reszoo.reporting.template import render_template
from reszoo.types import JsonObject
from reszoo.versions import module_versions
from reszoo.zoo.count import count
from reszoo.zoo.spec import Spec

SIGNATURES = {
    "savedmodel": {
        "serving_default": "images float32 [n, h, w, c], pixels 0..255 of any size -> "
        "probabilities, logits",
        "image_bytes": "image_bytes string [n], JPEG or PNG files -> probabilities, labels, "
        "scores, status (0: answered, 1: cannot be decoded, 2: too large)",
        "features": "images as serving_default -> features, what the classifier reads",
    },
    "litert": {"serving_default": "images {}, pixels 0..255 -> probabilities, logits"},
    "onnx": {"": "images {}, pixels 0..255 -> probabilities, logits"},
}
SEVERAL = "one for each class, because an image may have several; a class is found above 0.5"


def make_card(
    model: keras.Model,
    artifact: Artifact,
    format: Format,
    folded: Folded,
    check: Check,
    *,
    size: int,
    details: JsonObject,
) -> JsonObject:
    """Return the content of card.json.

    Args:
        model: The Keras model before folding.
        artifact: What was written.
        format: The format.
        folded: Which batch norms were folded.
        check: How it compares with Keras.
        size: Bytes of the written model.
        details: Where the model comes from: `name`, and if known `spec`, `weights`, `data`,
            `recipe`, `versions` and `test`.
    """
    preprocessing = artifact.preprocessing
    weights, spec = details.get("weights"), details.get("spec")
    classes = len(artifact.class_names)
    pixels = f"{'uint8' if artifact.precision == 'int8' else 'float32'} [n, {{}}, {{}}, {{}}]"
    pixels = pixels.format(*preprocessing.input_shape)
    has_features = find_features(model) is not None
    # By name: Keras does not count the weights of frozen layers as trainable.
    trained = (
        weight
        for weight in model.weights
        if not weight.name.startswith("moving_") and weight.name != "seed_generator_state"
    )
    macs = count(Spec(**spec), preprocessing.input_shape, classes).macs if spec else None
    versions = module_versions("reszoo", "tensorflow", "keras", *format.needs)
    return {
        "name": details.get("name") or model.name,
        "model": model.name,
        "parameters": sum(math.prod(weight.shape) for weight in trained),
        "macs": macs,
        "input_shape": list(preprocessing.input_shape),
        "classes": classes,
        "class_names": list(artifact.class_names),
        "multi_label": artifact.multi_label,
        "preprocessing": preprocessing.to_dict(),
        "batch_norms": {"folded": len(folded.removed), "kept": len(folded.kept)},
        "license": weights["license"] if isinstance(weights, Mapping) else "not specified",
        **{key: value for key, value in details.items() if key != "name"},
        "format": format.name,
        "precision": artifact.precision,
        "signatures": {
            name: text.format(pixels)
            for name, text in SIGNATURES[format.name].items()
            if name != "features" or has_features
        },
        "bytes": size,
        "check": check.to_dict(),
        "machine": describe_machine(),
        "exported_with": {name.replace("_", "-"): version for name, version in versions.items()},
    }


def describe_class(check: Check, class_names: Sequence[str]) -> str:
    """Return a line if the export gave all images one class although their labels differ."""
    single = check.single_class
    return "" if single is None else one_class_line(class_names[single])


def make_readme(card: JsonObject, one_class: str) -> str:
    """Return the card as Markdown, with a program that runs the export."""
    names, macs = card["class_names"], card["macs"]
    more = ", ..." if len(names) > 10 else ""
    title, megabytes = FORMATS[card["format"]].title, card["bytes"] / 1e6
    facts = [
        ("model", f"{card['model']}, {card['parameters']:,} parameters"),
        ("MACs", f"{macs:,} per image" if macs else "unknown"),
        ("input", " x ".join(map(str, card["input_shape"])) + " (height, width, channels)"),
        ("classes", f"{card['classes']}: {', '.join(names[:10])}{more}"),
        *([("probabilities", SEVERAL)] if card["multi_label"] else []),
        ("format", f"{title}, {card['precision']}, {megabytes:.1f} MB"),
        *_describe_origin(card),
        ("license", card["license"]),
    ]
    return render_template(
        "card.md.j2",
        card=card,
        facts=facts,
        check=card["check"],
        bounds=BOUNDS[card["precision"]],
        program=f"run_{card['format']}.py.j2",
        one_class=one_class,
        numbers=lambda values: " ".join(f"{value:.4g}" for value in values),
    )


def _describe_origin(card: JsonObject) -> Iterator[tuple[str, str]]:
    if recipe := card.get("recipe"):
        yield "recipe", f"{recipe['name']}, seed {recipe['train']['seed']}"
    if data := card.get("data"):
        splits = ", ".join(f"{number:,} {name}" for name, number in data["examples"].items())
        yield "data", f"{data['name']}: {splits}"
    if isinstance(weights := card.get("weights"), Mapping):
        yield "weights", f"{weights['model']} {weights['tag']}, {weights['source']}"
    if test := card.get("test"):
        names = {"balanced": "balanced_accuracy", "macro F1": "macro_f1"}
        names |= {"mAP": "mean_average_precision", "calibration error": "calibration_error"}
        values = {name: test.get(key) for name, key in names.items()}  # absent in older records
        rest = "".join(f", {name} {100 * v:.2f} %" for name, v in values.items() if v is not None)
        accuracy = test["subset_accuracy"] if test.get("multi_label") else test["top1"]
        yield "test accuracy", f"{100 * accuracy:.2f} %{rest}, n = {test['examples']:,}"
