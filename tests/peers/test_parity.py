"""Models of every publisher, converted in both directions, compute what the original computes.

Needs RESZOO_PEER, the Python of an environment with torch, torchvision, timm and safetensors; `.ci/run` makes one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from _pytest.mark import ParameterSet

from reszoo import count

from .parity import TOLERANCE, Peer, Row, compare, compare_keras, rows

PYTHON = os.environ.get("RESZOO_PEER", "")
pytestmark = pytest.mark.peers
QUICK = ("akamaster-resnet20", "torchvision-resnet18")  # the others take minutes together


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    if not PYTHON:
        pytest.skip("RESZOO_PEER names no Python with torch, torchvision and timm")
    process = Peer(PYTHON)
    yield process
    process.close()


# `python -m tests.peers.parity` compares the largest, and its record is kept: they take minutes and have
# no other kind of block.
LARGEST = 60_000_000
TESTED = [row for row in rows() if count(row.model).parameters < LARGEST]


def cases(*, keras: bool) -> list[ParameterSet]:
    """Return the rows of one side; all but QUICK are slow."""
    return [
        pytest.param(row, id=row.label, marks=() if row.label in QUICK else pytest.mark.slow)
        for row in TESTED
        if (row.family == "keras") is keras
    ]


@pytest.mark.parametrize("row", cases(keras=False))
def test_models_of_pytorch_and_reszoo_are_the_same(row: Row, peer: Peer) -> None:
    # One model serves torchvision and timm, so its gradients are compared once.
    again = row.family == "timm" and any(
        (other.model, other.family) == (row.model, "torchvision") for other in rows()
    )
    holds(compare(row, peer, gradients=not again))


@pytest.mark.parametrize("row", cases(keras=True))
def test_models_of_keras_and_reszoo_are_the_same(row: Row) -> None:
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
