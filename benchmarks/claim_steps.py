"""Evidence for what a step of AlphaGrad costs and keeps (C4, C5): time and state, beside Adam's in the same rounds.

    python benchmarks/claim_steps.py evidence

A row for each round: the time of a step over fused Adam's of the same round, and the bytes of state. Rounds of one
process are no independent machines: what they say holds for this one.
"""

from __future__ import annotations

import argparse
import platform
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
from optimizer_step import shapes_of, timed

from alphagrad import AlphaGrad
from alphagrad.lab.evidence.claims.data import Origin, commands, keep
from alphagrad.lab.evidence.claims.ledger import claim
from alphagrad.lab.records.provenance import provenance

NETWORKS = {"mlp 11 k": "11k", "161 tensors": "161x16", "resnet18": "resnet18", "gpt 82 m": "82m"}
STEPS = {"mlp 11 k": 200, "161 tensors": 100, "resnet18": 1, "gpt 82 m": 1}
"""Of a round, so that it takes milliseconds."""
MOMENTA = (0.0, 0.9)


def parameters(size: str) -> list[torch.nn.Parameter]:
    """Of a network, with gradients."""
    made = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes_of(size)]
    for p in made:
        p.grad = torch.randn_like(p)
    return made


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """What it keeps between steps."""
    tensors = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    return sum(t.numel() * t.element_size() for t in tensors)


def measured(network: str, rounds: int) -> list[dict[str, object]]:
    """A row for each round and momentum."""
    size, steps = NETWORKS[network], STEPS[network]
    adam = torch.optim.Adam(parameters(size), fused=True)
    ours = {
        momentum: AlphaGrad([(f"p{i}", p) for i, p in enumerate(parameters(size))], lr=1e-3, momentum=momentum)
        for momentum in MOMENTA
    }
    own = sum(p.numel() * p.element_size() for p in parameters(size))

    def several(optimizer: torch.optim.Optimizer) -> None:
        for _ in range(steps):
            optimizer.step()

    for optimizer in (adam, *ours.values()):
        several(optimizer)
    rows: list[dict[str, object]] = []
    for number in range(rounds):
        base = timed(lambda: several(adam), torch.device("cpu"))
        for momentum, optimizer in ours.items():
            taken = timed(lambda optimizer=optimizer: several(optimizer), torch.device("cpu"))  # type: ignore[misc]
            kept = state_bytes(optimizer)
            rows.append(
                {
                    "seed": number,
                    "network": network,
                    "optimizer": "alphagrad",
                    "momentum": momentum,
                    "ratio": taken / base,
                    "state_share": kept / own,
                    "state_over_adam": kept / state_bytes(adam),
                }
            )
    return rows


def main() -> None:
    """Measures, and keeps the evidence."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder", type=Path)
    p.add_argument("--rounds", type=int, default=20)
    args = p.parse_args()
    if args.rounds < 1:
        p.error(f"--rounds={args.rounds}: must be ≥ 1")
    table = pd.DataFrame([row for network in NETWORKS for row in measured(network, args.rounds)])
    tags = provenance()
    versions = {"torch": tags["version.torch"], "python": platform.python_version()}
    day = f"{datetime.now(UTC):%Y-%m-%d}"
    origin = Origin(commands(claim("C4")), tags.get("mlflow.source.git.commit", ""), versions, len(table), day)
    for name in ("C4", "C5"):
        keep(args.folder, claim(name), table, origin)


if __name__ == "__main__":
    main()
