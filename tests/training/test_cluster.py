"""The hosts of a run from flags, TF_CONFIG and Slurm, without TensorFlow."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reszoo.errors import ReszooError
from reszoo.training.cluster import Hosts, expand_nodes, find_hosts


def tf_config(kind: str, index: Any, **cluster: Any) -> dict[str, str]:
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def slurm(nodes: str, tasks: str, index: int, local: int, **more: str) -> dict[str, str]:
    total = sum(
        int(part.split("(x")[0]) * int(part.rstrip(")").partition("(x")[2] or 1)
        for part in tasks.split(",")
    )
    return {
        "SLURM_STEP_NODELIST": nodes,
        "SLURM_STEP_TASKS_PER_NODE": tasks,
        "SLURM_STEP_NUM_TASKS": str(total),
        "SLURM_NTASKS": str(total),
        "SLURM_PROCID": str(index),
        "SLURM_LOCALID": str(local),
        **more,
    }


PAIR = {"worker": ["a:1", "b:2"]}
A, B = ("a:1", "b:2"), ("n9:12345", "n10:12345")


@pytest.mark.parametrize(
    ("environ", "flags", "expected"),
    [
        ({}, (), None),
        ({}, ("a:1,b:2", 1), Hosts(A, 1)),
        ({}, ("[::1]:5,node-1.svc:6", 0), Hosts(("[::1]:5", "node-1.svc:6"), 0)),
        ({}, ("a:1", 0), None),
        (tf_config("worker", 1, **PAIR), (), Hosts(A, 1)),
        (tf_config("worker", "0", **PAIR), (), Hosts(A, 0)),
        (tf_config("worker", 1, **PAIR), ("a:1,b:2", 1), Hosts(A, 1)),
        (tf_config("chief", 0, chief=["c:9"], **PAIR), (), Hosts(("c:9", *A), 0)),
        (tf_config("worker", 1, chief=["c:9"], **PAIR), (), Hosts(("c:9", *A), 2)),
        (tf_config("worker", 0, worker=["a:1"], ps=[]), (), None),
        ({"TF_CONFIG": '{"cluster": {"chief": ["a:1"]}}'}, (), None),
        ({"TF_CONFIG": " "}, (), None),
        ({"TF_CONFIG": "{}"}, (), None),
        ({"TF_CONFIG": '{"cluster": null}'}, (), None),
        # Slurm's order is not the order of the text.
        (slurm("n[9-10]", "1(x2)", 0, 0, SLURMD_NODENAME="n9"), (), Hosts(B, 0)),
        (slurm("n[9-10]", "1(x2)", 1, 0, SLURMD_NODENAME="n10"), (), Hosts(B, 1)),
        (
            slurm("n[9-10]", "2,1", 1, 1),
            (),
            Hosts(("n9:12345", "n9:12346", "n10:12345"), 1),
        ),
        (tf_config("worker", 1, **PAIR) | slurm("n[9-10]", "1(x2)", 0, 0), (), Hosts(A, 1)),
        (slurm("n9", "1", 0, 0), (), None),
        # An interactive step has one task, though the allocation has eight.
        (slurm("n[9-10]", "1", 0, 0, SLURM_NTASKS="8"), (), None),
        # A batch script is not a step.
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "n[1-8]"}, (), None),
    ],
)
def test_hosts_are_found(
    environ: dict[str, str], flags: tuple[Any, ...], expected: Hosts | None
) -> None:
    assert find_hosts(environ, *flags) == expected


@pytest.mark.parametrize(
    ("environ", "flags", "says"),
    [
        ({}, ("a:1,b:2",), "--hosts: --host-index is missing"),
        ({}, (None, 1), "--host-index: --hosts is missing"),
        ({}, ("a:1,b:2", 2), "--hosts: index 2 is invalid; expected 0 to 1"),
        ({}, ("a:1,b:2", -1), "--hosts: index -1 is invalid"),
        ({}, ("a:1", 1), "--hosts: index 1 is invalid; expected 0, the only worker"),
        ({}, ("a:1,a:1", 0), "--hosts: a:1 is named twice"),
        ({}, ("a:1,b", 0), "--hosts: 'b' is invalid; expected HOST:PORT"),
        ({}, ("a:1,b:0", 0), "'b:0' is invalid"),
        ({}, ("a:1,b:65536", 0), "'b:65536' is invalid"),
        ({}, ("a:1, b:2", 0), "' b:2' is invalid"),
        ({}, ("", 0), "--hosts: '' is invalid"),
        (tf_config("worker", 1, **PAIR), ("a:1,b:2", 0), "index 0 contradict TF_CONFIG"),
        (tf_config("worker", 2, **PAIR), (), "TF_CONFIG: the task 'worker' 2 is invalid"),
        (tf_config("chief", 0, **PAIR), (), "the task 'chief' 0 is invalid"),
        (tf_config("chief", 0, chief=["c:9", "d:9"], **PAIR), (), "at most 1 chief"),
        (tf_config("worker", 0, ps=["c:9"], **PAIR), (), "TF_CONFIG: the job 'ps' is invalid"),
        (tf_config("worker", 0, evaluator=["c:9"], **PAIR), (), "job 'evaluator' is invalid"),
        (tf_config("evaluator", 0, **PAIR), (), "TF_CONFIG: the job 'evaluator' is invalid"),
        (tf_config("worker", 0, worker=["a:1", "a:1"]), (), "TF_CONFIG: a:1 is named twice"),
        (tf_config("worker", 0, worker=["a", "b:1"]), (), "TF_CONFIG: 'a' is invalid"),
        (tf_config("worker", "x", **PAIR), (), "is invalid; expected JSON such as"),
        ({"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'}, (), "the task '' 0 is invalid"),
        (slurm("n[9-10]", "1(x2)", 1, 1), (), "SLURM_PROCID: task 1 as task 1 of a node is"),
        (slurm("n[9-10]", "1(x2)", 0, 0, SLURMD_NODENAME="n10"), (), "--distribution=block"),
        (slurm("n[9-10", "1(x2)", 0, 0), (), "SLURM_STEP_NODELIST: SLURM_STEP_NODELIST=n[9-10 "),
        (slurm("n[9-11]", "1(x2)", 0, 0), (), "expected the environment of a job step"),
        (slurm("n[9-10]", "1(x2)", 0, 0, SLURM_PROCID=""), (), "SLURM_PROCID= SLURM_LOCALID=0 is"),
    ],
)
def test_invalid_hosts_are_reported_in_one_line(
    environ: dict[str, str], flags: tuple[Any, ...], says: str
) -> None:
    with pytest.raises(ReszooError) as caught:
        find_hosts(environ, *flags)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert "expected" in str(caught.value) or "contradict" in says


@pytest.mark.parametrize(
    "config",
    ["{worker", "[1]", "3", '{"cluster": [1]}', "a\nb" * 99, '{"cluster": {"worker": 2}}']
    + ['{"cluster": {"worker": {"0": "a:1", "3": "b:2"}}}', '{"cluster": {"worker": "ab"}}']
    + ['{"cluster": {"worker": [1, 2]}}', '{"cluster": {"chief": "a:1", "worker": "b:2"}}']
    + ["[" * 100_000],
)
def test_a_malformed_tf_config_is_reported_in_one_line(config: str) -> None:
    line = r"^TF_CONFIG: .* is invalid; expected JSON such as .*unset TF_CONFIG$"
    with pytest.raises(ReszooError, match=line) as caught:
        find_hosts({"TF_CONFIG": config})
    assert len(str(caught.value)) < 220


@pytest.mark.parametrize(
    ("nodelist", "nodes"),
    [
        ("host", ["host"]),
        ("node[9-10]", ["node9", "node10"]),
        ("a[01-03],b2", ["a01", "a02", "a03", "b2"]),
        ("n[3,1-2,010],c-4.x", ["n3", "n1", "n2", "n010", "c-4.x"]),
        ("r[0-1]n[8-9]", ["r0n8", "r0n9", "r1n8", "r1n9"]),
        ("n[099-101]", ["n099", "n100", "n101"]),
    ],
)
def test_node_lists_are_expanded_in_slurms_order(nodelist: str, nodes: list[str]) -> None:
    assert expand_nodes(nodelist) == nodes


@pytest.mark.parametrize("bad", ["", "a[", "a]", "a[2-1]", "a[x]", "a,", "a[1-]", "a[0-9999999]"])
def test_a_malformed_node_list_is_an_error(bad: str) -> None:
    with pytest.raises(ValueError):
        expand_nodes(bad)


@settings(derandomize=True, deadline=None)
@given(st.text(alphabet='abn[]{},-:019"wofrkecht ', max_size=40), st.integers(-2, 3))
def test_any_text_is_hosts_or_one_error(text: str, index: int) -> None:
    environments = [{"TF_CONFIG": text}, slurm(text, "1(x2)", 0, 0) if text else {}]
    for environ, flags in [({}, (text, index)), *((each, ()) for each in environments)]:
        try:
            found = find_hosts(environ, *flags)
        except ReszooError as error:
            assert "\n" not in str(error)
        else:
            assert found is None or found.count > 1


def test_the_cluster_that_tensorflow_gets_has_workers_alone() -> None:
    hosts = find_hosts(tf_config("worker", 1, chief=["c:9"], **PAIR))
    assert hosts and json.loads(hosts.tf_config()) == {
        "cluster": {"worker": ["c:9", "a:1", "b:2"]},
        "task": {"type": "worker", "index": 2},
    }
    assert (hosts.first, hosts.port, hosts.name(1)) == (False, 2, "worker 1 (a:1)")
    assert find_hosts({"TF_CONFIG": hosts.tf_config()}) == hosts
