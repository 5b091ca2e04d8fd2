"""Where a run computes: the strategy over the devices asked for, and the precision it computes in."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path

import keras

from reszoo.errors import ReszooError
from reszoo.lazy import check_backend, tf
from reszoo.models.settings import fixed_settings

DRIVER = Path(
    "/proc/driver/nvidia/version"
)  # there when NVIDIA's kernel module is loaded, inside a container too


def open_strategy(devices: str = "auto") -> tf.distribute.Strategy:
    """Return the strategy over `devices`: "auto" (all GPUs, or the CPU), "cpu", "cpu:N" (N replicas), "gpu" or "gpu:0,1".

    The same devices give the same object: TensorFlow's collectives do not survive a second one in a process.
    Raises ReszooError for another word, a GPU that is not there, a CPU that TensorFlow has divided otherwise before, inside
    a `tf.distribute` scope, whose devices would decide in place of `devices`, or under another Keras backend.
    """
    check_backend(keras.config.backend())
    kind, numbers = check_devices(devices)
    if tf.distribute.has_strategy():
        active = type(tf.distribute.get_strategy()).__name__
        raise ReszooError(
            f"devices: {devices!r} is invalid inside the scope of a {active}; expected no active tf.distribute scope, because "
            'reszoo opens its own. Example: leave the scope and give devices="cpu:2" or "gpu:0,1"'
        )
    if kind == "cpu":
        replicas = int(numbers or 1)
        return _mirrored(_logical_cpus(replicas)) if replicas > 1 else tf.distribute.get_strategy()
    count = len(tf.config.list_physical_devices("GPU"))
    return _mirrored(tuple(f"GPU:{number}" for number in _choose_gpus(numbers, count)))


def check_devices(devices: str) -> tuple[str, str]:
    """Return ("cpu" or "gpu", what stands behind the colon) of `devices`; no device is taken into use.

    Raises ReszooError for another word or a GPU that is not there.
    """
    if not re.fullmatch(r"auto|cpu(:[1-9][0-9]*)?|gpu(:[0-9]+(,[0-9]+)*)?", devices):
        raise ReszooError(
            f"devices is '{devices}', but must be auto, cpu, cpu:2 (two replicas), gpu, or gpu:0,1"
        )
    kind, _, numbers = devices.partition(":")
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "cpu":
        return kind, numbers
    if not gpus:
        raise ReszooError(
            "TensorFlow finds no GPU here; give --devices cpu, or install reszoo[gpu] beside a driver"
        )
    _choose_gpus(numbers, len(gpus))
    return kind, numbers


def _choose_gpus(numbers: str, count: int) -> list[int]:
    """Return the numbers of the GPUs that `numbers` ("0,1") names, or of all `count` if it is empty.

    Raises:
        ReszooError: A GPU does not exist.
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
    with contextlib.suppress(RuntimeError):  # TensorFlow is running already; what it has must do
        if tf.config.get_logical_device_configuration(cpu) is None:
            tf.config.set_logical_device_configuration(
                cpu, [tf.config.LogicalDeviceConfiguration()] * count
            )
    if len(tf.config.list_logical_devices("CPU")) < count:
        raise ReszooError(
            f"the processor is already in use undivided; ask for cpu:{count} before anything else runs"
        )
    return tuple(f"CPU:{number}" for number in range(count))


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    # The default reduction's collective operations hang when a process makes a second strategy; this one has none.
    reduce = tf.distribute.ReductionToOneDevice() if devices[0].startswith("CPU") else None
    return tf.distribute.MirroredStrategy(list(devices), cross_device_ops=reduce)


def first_device(strategy: tf.distribute.Strategy) -> str:
    """Return the name of the strategy's first device."""
    mirrored = isinstance(strategy, tf.distribute.MirroredStrategy)
    return strategy.extended.worker_devices[0] if mirrored else "CPU:0"


def describe(strategy: tf.distribute.Strategy) -> list[str]:
    """Return a line for each device of the strategy, such as "GPU:0 NVIDIA A100" or "CPU:0"."""
    if not isinstance(strategy, tf.distribute.MirroredStrategy):
        return ["CPU:0"]
    names = []
    for device in strategy.extended.worker_devices:
        short = ":".join(device.split(":")[-2:])
        details = {}
        if short.startswith("GPU"):
            details = tf.config.experimental.get_device_details(
                tf.config.list_physical_devices("GPU")[int(short[4:])]
            )
        names.append(f"{short} {details.get('device_name', '')}".strip())
    return names


def missing_gpu(devices: str) -> str:
    """Return a line that says why "auto" computes on the CPU although a GPU was expected, otherwise "".

    A GPU is expected if RESZOO_EXPECT_GPU is 1 (the GPU image sets it) or NVIDIA's driver is loaded, unless
    CUDA_VISIBLE_DEVICES hides it.
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
    """Build and run Keras layers under the dtype policy `policy` inside the block, whatever Keras' global settings are."""
    with fixed_settings(policy):
        yield
