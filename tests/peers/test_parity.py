"""Every architecture of every publisher: converted nets compute what theirs compute, and ours, converted back, what ours do.

Needs RESZOO_PEER, the Python of an environment with torch, torchvision, timm and safetensors; `.ci/run` makes one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from reszoo import count

from .parity import TOLERANCE, Peer, Row, compare, compare_keras, rows

PYTHON = os.environ.get("RESZOO_PEER", "")
pytestmark = [pytest.mark.peers, pytest.mark.slow]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    if not PYTHON:
        pytest.skip("RESZOO_PEER names no Python with torch, torchvision and timm")
    process = Peer(PYTHON)
    yield process
    process.close()


# The largest are compared by `python -m tests.peers.parity`, whose record is kept: they take minutes and hold no other block.
LARGEST = 60_000_000
TESTED = [row for row in rows() if count(row.model).parameters < LARGEST]


@pytest.mark.parametrize(
    "row", [row for row in TESTED if row.family != "keras"], ids=lambda row: row.label
)
def test_a_net_of_pytorch_and_ours_are_the_same(row: Row, peer: Peer) -> None:
    # Ours is one net for torchvision and for timm: its gradients need comparing once.
    again = row.family == "timm" and any(
        (other.model, other.family) == (row.model, "torchvision") for other in rows()
    )
    holds(compare(row, peer, gradients=not again))


@pytest.mark.parametrize(
    "row", [row for row in TESTED if row.family == "keras"], ids=lambda row: row.label
)
def test_a_net_of_keras_and_ours_are_the_same(row: Row) -> None:
    holds(compare_keras(row))


def holds(found: dict) -> None:
    assert (
        found["logits"] < TOLERANCE and found["gradient"] < TOLERANCE and found["back"] < TOLERANCE
    ), found
    assert count(found["model"]).parameters == found["parameters"]


def test_every_published_architecture_is_compared() -> None:
    assert {row.family for row in rows()} == {"torchvision", "timm", "akamaster", "keras"}
    assert len(rows()) > 35 and len(TESTED) > 25
    assert {row.family for row in TESTED} == {row.family for row in rows()}
