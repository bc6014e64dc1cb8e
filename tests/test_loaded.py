"""What a fresh interpreter has loaded after an import or a command."""

from __future__ import annotations

import subprocess
import sys

import pytest
from tiers import long_rows


def loaded_after(statement: str, *heavy: str) -> str:
    """Which of the modules a fresh interpreter has loaded after a statement."""
    code = f"import sys\n{statement}\nprint(*[m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import alphagrad.lab.evidence.report, alphagrad.lab.evidence.results", ("torch", "hydra", "mlflow")),
        ("import alphagrad.lab.records.run", ("torch",)),
        (
            "from alphagrad import AlphaGrad, Rule, signals, variants",
            ("hydra", "omegaconf", "mlflow", "pydantic", "scipy"),
        ),
        *long_rows(("import alphagrad.recipes.dqn", ("hydra", "omegaconf", "mlflow"))),
        ("import alphagrad", ("torch", "numpy")),
        (
            "import os, alphagrad_cli; os.environ |= {'COMP_LINE': 'alphagrad run opt', 'COMP_POINT': '17'}; "
            "alphagrad_cli.main(['complete'])",
            ("torch", "numpy", "mlflow"),
        ),
        (
            "import alphagrad_cli; alphagrad_cli.main(['--help'])",
            ("torch", "numpy", "hydra", "omegaconf", "mlflow", "rich"),
        ),
    ],
)
def test_what_is_loaded(statement, absent):
    assert loaded_after(statement, *absent) == ""


def test_what_is_loaded_can_tell():
    assert loaded_after("import numpy", "torch", "numpy") == "numpy"
