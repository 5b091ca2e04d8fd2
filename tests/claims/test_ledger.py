"""Every claim is complete, has a criterion, and names a measure that its experiment records."""

from __future__ import annotations

import importlib
import inspect

import pytest

from reszoo.claims.ledger import Claim, find_claims, list_experiments
from reszoo.errors import ReszooError

FIELDS = {
    "id": "x", "statement": "s", "paper": "p", "place": "q", "value": "1", "experiment": "sizes",
    "measure": "m",
}  # fmt: skip


def test_there_are_forty_claims_of_twelve_papers() -> None:
    claims = find_claims()
    assert len(claims) >= 40
    assert len({claim.paper for claim in claims}) >= 12
    assert {claim.experiment for claim in claims} == set(list_experiments())


def test_experiments_are_callable_with_their_arguments() -> None:
    for name, experiment in list_experiments().items():
        module = importlib.import_module(f"reszoo.lab.{experiment.lab}")
        signature = inspect.signature(getattr(module, experiment.lab))
        for arguments in (experiment.arguments, experiment.smoke):
            signature.bind(out=name, **arguments)
        assert experiment.minutes <= 10


def test_a_criterion_is_a_closed_range() -> None:
    claim = Claim(**FIELDS, low=0.9, high=1.1)
    assert [claim.holds(number) for number in (0.89, 0.9, 1.1, 1.11)] == [False, True, True, False]
    assert claim.criterion == "0.9 to 1.1"
    assert Claim(**FIELDS, low=2).criterion == "at least 2"
    assert not Claim(**FIELDS, high=2).holds(float("nan"))
    with pytest.raises(ReszooError, match="no criterion"):
        Claim(**FIELDS)
    with pytest.raises(ReszooError, match="go together"):
        Claim(**FIELDS, low=0, variable="depth")


@pytest.mark.parametrize(
    ("shown", "number", "text", "criterion"),
    [
        ("{}", 0.12345, "0.123", "0.1 to 19.35"),
        ("{} layers", 1202, "1,202 layers", "0.1 to 19.35 layers"),
        ("{} times", 148_793_968, "149,000,000 times", "0.1 to 19.35 times"),
        ("{%} of the blocks", 0.8, "80 % of the blocks", "10 % to 1,935 % of the blocks"),
        ("depth^{}", -0.5291, "depth^-0.529", "depth^0.1 to 19.35"),
    ],
)
def test_numbers_are_written_with_their_unit(
    shown: str, number: float, text: str, criterion: str
) -> None:
    claim = Claim(**FIELDS, shown=shown, low=0.1, high=19.35)
    assert claim.with_unit(claim.write(number)) == text
    assert claim.criterion == criterion


def test_claims_are_found_by_id_experiment_paper_and_wildcard() -> None:
    by_paper = find_claims(["arXiv 1611.01186"])
    assert [claim.id for claim in by_paper] == [
        f"{count}-layer-shortcuts" for count in ("two", "one", "three")
    ]
    assert find_claims(["*-layer-shortcuts"]) == by_paper
    linear = find_claims(["linear"])
    assert all(claim in linear for claim in by_paper) and len(linear) > len(by_paper)
    with pytest.raises(ReszooError, match="did you mean 'two-layer-shortcuts'"):
        find_claims(["two-layer-shortcut"])
    with pytest.raises(ReszooError, match="did you mean 'shortcuts'"):
        find_claims(["shortcut"])
