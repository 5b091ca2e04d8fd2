"""Clients at once on `reszoo serve-check` for a while: requests, errors, wrong answers, memory.

    python tests/bench/load.py OUT.json [--seconds 60] [--clients 8] [--net resnet20]

The endpoint is the command's own process; the clients are threads of this one, each with a connection that stays open. They ask, by
turns, for one picture's class, for eight files' of which two are none, for float images, and wrongly, which must be refused with 400. Every
answer is compared with the first one to the same request.
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
from PIL import Image

from reszoo.versions import module_versions


def requests() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = []
    for number in range(6):
        file = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
        coarse.resize((640, 480), Image.Resampling.BILINEAR).save(file, "JPEG" if number % 2 else "PNG")
        files.append(file.getvalue())
    several = [{"b64": base64.b64encode(one).decode()} for one in [*files, b"no picture", files[0][:500]]]
    floats = np.round(rng.uniform(0, 255, (2, 40, 40, 3))).tolist()
    return {
        "one picture": json.dumps({"signature_name": "image_bytes", "instances": several[:1]}).encode(),
        "eight files": json.dumps({"signature_name": "image_bytes", "instances": several}).encode(),
        "float images": json.dumps({"instances": floats}).encode(),
        "wrong": json.dumps({"instances": [1]}).encode(),
    }


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float):
        return abs(left - right) <= 1e-4
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


class Client(threading.Thread):
    def __init__(self, host: str, path: str, bodies: dict[str, bytes], first: dict[str, Any], until: float, start: int):
        super().__init__()
        self.host, self.path, self.bodies, self.first, self.until, self.turn = host, path, bodies, first, until, start
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
                if answer.status != (400 if name == "wrong" else 200) or not same(said, self.first[name]):
                    self.errors.append(f"{name}: {answer.status} {said}"[:200])
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.errors.append(f"{name}: {error!r}")
                connection.close()
            self.seconds[name].append(time.perf_counter() - start)
        connection.close()


def resident(pid: int) -> int:
    """Megabytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) >> 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--net", default="resnet20")
    args = parser.parse_args()
    import reszoo
    from reszoo.data.preprocessing import Preprocessing
    from reszoo.exporting.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        net = reszoo.build(args.net)
        half = np.full(3, 0.5, np.float32)
        size = tuple(net.input_shape[1:3])
        prepared = Preprocessing(image_size=size, channels=3, resize=min(size), mean=half, std=half)
        names = tuple(map(str, range(net.output_shape[-1])))
        export_model(net, f"{folder}/net", preprocessing=prepared, class_names=names)
        command = [sys.executable, "-m", "reszoo", "serve-check", f"{folder}/net", "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            page = [process.stdout.readline() for _ in range(4)][1]
            host = page.split("http://")[1].strip().rstrip("/")
            path, bodies, first = "/v1/models/net:predict", requests(), {}
            for name, body in bodies.items():
                connection = http.client.HTTPConnection(host)
                connection.request("POST", path, body)
                first[name] = json.loads(connection.getresponse().read())
                connection.close()
            until = time.monotonic() + args.seconds
            clients = [Client(host, path, bodies, first, until, start) for start in range(args.clients)]
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
    seconds = {name: sorted(one for client in clients for one in client.seconds[name]) for name in bodies}
    errors = [error for client in clients for error in client.errors]
    record = {
        "command": f"python tests/bench/load.py OUT.json --seconds {args.seconds:g} --clients {args.clients} --net {args.net}",
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
        "versions": module_versions("tensorflow", "numpy"),
    }  # fmt: skip
    args.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
