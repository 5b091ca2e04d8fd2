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
    "onnx": {"": "images float32 [n, {height}, {width}, {channels}], pixels 0..255 -> probabilities, logits"},
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


def signatures(kind: str, precision: str, input_shape: tuple[int, int, int], *, features: bool) -> dict[str, str]:
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


def multiply_adds(spec: Mapping[str, Any] | None, input_shape: tuple[int, int, int], classes: int) -> int | None:
    """Return what one image costs, where the net is one of the zoo's."""
    return count(Spec(**spec), input_shape, classes).multiply_adds if spec else None


def readme(card: Mapping[str, Any]) -> str:
    """Return the card as Markdown, with a program that runs the export."""
    check, made = card["check"], card["exported_with"]
    facts = [
        ("net", f"{card['net']}, {card['parameters']:,} parameters"),
        ("multiply-adds", f"{card['multiply_adds']:,} an image" if card["multiply_adds"] else "not known"),
        ("input", " x ".join(map(str, card["input_shape"])) + " (height, width, channels)"),
        ("classes", f"{card['classes']}: {_some(card['class_names'])}"),
        ("format", f"{FORMATS[card['format']].title}, {card['precision']}, {card['bytes'] / 1e6:.1f} MB"),
        *_origin(card),
        ("licence", card["licence"]),
    ]
    rows = "".join(f"| {name} | {_cell(value)} |\n" for name, value in facts)
    asked = "".join(
        f"| {f'`{name}`' if name else '(the only one)'} | {text} |\n" for name, text in card["signatures"].items()
    )
    speeds = ", ".join(f"{speed:,.1f} images/s {_batch(rows)}" for rows, speed in check["speed"].items())
    difference, agreement = BOUNDS[card["precision"]]
    measured = [
        f"- largest difference of a logit {check['logit_difference']:.2g}, of a probability {check['probability_difference']:.2g}"
        + (f" (bound {difference:g})" if difference < 1 else ""),
        f"- the same first class for {100 * check['agreement']:.2f} % (bound {100 * agreement:g} %)",
    ]
    if check["accuracy"] is not None:
        measured.append(
            f"- accuracy {100 * check['accuracy']:.2f} %, the Keras model's {100 * check['keras_accuracy']:.2f} %"
        )
        measured.append(f"- balanced accuracy (mean of the classes) {100 * check['balanced_accuracy']:.2f} %")
    if check["single_class"] is not None:
        measured.append(f"- {_cell(one_class_line(card['class_names'][check['single_class']]))}")
    norms = card["normalisations"]
    folded = f"{norms['folded']} batch normalisations folded into convolutions, {norms['kept']} kept."
    host = card["machine"]
    return f"""# {_cell(card["name"])}

|  |  |
|---|---|
{rows}
## To run it

```python
{program(card)}```

| signature | takes and gives |
|---|---|
{asked}
Images are prepared so: {_prepared(card["preprocessing"])}

## Checked

Loaded in its own runtime in a fresh process and compared with the Keras model on {check["images"]} images ({_cell(check["what"])}):

{chr(10).join(measured)}

{folded}

Speed on {host["processor"]}, {host["cores"]} cores: {speeds}.

Made with {", ".join(f"{name} {version}" for name, version in made.items())}. `card.json` holds all of this and more.
"""


def program(card: Mapping[str, Any]) -> str:
    """Return a Python program that classifies the files it is given, with the export's runtime and Pillow alone."""
    return SAVEDMODEL if card["format"] == "savedmodel" else _reading(card) + RUN[card["format"]]


SAVEDMODEL = """import sys
import tensorflow as tf

net = tf.saved_model.load("1")  # keep `net`: its signatures do not hold its variables
files = [tf.io.read_file(path) for path in sys.argv[1:]]
out = net.signatures["image_bytes"](image_bytes=tf.stack(files))
for path, status, labels, scores in zip(sys.argv[1:], out["status"], out["labels"], out["scores"]):
    print(path, f"no answer, status {status}" if status else f"{labels[0].numpy().decode()} {scores[0]:.3f}")
"""

RUN = {
    "litert": """
from ai_edge_litert.interpreter import Interpreter

runner = Interpreter("model.tflite", num_threads=os.cpu_count()).get_signature_runner("serving_default")
out = runner(images=images.astype(runner.get_input_details()["images"]["dtype"]))
for path, row in zip(sys.argv[1:], out["probabilities"]):
    print(path, names[row.argmax()], f"{row.max():.3f}")
""",
    "onnx": """
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
(rows,) = session.run(["probabilities"], {"images": images.astype(np.float32)})
for path, row in zip(sys.argv[1:], rows):
    print(path, names[row.argmax()], f"{row.max():.3f}")
""",
}


def _reading(card: Mapping[str, Any]) -> str:
    height, width, channels = card["input_shape"]
    resize = card["preprocessing"]["resize"]
    mode, kernel = "RGB" if channels == 3 else "L", card["preprocessing"]["interpolation"].upper()
    if resize:
        steps = f"""    size = [side * {resize} // min(image.size) for side in image.size]
    image = image.resize(size, Image.Resampling.{kernel})
    left, top = round((size[0] - {width}) / 2), round((size[1] - {height}) / 2)
    image = image.crop((left, top, left + {width}, top + {height}))
"""
    else:
        steps = f"    image = image.resize(({width}, {height}), Image.Resampling.{kernel})\n"
    return f"""import os
import sys
import numpy as np
from PIL import Image, ImageOps


def read(path):
    image = ImageOps.exif_transpose(Image.open(path)).convert("{mode}")
{steps}    return np.asarray(image).reshape({height}, {width}, {channels})


names = open("class_names.txt", encoding="utf-8").read().splitlines()
images = np.stack([read(path) for path in sys.argv[1:]])
"""


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
        rows.append(("test accuracy", f"{100 * test['top1']:.2f} %{rest}, n = {test['examples']:,}"))
    return rows


def _prepared(values: Mapping[str, Any]) -> str:
    height, width = values["image_size"]
    how = (
        f"the shorter side to {values['resize']} and the middle {height} x {width} cut out"
        if values["resize"]
        else f"to {height} x {width}"
    )
    mean = (
        "the mean image subtracted"
        if isinstance(values["mean"], Mapping)
        else f"mean {_numbers(values['mean'])} subtracted"
    )
    return (
        f"turned as their EXIF tag says, resized {how} ({values['interpolation']}, antialiased), divided by 255, {mean}, divided by "
        f"{_numbers(values['std'])}, channels in the order {values['channel_order'] if values['channels'] == 3 else 'grey'}. "
        "What comes after resizing is in the net's graph."
    )


def _numbers(values: Any) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _batch(rows: str) -> str:
    return "one at a time" if rows == "1" else f"in batches of {rows}"


def _cell(text: Any) -> str:
    """Return text that neither ends a table's cell nor starts markup of its own."""
    return str(text).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
