"""Checks of this machine: versions, devices, processor, folders, memory, disk space and network.

Nothing here imports TensorFlow: `check_tensorflow` loads it in a process of its own, so that a
crash is reported too.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from reszoo.errors import ReszooError
from reszoo.files import expand_user
from reszoo.machine import describe_machine

SITES = {
    "huggingface.co": "https://huggingface.co",
    "download.pytorch.org": "https://download.pytorch.org",
    "storage.googleapis.com": "https://storage.googleapis.com",
}
NETWORK_SECONDS = 3.0
TENSORFLOW_SECONDS = 180.0
SIZE_SECONDS = 1.0  # of counting the bytes of a cache folder
FREE_SPACE, MEMORY = 5e9, 4e9  # bytes below which a line of advice is printed
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
CPUINFO, MEMINFO = Path("/proc/cpuinfo"), Path("/proc/meminfo")
MEMORY_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)

PROGRAM = """
import json
import reszoo  # sets what TensorFlow reads when it loads
import tensorflow as tf
import keras
import numpy
gpus = tf.config.list_physical_devices("GPU")
details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
names = [each.get("device_name", gpu.name) for gpu, each in zip(gpus, details)]
versions = {module.__name__: module.__version__ for module in (reszoo, tf, keras, numpy)}
print("\\n" + json.dumps({"versions": versions, "gpus": names}))
"""


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: What was checked.
        status: "failed" makes training impossible; "warning" may make it slow, or stop later.
        value: What was found.
        advice: One line on what to do; "" if nothing.
    """

    name: str
    status: Literal["ok", "warning", "failed"]
    value: str
    advice: str = ""

    def to_dict(self) -> dict[str, str]:
        """Return a JSON-able dict."""
        return asdict(self)


def examine(environ: Mapping[str, str]) -> list[Check]:
    """Return all checks."""
    return [
        check_python(sys.version_info[:2]),
        check_backend(environ),
        *check_tensorflow(),
        check_processor(CPUINFO, environ),
        check_memory(),
        *check_folders(environ),
        check_network(SITES, environ),
        check_extras(),
    ]


def check_python(found: tuple[int, ...]) -> Check:
    """Check the version of Python."""
    value = f"{platform.python_version()}, {platform.platform()}"
    if (3, 11) <= found < (3, 14):
        return Check("python", "ok", value)
    return Check("python", "failed", value, "Install Python 3.11, 3.12 or 3.13.")


def check_backend(environ: Mapping[str, str]) -> Check:
    """Check the backend of Keras."""
    found = environ.get("KERAS_BACKEND") or "tensorflow"
    if found == "tensorflow":
        return Check("keras backend", "ok", found)
    return Check(
        "keras backend", "failed", found, "Training needs TensorFlow: unset KERAS_BACKEND."
    )


def check_tensorflow(program: str = PROGRAM) -> list[Check]:
    """Load TensorFlow in another process, and check that it loads and which devices it finds."""
    if find_spec("tensorflow") is None:
        advice = "pip install tensorflow, or reszoo[gpu] for NVIDIA GPUs."
        return [Check("tensorflow", "failed", "not installed", advice)]
    started = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=TENSORFLOW_SECONDS,
            env=os.environ | {"KERAS_BACKEND": "tensorflow"},
        )
    except subprocess.TimeoutExpired:
        advice = "The disk or the machine is slow or overloaded; try again."
        return [Check("tensorflow", "failed", f"not loaded in {TENSORFLOW_SECONDS:.0f} s", advice)]
    seconds = time.monotonic() - started
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1][:200]
        advice = "Install the tested versions: pip install -c constraints.txt reszoo."
        if done.returncode < 0:
            last = f"ended by signal {-done.returncode}"
            advice = "The processor lacks AVX, or a library is damaged: reinstall tensorflow."
        return [Check("tensorflow", "failed", last, advice)]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    loaded = Check("tensorflow", "ok", f"{versions}; loads in {seconds:.1f} s")
    gpus = found["gpus"]
    if not gpus and NVIDIA_DRIVER.is_file():
        advice = "pip install 'reszoo[gpu]'; in Docker add --gpus all."
        value = "NVIDIA's driver is loaded, but TensorFlow finds no GPU"
        return [loaded, Check("devices", "warning", value, advice)]
    return [loaded, Check("devices", "ok", ", ".join(gpus) or "CPU; no GPU")]


def check_processor(cpuinfo: Path, environ: Mapping[str, str]) -> Check:
    """Check the processor: its vector units, oneDNN and bfloat16."""
    machine = describe_machine()
    flags: set[str] = set()
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        flags = set(next((x for x in lines if x.startswith(("flags", "Features"))), "").split())
    units = [
        name for name in ("avx", "avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags
    ]
    is_fast = flags & {"avx512_bf16", "amx_bf16"}
    has_onednn = environ.get("TF_ENABLE_ONEDNN_OPTS", "1") != "0"
    parts = [
        f"{machine['processor']}, {machine['cores']} cores",
        " ".join(units) or "vector units unknown",
        f"bfloat16 {'in hardware' if is_fast else 'emulated'}",
        f"oneDNN {'on' if has_onednn else 'off'}",
    ]
    value = "; ".join(parts)
    if "avx" not in flags and platform.machine() in ("x86_64", "AMD64") and flags:
        advice = "TensorFlow's packages need AVX: use another machine."
        return Check("processor", "failed", value, advice)
    if not has_onednn:
        advice = "oneDNN about doubles the speed: unset TF_ENABLE_ONEDNN_OPTS."
        return Check("processor", "warning", value, advice)
    return Check("processor", "ok", value)


def check_memory() -> Check:
    """Check the memory that this process may use, also in a container."""
    sizes = []
    if MEMINFO.is_file():
        lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines() if ":" in line)
        sizes.append(1024 * int(lines["MemTotal"].split()[0]))
    for path in MEMORY_LIMITS:
        if path.is_file() and (text := path.read_text().strip()).isdecimal():
            sizes.append(int(text))
    if not sizes:
        return Check("memory", "ok", "unknown")
    value = f"{min(sizes) / 1e9:.1f} GB"
    if min(sizes) < MEMORY:
        advice = "Use small models and batches, data.on_device=false, or more memory."
        return Check("memory", "warning", value, advice)
    return Check("memory", "ok", value)


def check_folders(environ: Mapping[str, str]) -> list[Check]:
    """Check the caches and the working folder: whether they can be written, size, free space."""
    caches = {
        "RESZOO_DATA": environ.get("RESZOO_DATA") or "~/.cache/reszoo/data",
        "RESZOO_HOME": environ.get("RESZOO_HOME") or "~/.cache/reszoo",
        "HF_HOME": environ.get("HF_HOME") or "~/.cache/huggingface",
    }
    found = [_check_folder(f"cache {name}", path, name) for name, path in caches.items()]
    return [*found, _check_folder("working folder", os.getcwd(), "--run-dir")]


def _check_folder(name: str, path: str, setting: str) -> Check:
    try:
        folder = expand_user(path).absolute()
    except ReszooError as error:
        return Check(name, "warning", path, f"Set HOME or {setting}: {error}"[:200])
    existing = folder
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    size = f"{_size(folder)}, " if folder != Path.cwd() and folder.is_dir() else ""
    value = f"{folder}: {size}{free / 1e9:.1f} GB free"
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        return Check(
            name, "warning", f"{value}, not writable", f"Give a writable folder: {setting}."
        )
    if free < FREE_SPACE:
        return Check(name, "warning", value, f"Free some space, or use another disk: {setting}.")
    return Check(name, "ok", value)


def _size(folder: Path) -> str:
    """Return the size of the files in a folder, or a lower bound if counting takes long."""
    total, end = 0, time.monotonic() + SIZE_SECONDS
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            total += path.lstat().st_size if os.path.lexists(path) else 0
        if time.monotonic() > end:
            return f"more than {total / 1e6:,.0f} MB"
    return f"{total / 1e6:,.0f} MB"


def check_network(sites: Mapping[str, str], environ: Mapping[str, str]) -> Check:
    """Check which sites of weights and datasets answer; this never fails.

    Args:
        sites: Addresses by name.
        environ: The environment variables.
    """
    if environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        return Check("network", "ok", "not checked, because HF_HUB_OFFLINE is set")
    reasons = dict.fromkeys(sites, "no answer")

    def ask(name: str) -> None:
        request = urllib.request.Request(sites[name], method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=NETWORK_SECONDS).close()
            reasons[name] = ""
        except urllib.error.HTTPError:  # an answer
            reasons[name] = ""
        except (OSError, ValueError, HTTPException) as error:
            reasons[name] = str(getattr(error, "reason", error))[:80]

    threads = [threading.Thread(target=ask, args=(name,), daemon=True) for name in sites]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 2 * NETWORK_SECONDS  # the names of hosts are looked up without a limit
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    found = dict(reasons)
    value = "; ".join(f"{name} {reason or 'reached'}" for name, reason in found.items())
    if not any(found.values()):
        return Check("network", "ok", value)
    advice = "Only downloads need it: set HTTPS_PROXY, or copy the files (docs/data.md)."
    return Check("network", "warning", value, advice)


def check_extras() -> Check:
    """List the optional runtimes."""
    names = ("torch", "ai_edge_litert", "onnx", "onnxruntime", "tf2onnx")
    found = [name for name in names if find_spec(name) is not None]
    return Check("extras", "ok", ", ".join(found) or "none")
