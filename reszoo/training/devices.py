"""Where a run computes: the strategy over the requested devices, and the precision."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import keras

from reszoo.errors import ReszooError
from reszoo.lazy import check_backend, tf
from reszoo.models.settings import fixed_settings
from reszoo.training.cluster import Hosts
from reszoo.training.meeting import limit_start

BYTES_PER_PACK = 2**24  # of a collective: half the time of one large buffer (docs/performance.md)
DRIVER = Path("/proc/driver/nvidia/version")
"""Exists if NVIDIA's kernel module is loaded, also inside a container."""


def open_strategy(devices: str = "auto", hosts: Hosts | None = None) -> tf.distribute.Strategy:
    """Return the strategy over some devices, on one host or on several.

    The same devices give the same object, because TensorFlow's collectives do not survive a second
    one in a process. On several hosts this waits for all of them, without an end and deaf to
    signals; let them meet before.

    Args:
        devices: "auto" (all GPUs, or the CPU), "cpu", "cpu:N" (N replicas), "gpu" or "gpu:0,1". On
            several hosts those of each host.
        hosts: The hosts; None for this one.

    Raises:
        ReszooError: If `devices` is another text, a GPU does not exist, TensorFlow has divided the
            CPU otherwise before, a `tf.distribute` scope is active, or Keras has another backend.
    """
    check_backend(keras.config.backend())
    kind, numbers = check_devices(devices)
    if tf.distribute.has_strategy():
        active = type(tf.distribute.get_strategy()).__name__
        raise ReszooError(
            f"devices: {devices!r} is invalid inside the scope of a {active}; expected no active "
            "tf.distribute scope, because reszoo opens its own. Example: leave the scope and give "
            'devices="cpu:2" or "gpu:0,1"'
        )
    if hosts is not None:
        if kind == "cpu" and int(numbers or 1) > 1:
            raise ReszooError(
                f"devices: {devices} is invalid on several hosts; expected cpu, because TensorFlow "
                "makes one replica of each host's CPU. Example: --devices cpu, with one worker per "
                "replica"
            )
        return _over_hosts(hosts, kind, numbers)
    if kind == "cpu":
        replicas = int(numbers or 1)
        return _mirrored(_logical_cpus(replicas)) if replicas > 1 else tf.distribute.get_strategy()
    count = len(tf.config.list_physical_devices("GPU"))
    return _mirrored(tuple(f"GPU:{number}" for number in _choose_gpus(numbers, count)))


def check_devices(devices: str) -> tuple[str, str]:
    """Return the kind, "cpu" or "gpu", and the text after the colon of `devices`.

    No device is initialized.

    Raises:
        ReszooError: If `devices` is not valid, or a GPU does not exist.
    """
    if not re.fullmatch(r"auto|cpu(:[1-9][0-9]*)?|gpu(:[0-9]+(,[0-9]+)*)?", devices):
        raise ReszooError(
            f"devices: {devices} is invalid; expected auto, cpu, cpu:2 (two replicas), gpu or "
            "gpu:0,1. Example: --devices cpu:2"
        )
    kind, _, numbers = devices.partition(":")
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "cpu":
        return kind, numbers
    if not gpus:
        raise ReszooError(
            f"devices: {devices} is invalid; expected cpu, because TensorFlow finds no GPU. "
            "Example: --devices cpu, or install NVIDIA's driver and reszoo[gpu]"
        )
    _choose_gpus(numbers, len(gpus))
    return kind, numbers


def count_devices(devices: str) -> str:
    """Return how many devices `devices` names, such as "1 CPU" or "2 GPU"; none is initialized.

    Raises:
        ReszooError: If `devices` is not valid, or a GPU does not exist.
    """
    kind, numbers = check_devices(devices)
    if kind == "cpu":
        return f"{int(numbers or 1)} CPU"
    return f"{len(_choose_gpus(numbers, len(tf.config.list_physical_devices('GPU'))))} GPU"


def _choose_gpus(numbers: str, count: int) -> list[int]:
    """Return the GPUs that `numbers` ("0,1") names, or all `count` if it is empty.

    Raises:
        ReszooError: If a GPU does not exist.
    """
    wanted = (
        dict.fromkeys(int(number) for number in numbers.split(",")) if numbers else range(count)
    )
    if missing := sorted(set(wanted) - set(range(count))):
        raise ReszooError(
            f"there is no GPU {missing[0]}: TensorFlow finds {count}, numbered from 0"
        )
    return list(wanted)


def _logical_cpus(count: int) -> tuple[str, ...]:
    cpu = tf.config.list_physical_devices("CPU")[0]
    with contextlib.suppress(RuntimeError):  # TensorFlow has started
        if tf.config.get_logical_device_configuration(cpu) is None:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
    if len(tf.config.list_logical_devices("CPU")) < count:
        raise ReszooError(
            f"devices: cpu:{count} is invalid; expected cpu, because TensorFlow has started "
            "with an undivided CPU. Example: open these devices before any other computation"
        )
    return tuple(f"CPU:{number}" for number in range(count))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # The default reduction's collectives hang when a process makes a second strategy.
    reduce = tf.distribute.ReductionToOneDevice() if devices[0].startswith("CPU") else None
    return tf.distribute.MirroredStrategy(list(devices), cross_device_ops=reduce)


_over_hosts_of_process: dict[tuple[object, ...], tf.distribute.Strategy] = {}


def _over_hosts(hosts: Hosts, kind: str, numbers: str) -> tf.distribute.Strategy:
    """Return the strategy over several hosts, of which a process can have only one.

    Raises:
        ReszooError: If TensorFlow has started, or this process has opened another one.
    """
    wanted = (hosts, kind, numbers)
    if found := _over_hosts_of_process.get(wanted):
        return found
    if _over_hosts_of_process:
        raise ReszooError(
            "hosts: this process has trained with other hosts or devices; expected the same. "
            "Example: train in a new process"
        )
    gpus = tf.config.list_physical_devices("GPU")
    chosen = _choose_gpus(numbers, len(gpus)) if kind == "gpu" else []
    cluster = tf.train.ClusterSpec({"worker": list(hosts.addresses)})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        cluster,
        task_type="worker",
        task_id=hosts.index,
        num_accelerators={"GPU": len(chosen)},
        rpc_layer="grpc",
    )
    options = tf.distribute.experimental.CommunicationOptions(bytes_per_pack=BYTES_PER_PACK)
    handler = signal.getsignal(signal.SIGTERM)
    try:
        # TensorFlow takes every GPU that it sees.
        tf.config.set_visible_devices([gpus[number] for number in chosen], "GPU")
        with limit_start():
            strategy = tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except RuntimeError as error:
        if "program startup" not in str(error) and "after being initialized" not in str(error):
            raise
        raise ReszooError(
            "hosts: TensorFlow has started without them; expected no computation before. "
            "Example: train in a new process"
        ) from None
    _over_hosts_of_process[wanted] = strategy
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # TensorFlow has taken it
    return strategy


def _devices_of(strategy: tf.distribute.Strategy) -> tuple[str, ...]:
    """Return this host's devices of a strategy; none for the default strategy."""
    several = (tf.distribute.MirroredStrategy, tf.distribute.MultiWorkerMirroredStrategy)
    return tuple(strategy.extended.worker_devices) if isinstance(strategy, several) else ()


def first_device(strategy: tf.distribute.Strategy) -> str:
    """Return the name of the strategy's first device on this host."""
    return next(iter(_devices_of(strategy)), "CPU:0")


def describe(strategy: tf.distribute.Strategy) -> list[str]:
    """Return one line per device of this host, such as "GPU:0 NVIDIA A100" or "CPU:0"."""
    names = []
    for device in _devices_of(strategy) or ("CPU:0",):
        short = ":".join(device.split(":")[-2:])
        details = {}
        if short.startswith("GPU"):
            details = tf.config.experimental.get_device_details(
                tf.config.get_visible_devices("GPU")[int(short[4:])]
            )
        names.append(f"{short} {details.get('device_name', '')}".strip())
    return names


def missing_gpu(devices: str) -> str:
    """Return the line that says why "auto" computes on the CPU though a GPU was expected, or "".

    A GPU is expected if RESZOO_EXPECT_GPU is 1 (the GPU image sets it) or NVIDIA's driver is
    loaded, unless CUDA_VISIBLE_DEVICES hides it.
    """
    image = os.environ.get("RESZOO_EXPECT_GPU") == "1"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if devices != "auto" or hidden or not (image or DRIVER.exists()):
        return ""
    if tf.config.list_physical_devices("GPU"):
        return ""
    remedy = "docker run needs --gpus all" if image else "pip install 'reszoo[gpu]' brings CUDA"
    return f"no GPU found by TensorFlow; computing on the CPU ({remedy})"


@contextlib.contextmanager
def precision(policy: str) -> Iterator[None]:
    """Build and run Keras layers with a dtype policy, whatever the global settings are."""
    with fixed_settings(policy):
        yield
