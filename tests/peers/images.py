"""From image files to logits, ours against PIL, torchvision's transforms and PyTorch. As a program, the record in docs/results:

    python -m tests.peers.images --peer PYTHON --data DIR --out docs/results/weights/images.json

DIR holds photos-100.tar, cifar10-png.tar.xz and akamaster/ (`RESZOO_TEST_DATA`).
"""

from __future__ import annotations

import argparse
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from reszoo import build, spec
from reszoo.images.preprocessing import Preprocessing
from reszoo.weights.checkpoint import read_arrays
from reszoo.weights.convert import assign
from reszoo.weights.published import find_weights

from .parity import Peer, Row

# A net and whose transforms: the usual bilinear crop, one from a larger side, and a bicubic one.
PHOTOGRAPHS = (
    ("resnet18", "torchvision/IMAGENET1K_V1"),
    ("resnet50", "torchvision/IMAGENET1K_V2"),
    ("resnet50", "timm/a1_in1k"),
)


def unpacked(archive: Path, folder: Path, part: str = "") -> list[Path]:
    """Unpack an archive, or what lies in its folder `part`, and return the image files, sorted."""
    with tarfile.open(archive) as tar:
        members = [member for member in tar if not part or part in Path(member.name).parts]
        tar.extractall(folder, members, filter="data")
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")
    )


def measure(
    row: Row, model: Any, preprocessing: Preprocessing, peer: Peer, weights: Path, files: list[Path]
) -> dict[str, Any]:
    """Score image files on both sides and return how inputs, logits and answers differ."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as scratch:
        record = {key: value for key, value in preprocessing.to_dict().items() if key != "channels"}
        peer.ask(
            "score",
            row,
            Path(scratch),
            weights=str(weights),
            files=list(map(str, files)),
            transforms=record,
        )
        theirs = np.load(Path(scratch) / "scores.npz")
        paths = tf.data.Dataset.from_tensor_slices(list(map(str, files)))
        read = paths.map(
            lambda path: preprocessing.from_bytes(tf.io.read_file(path)), num_parallel_calls=2
        )
        inputs = np.stack(list(read.as_numpy_iterator()))
        answer = tf.function(lambda images: model(images, training=False))
        logits = np.concatenate(
            [answer(inputs[i : i + 50]).numpy() for i in range(0, len(inputs), 50)]
        )
    levels = np.abs(inputs - theirs["inputs"]) * np.array(preprocessing.std) * 255
    return {
        "images": len(files),
        "pixels_differing_percent": round(100 * float((levels > 0.5).mean()), 4),
        "largest_pixel_difference": round(float(levels.max())),
        "logits": float(np.abs(logits - theirs["logits"]).max() / np.abs(theirs["logits"]).max()),
        "logits_mean": float(
            np.abs(logits - theirs["logits"]).mean() / np.abs(theirs["logits"]).max()
        ),
        "other_answers": int((logits.argmax(1) != theirs["logits"].argmax(1)).sum()),
        "answers": logits.argmax(1),
    }


def photographs(net: str, tag: str, peer: Peer, files: list[Path]) -> dict[str, Any]:
    """Compare on photographs, with random weights, as some published weights prepare them."""
    row = Row(spec(net).name, "torchvision", net, (224, 97))
    transforms = find_weights(spec(net), tag).transforms
    with tempfile.TemporaryDirectory() as scratch:
        peer.ask("make", row, Path(scratch))
        file = Path(scratch) / "net.safetensors"
        model = build(net, input_shape=(None, None, 3))
        assert assign(model, spec(net), read_arrays(file)).complete
        found = measure(row, model, transforms, peer, file, files)
    del found["answers"]
    return {"model": net, "weights": "random", "transforms": tag} | found


def published(depth: int, peer: Peer, weights: Path, files: list[Path]) -> dict[str, Any]:
    """Compare akamaster's published CIFAR-10 weights on class folders of test images, and score both."""
    row = Row(f"resnet{depth}", "akamaster", str(depth), (32, 27))
    with tempfile.TemporaryDirectory() as scratch:
        # PyTorch's own format is PyTorch's to read; what it writes for us is the same tensors.
        file = Path(scratch) / "net.safetensors"
        peer.ask("resave", row, Path(scratch), weights=str(weights))
        model = build(row.model)
        assert assign(model, spec(row.model), read_arrays(file)).complete
    preprocessing = find_weights(spec(row.model), "akamaster").transforms
    found = measure(row, model, preprocessing, peer, weights, files)
    names = sorted({file.parent.name for file in files})
    labels = np.array([names.index(file.parent.name) for file in files])
    accuracy = 100 * float((found.pop("answers") == labels).mean())
    return {
        "model": row.model,
        "weights": weights.name,
        "transforms": "akamaster",
        "accuracy": round(accuracy, 2),
    } | found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", required=True, help="the other environment's Python")
    parser.add_argument("--data", required=True, type=Path, help="folder of the data at hand")
    parser.add_argument("--out", type=Path, required=True, help="where to write the record")
    args = parser.parse_args()
    peer, rows = Peer(args.peer), []
    with tempfile.TemporaryDirectory() as scratch:
        photos = unpacked(args.data / "photos-100.tar", Path(scratch) / "photos")
        for net, tag in PHOTOGRAPHS:
            rows.append(photographs(net, tag, peer, photos))
            print(rows[-1], flush=True)
        cifar = unpacked(args.data / "cifar10-png.tar.xz", Path(scratch) / "cifar", "test")
        for depth in (20, 56):
            (weights,) = (args.data / "akamaster").glob(f"resnet{depth}-*.th")
            rows.append(published(depth, peer, weights, cifar))
            print(rows[-1], flush=True)
    peer.close()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n    ".join(map(json.dumps, rows))
    how = "python -m tests.peers.images --peer PYTHON --data DIR --out FILE"
    args.out.write_text(f'{{\n  "how": "{how}",\n  "rows": [\n    {lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
