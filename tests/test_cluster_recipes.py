"""recipes/cluster: Kubernetes accepts the manifests, they describe what reszoo reads, and the scripts run with stand-ins of srun and ssh."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from reszoo.cli import train
from reszoo.cli.main import Parser
from reszoo.errors import PeerLost, ReszooError
from reszoo.training.cluster import Hosts, find_hosts

FOLDER = Path(__file__).parents[1] / "recipes" / "cluster"
SERVICE, JOB = yaml.safe_load_all((FOLDER / "indexed-job.yaml").read_text())
REPLICAS = yaml.safe_load((FOLDER / "tfjob.yaml").read_text())["spec"]["tfReplicaSpecs"]
PODS = [
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **replica["template"]}
    for replica in REPLICAS.values()
]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("manifest", [SERVICE, JOB, *PODS])
def test_kubernetes_knows_every_field(manifest: dict[str, Any], version: str) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    kubernetes_validate.validate(manifest, version, strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        broken = {**manifest, "spec": {**manifest["spec"], "subdomains": "a"}}
        kubernetes_validate.validate(broken, version, strict=True)


def parsed(container: dict[str, Any], index: int = 0) -> Any:
    """The arguments of `reszoo train` of a pod."""
    parser = Parser(prog="reszoo train", allow_abbrev=False)
    train.add_arguments(parser)
    command, *words = [word.replace("$(INDEX)", str(index)) for word in container["args"]]
    assert command == "train"
    return parser.parse_args(words)


def test_the_pods_of_the_indexed_job_are_its_hosts() -> None:
    spec, name = JOB["spec"], JOB["metadata"]["name"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert SERVICE["spec"]["selector"] == {"batch.kubernetes.io/job-name": name}
    assert (
        SERVICE["spec"]["clusterIP"] == "None" and pod["subdomain"] == SERVICE["metadata"]["name"]
    )
    pods = tuple(f"{name}-{n}.{pod['subdomain']}:12345" for n in range(spec["completions"]))
    assert spec["parallelism"] == spec["completions"] == len(pods)
    for index in range(len(pods)):
        args = parsed(container, index)
        assert find_hosts({}, args.hosts, args.host_index) == Hosts(pods, index)
        assert args.resume and args.run_dir == Path("/runs/first")
    rules = {
        code: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule and rule["onExitCodes"]["containerName"] == container["name"]
        for code in rule["onExitCodes"]["values"]
    }
    assert rules == {ReszooError.status: "FailJob"} | dict.fromkeys(
        (130, 142, PeerLost.status), "Ignore"
    )


def test_the_tfjob_starts_pods_again_when_a_worker_was_lost() -> None:
    for replica in REPLICAS.values():
        (container,) = replica["template"]["spec"]["containers"]
        parsed(container)
        # The operator starts a pod again for statuses of 128 and above.
        assert container["name"] == "tensorflow" and replica["restartPolicy"] == "ExitCode"
    assert ReszooError.status < 128 <= PeerLost.status
    address = {"chief": ["reszoo-chief-0.ns.svc:2222"], "worker": ["reszoo-worker-0.ns.svc:2222"]}
    config = {"cluster": address, "task": {"type": "worker", "index": 0}, "environment": "cloud"}
    hosts = find_hosts({"TF_CONFIG": json.dumps(config)})
    assert hosts and (hosts.count, hosts.index) == (2, 1)


@pytest.mark.parametrize("script", ["slurm.sh", "ssh.sh"])
def test_shellcheck_finds_nothing(script: str) -> None:
    if not (shellcheck := shutil.which("shellcheck")):
        pytest.skip("shellcheck is not installed")
    subprocess.run([shellcheck, FOLDER / script], check=True)


def run(
    script: str, *argv: str, path: Path, programs: dict[str, str], **environ: str
) -> subprocess.CompletedProcess[str]:
    """Run a script with stand-ins of the programs that it calls."""
    for name, text in programs.items():
        (path / name).write_text(f"#!/bin/bash\n{text}\n")
        (path / name).chmod(0o755)
    return subprocess.run(
        ["bash", FOLDER / script, *argv],
        env={"PATH": f"{path}:{os.environ['PATH']}", "LOG": str(path / "log"), **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("status", "count", "queued"),
    [(0, "0", False), (2, "0", False), (130, "0", False), (1, "0", False)]
    + [(200, "0", True), (142, "9", True), (200, "10", False)],
)
def test_a_slurm_job_is_queued_again_if_a_worker_was_lost(
    status: int, count: str, queued: bool, tmp_path: Path
) -> None:
    programs = {
        "srun": f'echo srun "$@" >>"$LOG"; exit {status}',
        "scontrol": 'echo scontrol "$@" >>"$LOG"',
    }
    done = run(
        "slurm.sh",
        "quickstart",
        "runs/a b",
        path=tmp_path,
        programs=programs,
        SLURM_RESTART_COUNT=count,
        SLURM_JOB_ID="77",
    )
    lines = (tmp_path / "log").read_text().splitlines()
    assert done.returncode == status, done.stderr
    assert lines[0].endswith("reszoo train quickstart --run-dir runs/a b --resume")
    assert lines[1:] == (["scontrol requeue 77"] if queued else [])


@pytest.mark.parametrize(
    ("statuses", "status", "tries"),
    [
        ("echo 0", 0, 1),
        ("echo $(($1 == 1 ? 2 : 200))", 2, 1),
        ("echo $(($(wc -l <$LOG) < 3 ? 200 : 0))", 0, 2),
        ("echo $(($1 == 0 ? 200 : 255))", 200, 11),
        ("echo 130", 130, 1),
    ],
)
def test_hosts_over_ssh_start_again_if_a_worker_was_lost(
    statuses: str, status: int, tries: int, tmp_path: Path
) -> None:
    programs = {
        "ssh": 'while [[ $1 == -* ]]; do [[ $1 == -o ]] && shift; shift; done; HOST=$1 bash -c "$2"',
        "reszoo": 'echo "$HOST" "$@" >>"$LOG"; sleep 0.1; exit $(answer "${@: -1}")',
        "answer": statuses,
    }
    done = run("ssh.sh", "node0 node1", "quickstart", "runs/a", path=tmp_path, programs=programs)
    assert done.returncode == status, done.stderr
    lines = sorted((tmp_path / "log").read_text().splitlines())
    for index in range(2):
        words = "train quickstart --run-dir runs/a --resume --hosts node0:12345,node1:12345"
        line = f"node{index} {words} --host-index {index}"
        assert lines[index * tries : (index + 1) * tries] == [line] * tries
