"""The hosts of a run: from flags, TF_CONFIG or Slurm. Standard library only."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from reszoo.errors import ReszooError, shorten

SLURM_PORT = 12345  # of the first task on a host; the next tasks take the next ports
ADDRESS = re.compile(r"([\w.-]+|\[[0-9a-fA-F:.%]+\]):([0-9]{1,5})", re.ASCII)


@dataclass(frozen=True)
class Hosts:
    """The addresses of the workers of a run, and which of them this process is.

    Args:
        addresses: One "HOST:PORT" per worker, in the same order on all hosts.
        index: The number of this worker, from 0. Worker 0 writes the run folder.

    Raises:
        ReszooError: If an address or the index is invalid, or two addresses are equal.
    """

    addresses: tuple[str, ...]
    index: int

    def __post_init__(self) -> None:
        for address in self.addresses:
            match = ADDRESS.fullmatch(address)
            if not match or not 0 < int(match[2]) < 65536:
                raise ReszooError(
                    f"hosts: {shorten(address)} is invalid; expected HOST:PORT with a port from 1 "
                    "to 65535. Example: node0:12345,node1:12345"
                )
            if self.addresses.count(address) > 1:
                raise ReszooError(
                    f"hosts: {address} is named twice; expected one address per worker. "
                    "Example: node0:12345,node0:12346"
                )
        if not 0 <= self.index < self.count:
            raise ReszooError(
                f"hosts: index {self.index} is invalid; expected "
                + (f"0 to {self.count - 1}" if self.count > 1 else "0, the only worker")
            )

    @property
    def count(self) -> int:
        """How many workers train."""
        return len(self.addresses)

    @property
    def first(self) -> bool:
        """Whether this is worker 0, which writes the run folder."""
        return self.index == 0

    @property
    def port(self) -> int:
        """The port of this worker."""
        return int(self.addresses[self.index].rpartition(":")[2])

    def name(self, index: int) -> str:
        """Return how messages name a worker, such as "worker 1 (node1:12345)"."""
        return f"worker {index} ({self.addresses[index]})"

    def tf_config(self) -> str:
        """Return the value of TF_CONFIG for this worker: a cluster of workers, without a chief."""
        task = {"type": "worker", "index": self.index}
        return json.dumps({"cluster": {"worker": list(self.addresses)}, "task": task})


def find_hosts(
    environ: Mapping[str, str], hosts: str | None = None, host_index: int | None = None
) -> Hosts | None:
    """Return the hosts of this run, or None for a run on one host.

    Args:
        environ: The environment. TF_CONFIG counts before Slurm's variables.
        hosts: The addresses, separated by commas. They count before the environment.
        host_index: Which of them this host is.

    Raises:
        ReszooError: If the hosts are malformed, incomplete or contradictory.
    """
    if (hosts is None) != (host_index is None):
        given, other = ("--hosts", "--host-index") if hosts else ("--host-index", "--hosts")
        raise ReszooError(
            f"{given}: {other} is missing; expected both. Example: --hosts "
            "node0:12345,node1:12345 --host-index 0"
        )
    found = _from_tf_config(environ.get("TF_CONFIG", "").strip())
    if hosts is not None and host_index is not None:
        given_hosts = _make("--hosts", hosts.split(","), host_index)
        if found not in (None, given_hosts):
            raise ReszooError(
                f"--hosts: {shorten(hosts)} and index {host_index} contradict TF_CONFIG; expected "
                "one of them. Example: unset TF_CONFIG"
            )
        found = given_hosts
    found = found or _from_slurm(environ)
    return found if found and found.count > 1 else None


def _make(source: str, addresses: list[str], index: int) -> Hosts:
    try:
        return Hosts(tuple(addresses), index)
    except ReszooError as error:
        raise ReszooError(f"{source}: {str(error).removeprefix('hosts: ')}") from None


def _from_tf_config(text: str) -> Hosts | None:
    if not text:
        return None
    try:
        config = json.loads(text)
        jobs = {name: tasks for name, tasks in (config.get("cluster") or {}).items() if tasks}
        chief, workers = jobs.pop("chief", []), jobs.pop("worker", [])
        addresses = chief + workers
        task = config.get("task") or {}
        kind, index = str(task.get("type", "")), int(task.get("index", 0))
        if not all(isinstance(each, str) for each in addresses) or isinstance(addresses, str):
            raise TypeError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ReszooError(
            f'TF_CONFIG: {shorten(text)} is invalid; expected JSON such as {{"cluster": {{"worker":'
            ' ["HOST:PORT"]}}, "task": {"type": "worker", "index": 0}}. Example: unset TF_CONFIG'
        ) from None
    other = next(iter(jobs), kind if addresses and kind not in ("", "chief", "worker") else "")
    if other:
        raise ReszooError(
            f"TF_CONFIG: the job {shorten(other)} is invalid; expected chief and worker alone, "
            "because all workers train and worker 0 evaluates. Example: unset TF_CONFIG"
        )
    if len(addresses) < 2:
        return None
    tasks = {"chief": chief, "worker": workers}.get(kind, [])
    if len(chief) > 1 or not 0 <= index < len(tasks):
        raise ReszooError(
            f"TF_CONFIG: the task {shorten(kind)} {index} is invalid; expected one of "
            f"{len(chief)} chief and {len(workers)} worker, at most 1 chief. Example: unset "
            "TF_CONFIG"
        )
    return _make("TF_CONFIG", addresses, index + (len(chief) if kind == "worker" else 0))


def _from_slurm(environ: Mapping[str, str]) -> Hosts | None:
    """Return the hosts of a job step of several tasks; a batch script alone is not a step."""
    if not environ.get("SLURM_STEP_NODELIST"):
        return None
    names = ("SLURM_STEP_NODELIST", "SLURM_STEP_NUM_TASKS", "SLURM_STEP_TASKS_PER_NODE")
    values = {name: environ.get(name, "") for name in (*names, "SLURM_PROCID", "SLURM_LOCALID")}
    try:
        total = int(values["SLURM_STEP_NUM_TASKS"] or environ.get("SLURM_NTASKS", "1"))
        if total < 2:
            return None
        index, local = int(values["SLURM_PROCID"]), int(values["SLURM_LOCALID"])
        nodes = expand_nodes(values["SLURM_STEP_NODELIST"])
        tasks = [
            int(count)
            for part in values["SLURM_STEP_TASKS_PER_NODE"].split(",")
            for count, _, times in [part.removesuffix(")").partition("(x")]
            for _ in range(int(times or 1))
        ]
        if len(tasks) != len(nodes) or sum(tasks) != total:
            raise ValueError
    except ValueError:
        shown = " ".join(f"{name}={value}" for name, value in values.items())
        raise ReszooError(
            f"SLURM_STEP_NODELIST: {shown} is invalid; expected the environment of a job step. "
            "Example: srun reszoo train RECIPE"
        ) from None
    places = [(node, task) for node, n in zip(nodes, tasks, strict=True) for task in range(n)]
    here = environ.get("SLURMD_NODENAME", "")
    if not 0 <= index < total or places[index][1] != local or here not in ("", places[index][0]):
        raise ReszooError(
            f"SLURM_PROCID: task {index} as task {local} of {here or 'a node'} is invalid; "
            "expected tasks in blocks of nodes. Example: srun --distribution=block reszoo train "
            "RECIPE"
        )
    return _make(
        "SLURM_STEP_NODELIST", [f"{node}:{SLURM_PORT + task}" for node, task in places], index
    )


def expand_nodes(nodelist: str) -> list[str]:
    """Return the nodes of a Slurm node list such as `a[9-10,012],b`, in Slurm's order.

    Raises:
        ValueError: If the list is malformed.
    """
    nodes: list[str] = []
    for entry in re.split(r",(?![^\[]*\])", nodelist):
        if not re.fullmatch(r"([\w.-]|\[[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*\])+", entry):
            raise ValueError(entry)
        choices = []
        for text, ranges in re.findall(r"([^\[\]]+)|\[(.*?)\]", entry):
            numbers = []
            for part in ranges.split(",") if ranges else ():
                low, _, high = part.partition("-")
                if int(high or low) - int(low) not in range(100_000):
                    raise ValueError(entry)
                numbers += [str(n).zfill(len(low)) for n in range(int(low), int(high or low) + 1)]
            choices.append(numbers or [text])
        nodes += itertools.islice(map("".join, itertools.product(*choices)), 100_000)
    return nodes
