"""Several clients at once on `reszoo serve-check`: requests, errors, wrong answers, memory.

The server is the command in its own process; the clients are threads of this one, each with a connection that stays open. They ask
in turns for the class of one image, for eight files of which two are not images, for float images, and with a wrong body, which
must be answered with 400. Every answer is compared with the first one to the same request.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from _shared import export_random
from PIL import Image


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--net", default="resnet20")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Return counts, latencies and memory."""
    bodies, first = requests(), {}
    with tempfile.TemporaryDirectory() as folder:
        export_random(args.net, Path(folder) / "net")
        command = [sys.executable, "-m", "reszoo", "serve-check", f"{folder}/net", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            page = [process.stdout.readline() for _ in range(4)][1]
            host, path = page.split("http://")[1].strip().rstrip("/"), "/v1/models/net:predict"
            for name, body in bodies.items():
                connection = http.client.HTTPConnection(host)
                connection.request("POST", path, body)
                first[name] = json.loads(connection.getresponse().read())
                connection.close()
            until = time.monotonic() + args.seconds
            clients = [
                Client(host, path, bodies, first, until, start) for start in range(args.clients)
            ]
            for client in clients:
                client.start()
            memory = []
            while time.monotonic() < until:
                time.sleep(args.seconds / 60)
                memory.append(resident(process.pid))
            for client in clients:
                client.join()
            process.terminate()
            ended = process.wait()
    seconds = {
        name: sorted(one for client in clients for one in client.seconds[name]) for name in bodies
    }
    errors = [error for client in clients for error in client.errors]
    return {
        "requests": sum(map(len, seconds.values())),
        "errors": len(errors),
        "examples_of_errors": errors[:5],
        "exit_status_after_sigterm": ended,
        "milliseconds": {
            name: {"requests": len(all_), "median": round(1e3 * statistics.median(all_), 1),
                   "99th": round(1e3 * all_[int(0.99 * len(all_))], 1)}
            for name, all_ in seconds.items()
        },
        "resident_mb_by_sixths": [round(statistics.mean(memory[at : at + 10])) for at in range(0, 60, 10)],
    }  # fmt: skip


def requests() -> dict[str, bytes]:
    """Return the bodies by name."""
    rng = np.random.default_rng(0)
    files = []
    for number in range(6):
        file = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        coarse.resize((640, 480), Image.Resampling.BILINEAR).save(
            file, "JPEG" if number % 2 else "PNG"
        )
        files.append(file.getvalue())
    several = [
        {"b64": base64.b64encode(one).decode()} for one in [*files, b"no picture", files[0][:500]]
    ]
    floats = np.round(rng.uniform(0, 255, (2, 40, 40, 3))).tolist()
    return {
        "one picture": json.dumps(
            {"signature_name": "image_bytes", "instances": several[:1]}
        ).encode(),
        "eight files": json.dumps({"signature_name": "image_bytes", "instances": several}).encode(),
        "float images": json.dumps({"instances": floats}).encode(),
        "wrong": json.dumps({"instances": [1]}).encode(),
    }


def same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal, numbers within 1e-4."""
    if isinstance(left, float):
        return abs(left - right) <= 1e-4
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


class Client(threading.Thread):
    """One client; `seconds` and `errors` are its results."""

    def __init__(
        self,
        host: str,
        path: str,
        bodies: dict[str, bytes],
        first: dict[str, Any],
        until: float,
        start: int,
    ):
        super().__init__()
        self.host, self.path, self.bodies, self.first, self.until, self.turn = (
            host,
            path,
            bodies,
            first,
            until,
            start,
        )
        self.seconds: dict[str, list[float]] = {name: [] for name in bodies}
        self.errors: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        names = list(self.bodies)
        while time.monotonic() < self.until:
            name = names[self.turn % len(names)]
            self.turn += 1
            start = time.perf_counter()
            try:
                connection.request("POST", self.path, self.bodies[name])
                answer = connection.getresponse()
                said = json.loads(answer.read())
                if answer.status != (400 if name == "wrong" else 200) or not same(
                    said, self.first[name]
                ):
                    self.errors.append(f"{name}: {answer.status} {said}"[:200])
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.errors.append(f"{name}: {error!r}")
                connection.close()
            self.seconds[name].append(time.perf_counter() - start)
        connection.close()


def resident(pid: int) -> int:
    """Return the megabytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) >> 10
