"""Rules of claims that cannot decide are refused."""

from __future__ import annotations

import pytest
from test_lab_verdict import COMPARED, claim

from alphagrad.lab.evidence.claims.ledger import Claim, Part


@pytest.mark.parametrize(
    "part",
    [
        {"than": 1.0, "at_most": 2.0},
        {},
        {"than": 1.0, "least": -1.0},
        {"than": 1.0, "within": -1.0},
        {"than": 1.0, "least": 1.0, "within": 1.0},
        {"than": 1.0, "direction": "equal"},
        {"than": float("nan")},
        {"at_least": 1.0, "at_most": 0.0},
        {"at_most": 0.0, "least": 1.0},
        {"at_most": 0.0, "best": ["lr"]},
    ],
)
def test_a_part_says_one_thing(part):
    with pytest.raises(ValueError, match=r"has to|must be|should be|says nothing"):
        Part(says="s", measure="m", **part)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"seeds": 0}, "seeds"),
        ({"needs": 0}, "needs"),
        ({"needs": 2}, "needs=2: has only 1 parts"),
        ({"parts": {}}, "parts"),
        ({"objective": "rice of m"}, "rice of m: of a curve there are drawdown, rise, area, peak, roughness"),
        ({"worst": {"m": float("inf")}}, "worst"),
    ],
)
def test_a_claim_that_cannot_be_decided_is_refused(changes, told):
    with pytest.raises(ValueError, match=told):
        Claim(**claim(only=COMPARED).model_dump(exclude_unset=True) | changes)
