"""Mutated image files through an export: crashes, wrong statuses, disturbed neighbors.

The files go to the signature `image_bytes`, to `reszoo serve-check`, or to its page in Chromium (which needs the `browser` extra).
The status of each file is known: by construction, or by decoding it alone and reading its size from the header. Files go in
batches with a valid one among them, whose answer must not change. The model runs in a process of its own, so that crashes are counted.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BATCH = 63
TOP = 5
LIMIT = 2**26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--through", choices=THROUGH, default="signature")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return counts of files, crashes and wrong answers."""
    from _shared import export_random

    lines: list[dict[str, Any]] = []
    crashes, batches = 0, -(-args.count // BATCH)
    with tempfile.TemporaryDirectory() as folder:
        export_random("resnet8", Path(folder) / "out", resize=36)
        while len(lines) + crashes < batches:
            words = [f"{folder}/out", args.through, len(lines) + crashes, args.seed, args.count]
            command = [sys.executable, __file__, *map(str, words)]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
                assert child.stdout
                for line in child.stdout:
                    lines.append(json.loads(line))
                    print(f"\r{len(lines)} of {batches} batches", end="", file=sys.stderr)
            crashes += bool(child.returncode)
    kinds: Counter[str] = Counter()
    for line in lines:
        kinds.update(line["kinds"])
    wrong = [one for line in lines for one in line["wrong"]]
    print("", *wrong[:20], sep="\n", file=sys.stderr)
    return {
        "files": sum(kinds.values()),
        "crashes": crashes,
        "wrong_statuses": len(wrong),
        "rows_not_as_their_status": sum(line["filled"] for line in lines),
        "disturbed_neighbours": sum(line["disturbed"] for line in lines),
        "resident_mb_by_tenths": [
            line["resident"] for line in lines[len(lines) // 10 - 1 :: max(1, len(lines) // 10)]
        ],
        "by_kind_and_status": dict(sorted(kinds.items())),
    }


def mutations(seed: int) -> Iterator[tuple[str, bytes, int | None]]:
    """Yield (kind, contents, status or None where decoding decides) without end."""
    rng = np.random.default_rng(seed)
    while True:
        kind = str(
            rng.choice(
                [
                    "sound",
                    "cut",
                    "bits",
                    "bytes",
                    "lengths",
                    "sides",
                    "noise",
                    "other format",
                    "glued",
                    "exif",
                ]
            )
        )
        form, contents = _sound(rng)
        data = bytearray(contents)
        if kind == "sound":
            yield kind, contents, 0
        elif kind == "cut":
            yield kind, contents[: int(rng.integers(0, len(contents)))], None
        elif kind == "bits":
            for at in rng.integers(0, len(data), int(rng.integers(1, 20))):
                data[at] ^= 1 << int(rng.integers(8))
            yield kind, bytes(data), None
        elif kind == "bytes":
            at, many = int(rng.integers(len(data))), int(rng.integers(1, 40))
            data[at : at + many * int(rng.integers(2))] = rng.bytes(int(rng.integers(0, 40)))
            yield kind, bytes(data), None
        elif kind == "lengths":  # of a JPEG's segments, or a PNG's chunks
            at = int(rng.integers(2, min(len(data), 300)))
            data[at : at + 2] = rng.bytes(2)
            yield kind, bytes(data), None
        elif kind == "sides":
            large = bool(rng.integers(2))
            sides = [int(rng.integers(*((9000, 60000) if large else (1, 70000)))) for _ in range(2)]
            if form == "PNG":
                data[16:24] = b"".join(side.to_bytes(4, "big") for side in sides)
            elif (at := _frame(contents)) > 0:
                data[at + 5 : at + 9] = b"".join(
                    min(side, 65500).to_bytes(2, "big") for side in sides
                )
            yield kind, bytes(data), 2 if large else None
        elif kind == "noise":
            head = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"][int(rng.integers(3))]
            yield kind, head + rng.bytes(int(rng.integers(0, 2000))), 1
        elif kind == "other format":
            file = io.BytesIO()
            _image(rng).convert("RGB").save(
                file, str(rng.choice(["GIF", "BMP", "WEBP", "TIFF", "PPM"]))
            )
            yield kind, file.getvalue(), 1
        elif kind == "glued":
            yield kind, contents + _sound(rng)[1], 0
        else:
            segment = (
                b"Exif\0\0"
                + (b"II*\0" if rng.integers(2) else b"MM\0*")
                + rng.bytes(int(rng.integers(0, 300)))
            )
            file = io.BytesIO()
            _image(rng).convert("RGB").save(file, "JPEG")
            jpeg = file.getvalue()
            yield (
                kind,
                jpeg[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + jpeg[2:],
                0,
            )


def _image(rng: np.random.Generator) -> Image.Image:
    height, width = (int(side) for side in rng.integers(1, 90, 2))
    coarse = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
    return coarse.resize((width, height), Image.Resampling.BILINEAR)


def _sound(rng: np.random.Generator) -> tuple[str, bytes]:
    file, image = io.BytesIO(), _image(rng)
    if rng.integers(2):
        mode = str(rng.choice(["RGB", "L", "CMYK"]))
        tag = Image.Exif()
        tag[0x0112] = int(rng.integers(0, 11))
        options = {
            "quality": int(rng.integers(1, 101)),
            "progressive": bool(rng.integers(2)),
            "exif": tag,
        }
        image.convert(mode).save(file, "JPEG", **options)
        return "JPEG", file.getvalue()
    image.convert(str(rng.choice(["RGB", "RGBA", "L", "LA", "P", "1", "I;16"]))).save(
        file, "PNG"
    ) if rng.integers(4) else image.save(file, "PNG", optimize=True)
    return "PNG", file.getvalue()


def _frame(jpeg: bytes) -> int:
    """Where a JPEG's frame header starts, walking its segments; -1 where none does."""
    at = 2
    while at + 9 < len(jpeg) and jpeg[at] == 0xFF:
        if jpeg[at + 1] in (0xC0, 0xC1, 0xC2):
            return at
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return -1


def decided(contents: bytes, tf: Any) -> int:
    """The status that decoding the file alone decides."""
    if contents[:16] == b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" and len(contents) >= 24:
        width, height = (int.from_bytes(contents[at : at + 4], "big") for at in (16, 20))
    elif contents[:3] == b"\xff\xd8\xff":
        try:
            height, width = tf.image.extract_jpeg_shape(contents).numpy()[:2]
        except tf.errors.InvalidArgumentError:
            return 1
    else:
        return 1
    if int(height) * int(width) > LIMIT:
        return 2
    try:
        tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
    except tf.errors.InvalidArgumentError:
        return 1
    return 0 if height * width else 1


Answer = tuple[list[int], np.ndarray]
"""Statuses, and probabilities [n, classes] or the best scores [n, k]."""


def by_signature(export: str) -> Iterator[Callable[[list[bytes]], Answer]]:
    import tensorflow as tf

    net = tf.saved_model.load(f"{export}/1")

    def ask(files: list[bytes]) -> Answer:
        answer = net.signatures["image_bytes"](image_bytes=tf.constant(files))
        return answer["status"].numpy().tolist(), answer["scores"].numpy()

    yield ask


def by_endpoint(export: str) -> Iterator[Callable[[list[bytes]], Answer]]:
    from reszoo.serving.server import Server

    with Server(export) as server:

        def ask(files: list[bytes]) -> Answer:
            rows = [{"b64": base64.b64encode(one).decode()} for one in files]
            body = json.dumps({"signature_name": "image_bytes", "instances": rows}).encode()
            with urllib.request.urlopen(f"{server.model_url}:predict", body) as answer:
                said = json.load(answer)["predictions"]
            return [row["status"] for row in said], np.array([row["scores"] for row in said])

        yield ask


def by_page(export: str) -> Iterator[Callable[[list[bytes]], Answer]]:
    from playwright.sync_api import sync_playwright

    from reszoo.serving.server import Server

    told = {"Could not be decoded": 1, "Too large": 2}
    flags = [
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-component-update",
    ]
    with Server(export) as server, sync_playwright() as driver:
        page = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=flags
        ).new_page()

        def ask(files: list[bytes]) -> Answer:
            page.goto(f"{server.url}/")
            page.wait_for_selector("#about:not([hidden])")
            given = [
                {"name": f"{at}.png", "mimeType": "image/png", "buffer": one}
                for at, one in enumerate(files)
            ]
            page.set_input_files("#files", given)
            page.get_by_text(f"{len(files)} images classified.").wait_for(timeout=300_000)
            rows = page.evaluate(
                """() => [...document.querySelectorAll("#answers > li")].reverse().map(item => ({
                bad: item.querySelector(".bad")?.textContent ?? "",
                scores: [...item.querySelectorAll(".bar")].map(bar => parseFloat(bar.style.width) / 100)}))"""
            )
            status = [
                told.get(row["bad"].partition(":")[0], 9) if row["bad"] else 0 for row in rows
            ]
            return status, np.array([row["scores"] or [0.0] * TOP for row in rows])

        yield ask


THROUGH = {"signature": by_signature, "endpoint": by_endpoint, "page": by_page}


def resident() -> int:
    """Megabytes of memory that the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20


def serve(export: str, through: str, start: int, seed: int, count: int) -> None:
    """Ask the model in this process from batch `start` on; print one JSON line per batch."""
    import tensorflow as tf

    file = io.BytesIO()
    _image(np.random.default_rng(99)).save(file, "PNG")
    good = file.getvalue()
    alone = None
    stream = mutations(seed)
    asking = THROUGH[through](export)
    ask = next(asking)
    for batch in range(-(-count // BATCH)):
        some = [next(stream) for _ in range(min(BATCH, count - batch * BATCH))]
        if batch < start:
            continue
        place = batch % (len(some) + 1)
        contents = [one for _, one, _ in some]
        status, rows = ask([*contents[:place], good, *contents[place:]])
        sentinel = rows[place].copy()
        alone = sentinel if alone is None else alone
        disturbed = int(
            status.pop(place) != 0 or not np.allclose(sentinel, alone, atol=1e-6, rtol=0)
        )
        rows = np.delete(rows, place, axis=0)
        wrong, filled, kinds = [], 0, Counter()
        for (kind, one, told), own, row in zip(some, status, rows, strict=True):
            wanted = decided(one, tf) if told is None else told
            kinds[f"{kind}/{own}"] += 1
            if own != wanted:
                wrong.append([kind, own, wanted, one[:64].hex()])
            filled += bool(own != 0 and row.any()) or bool(
                own == 0 and not 0.5 < row.sum() <= 1 + 1e-4
            )
        line = {
            "wrong": wrong,
            "filled": filled,
            "disturbed": disturbed,
            "kinds": kinds,
            "resident": resident(),
        }
        print(json.dumps(line), flush=True)
    asking.close()


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
