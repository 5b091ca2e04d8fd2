"""Recipes give the weights that the original libraries' own code gives.

Needs RESZOO_PEER, the Python of an environment with torch, torchvision and timm. The record in
docs/results and the table of the documentation are of `python -m tests.peers.equivalence`.
"""

from __future__ import annotations

import os

import pytest

from .equivalence import DEPARTURES, PROOFS, TOLERANCE, Proof, prove

PYTHON = os.environ.get("RESZOO_PEER", "")
pytestmark = [
    pytest.mark.peers,
    pytest.mark.skipif(not PYTHON, reason="RESZOO_PEER names no Python with torch and timm"),
]


@pytest.mark.slow  # about half a minute each on an idle core
@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: proof.recipe)
def test_100_steps_give_the_originals_weights(proof: Proof) -> None:
    found, departures = prove(proof, PYTHON, "float64")
    assert found["weights"] < TOLERANCE and found.get("averages", 0.0) < TOLERANCE, found
    assert found["rates"] < 1e-12 and found["losses"] < TOLERANCE, found
    assert found["moved"] > 5 * TOLERANCE, found  # training has changed the weights
    assert all(apart > 5 * TOLERANCE for apart in departures.values()), departures


def test_each_departure_belongs_to_a_proof() -> None:
    assert {departure.recipe for departure in DEPARTURES} <= {proof.recipe for proof in PROOFS}
