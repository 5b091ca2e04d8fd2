"""What the sides of a comparison share. Standard library and NumPy only."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4
INPUT_IMAGES = 45_000  # of 32 x 32, as in CIFAR-10, that input pipelines keep in memory

Precision = Literal["float32", "mixed_bfloat16"]
Calls = Callable[[int], float | None]
"""Makes a number of calls. A first step returns the seconds that building took."""


@dataclass(frozen=True)
class Job:
    """What a side measures.

    Attributes:
        side: The name of the side, such as "reszoo".
        what: "train", "infer", "input", "build", "first-step" or "matrix".
        model: A model name; for "input", "cifar" or "photographs".
        batch: Images per call.
        size: The side of an image in pixels.
        classes: Number of classes.
        device: "cpu" or "gpu".
        precision: "float32" or "mixed_bfloat16".
        threads: Threads that a side may use.
        folder: For "photographs", the folder of images.
    """

    side: str
    what: str
    model: str
    batch: int
    size: int
    classes: int
    device: str = "cpu"
    precision: Precision = "float32"
    threads: int = 1
    folder: str = ""

    @property
    def is_low(self) -> bool:
        """Whether the precision is bfloat16."""
        return self.precision != "float32"

    def make_batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Return random images, float32 [n, h, w, 3], and labels, int32 [n]."""
        import numpy as np

        random = np.random.default_rng(0)
        images = random.normal(size=(self.batch, self.size, self.size, 3)).astype(np.float32)
        return images, random.integers(0, self.classes, self.batch).astype(np.int32)


class Side(ABC):
    """One library that is measured; raises LookupError for a job that it does not support.

    Attributes:
        versions: The version of each module that is measured.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.versions: dict[str, str] = {}

    def prepare(self) -> tuple[Calls, int]:
        """Return what makes the calls, and the number of the model's parameters, 0 without one."""
        what = self.job.what
        if what == "build":
            return repeat(self.make), 0
        if what == "first-step":
            return self.take_first_step, 0
        if what == "input":
            batches = self.open_input()
            return repeat(lambda: next(batches)), 0
        model = self.build()
        return (self.train if what == "train" else self.infer)(model), self.count(model)

    def take_first_step(self, calls: int) -> float:
        """Build the model and take its first step, after the library has started.

        Returns:
            The seconds that building took.
        """
        start = time.perf_counter()
        model = self.build()
        built = time.perf_counter()
        self.train(model)(1)
        return built - start

    def require_gpu(self, library: str, find: Callable[[], Any]) -> None:
        """Raise LookupError if the job is for a GPU that `library` does not find."""
        if self.job.device == "gpu" and not find():
            raise LookupError(
                f"{library} does not find a GPU; expected one for --device gpu. "
                "Example: --device cpu"
            )

    @abstractmethod
    def make(self) -> Any:
        """Make the model."""

    def build(self) -> Any:
        """Make the model on its device."""
        return self.make()

    @abstractmethod
    def count(self, model: Any) -> int:
        """Return the number of trainable parameters."""

    @abstractmethod
    def train(self, model: Any) -> Calls:
        """Return training steps on one batch."""

    @abstractmethod
    def infer(self, model: Any) -> Calls:
        """Return inference on one batch."""

    @abstractmethod
    def open_input(self) -> Iterator[Any]:
        """Return the batches of an input pipeline."""


def repeat(call: Callable[[], Any], wait: Callable[[], Any] | None = None) -> Calls:
    """Return what makes calls one after another; `wait` ends the last where a call does not."""

    def run(calls: int) -> None:
        for _ in range(calls):
            call()
        if wait:
            wait()

    return run
