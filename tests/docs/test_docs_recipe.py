"""The recipe of the documentation, in a package of its own: installed from a folder, trained, stacked and reported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from test_docs_code import desk, lay_out  # noqa: F401
from written import CHECKOUT

PAGE = CHECKOUT / "docs" / "howto" / "recipe.md"
PIP = ("install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")


@pytest.fixture
def installed(desk, lab, tmp_path_factory):  # noqa: F811
    """The environment of a user who has installed the page's package."""
    lay_out(PAGE, desk, lab)
    site = tmp_path_factory.mktemp("site")
    subprocess.run([sys.executable, "-m", "pip", *PIP, "--target", str(site), str(desk)], check=True)
    assert (site / "my_recipes" / "cubic.py").is_file()
    own = {**os.environ, "ALPHAGRAD_CONF": str(desk / "conf"), "PYTHONPATH": str(site), "COLUMNS": "120"}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "alphagrad_cli", *words]
        elsewhere = site.parent  # so that nothing is found beside the command
        done = subprocess.run(command, env=own, cwd=elsewhere, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.long
def test_a_recipe_in_a_package_of_its_own(installed, tmp_path):
    root: Path = tmp_path / "outputs"
    assert "A small network learns x³ − x" in installed("ls")
    told = installed(
        *("run", "-m", "recipe=cubic", "optimizer=adam,sgd", "seed=0,1", "hydra/launcher=stacked"),
        *("stack.processes=1", f"output_root={root}"),
    )
    assert told.count("eval/squared_error 0.") == 4  # its headline, with four digits
    picture = tmp_path / "curves.png"
    report = installed("report", "--plot", str(picture), "--output-root", str(root))
    assert "eval/squared_error" in report
    assert "eval/squared_error drawn in" in report  # its objective
    assert picture.stat().st_size > 1000
