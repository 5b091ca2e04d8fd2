"""The workers of a run on several hosts, and what they exchange. One host sends nothing."""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from reszoo.errors import PeerLost, ReszooError
from reszoo.lazy import tf
from reszoo.training.cluster import Hosts
from reszoo.training.protocols import Strategy
from reszoo.training.watchdog import STANDS_STILL
from reszoo.types import Array, Tensor

CHUNK = 2**18  # integers in one collective: 2 MB
LOSS = re.compile(f"collective|heartbeat|coordination|/job:worker|{STANDS_STILL}", re.IGNORECASE)


class Workers:
    """One worker of a run, and its exchanges with the others.

    The exchanges are collectives: all workers make the same ones in the same order.

    Args:
        strategy: The strategy over the devices of all workers.
        hosts: The hosts; None for one host.

    Attributes:
        hosts: As given.
        index: The number of this worker, from 0.
        count: How many workers there are.
        first: Whether this is worker 0, which alone reads and writes the run folder.
    """

    def __init__(self, strategy: Strategy, hosts: Hosts | None = None) -> None:
        self.hosts = hosts
        self.index, self.count = (hosts.index, hosts.count) if hosts else (0, 1)
        self.first = self.index == 0
        self.replicas = strategy.num_replicas_in_sync // self.count

        def reduce(values: Tensor) -> Tensor:
            def add(values: Tensor) -> Tensor:
                context = tf.distribute.get_replica_context()
                counts = tf.equal(context.replica_id_in_sync_group % self.replicas, 0)
                own = values * tf.cast(counts, tf.int64)
                return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

            return strategy.experimental_local_results(strategy.run(add, args=(values,)))[0]

        # One function per size, because TensorFlow warns of a function with several traces.
        self._reducer = functools.cache(lambda size: tf.function(reduce, autograph=False))

    def share(self, arrays: Sequence[Array]) -> list[Array]:
        """Return worker 0's arrays, to the bit.

        Args:
            arrays: This worker's arrays. Only their shapes and dtypes matter, except worker 0's.
        """
        if self.count == 1:
            return list(arrays)
        data = self.share_bytes(b"".join(np.ascontiguousarray(each).tobytes() for each in arrays))
        found, at = [], 0
        for each in arrays:
            found.append(np.frombuffer(data, each.dtype, each.size, at).reshape(each.shape))
            at += each.nbytes
        return found

    def share_bytes(self, data: bytes) -> bytes:
        """Return worker 0's bytes; those of other workers are ignored."""
        if self.count == 1:
            return data
        own = np.array([len(data) if self.first else 0])
        size = int(self._sum(own)[0])
        return self._sum(_to_integers(data if self.first else b"", size)).tobytes()[:size]

    def gather(self, data: bytes) -> list[bytes]:
        """Return the bytes of every worker."""
        if self.count == 1:
            return [data]
        sizes = np.zeros(self.count, np.int64)
        sizes[self.index] = len(data)
        sizes = self._sum(sizes)
        table = np.zeros((self.count, -(-int(sizes.max()) // 8)), np.int64)
        table[self.index] = _to_integers(data, 8 * table.shape[1])
        rows = self._sum(table.reshape(-1)).reshape(table.shape)
        return [row.tobytes()[:size] for row, size in zip(rows, sizes, strict=True)]

    def exchange(self, value: Any) -> list[Any]:
        """Return the value of every worker, each of which JSON can hold."""
        return [json.loads(each) for each in self.gather(json.dumps(value).encode())]

    def label(self, lists: Sequence[Sequence[str]]) -> list[str]:
        """Return the texts of every worker in one list, with its number on several hosts."""
        return [
            f"worker {index} {text}" if self.count > 1 else text
            for index, texts in enumerate(lists)
            for text in texts
        ]

    def barrier(self) -> None:
        """Return when every worker has called this."""
        if self.count > 1:
            self._sum(np.zeros(1, np.int64))

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Run a block without collectives, and wait for every worker at its end.

        Raises:
            ReszooError: If the block failed on another worker. An own error is raised as it is.
        """
        if self.count == 1:
            yield
            return
        failed: Exception | None = None
        try:
            yield
        except Exception as error:
            failed = error
        if not is_loss(failed):
            lines = self.exchange(_describe(failed) if failed else "")
            if failed is None:
                for index, line in enumerate(lines):
                    if line:
                        raise ReszooError(f"worker {index} failed: {line}")
        if failed:
            raise failed

    def _sum(self, values: Array) -> Array:
        """Return the sum over the workers of integers, int64 [n]."""
        size = min(CHUNK, 1 << max(len(values) - 1, 0).bit_length())  # few shapes: few traces
        padded = np.zeros(-(-len(values) // size) * size, np.int64)
        padded[: len(values)] = values
        reduce = self._reducer(size)
        chunks = [reduce(tf.constant(chunk)).numpy() for chunk in padded.reshape(-1, size)]
        return np.concatenate([np.zeros(0, np.int64), *chunks])[: len(values)]


def _to_integers(data: bytes, size: int) -> Array:
    """Return bytes as int64 [ceil(size / 8)], with zeros after them."""
    return np.frombuffer(data.ljust(-(-size // 8) * 8, b"\0"), np.int64)


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    kind = "" if isinstance(error, ReszooError | OSError) else f"{type(error).__name__}: "
    return kind + str(error).partition("\n")[0]


def is_loss(error: Exception | None) -> bool:
    """Return whether an error says that a collective has failed, or another worker was lost."""
    return isinstance(error, PeerLost) or (
        isinstance(error, tf.errors.OpError) and LOSS.search(str(error)) is not None
    )


@contextlib.contextmanager
def explain_loss(hosts: Hosts | None) -> Iterator[None]:
    """Turn the failure of a collective into one line.

    Raises:
        PeerLost: If a collective failed.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if hosts is None or not is_loss(error):
            raise
        what = "stands still" if STANDS_STILL in str(error) else "was lost"
        raise PeerLost(
            f"{hosts.name(hosts.index)}: another of the {hosts.count} workers {what}; start all "
            "of them again with --resume"
        ) from error
