"""The wheel: the optimizer where only torch and NumPy are installed, the laboratory where everything is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distribution, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from alphagrad import __version__

SOURCES = ("alphagrad", "conf", "recipes", "alphagrad_cli.py", "pyproject.toml", "README.md", "LICENSE")
COMMANDS = {
    "run": [],
    "tune": [],
    "resume": ["3f2a"],
    "status": [],
    "ls": [],
    "alpha": [],
    "report": [],
    "export": ["--to", "runs.csv"],
    "export-model": ["3f2a"],
    "claims": [],
    "instruments": [],
    "watch": ["3f2a"],
    "landscape": ["3f2a"],
    "ui": [],
}
TRAINED = """
import importlib.util, json, sys, warnings
warnings.simplefilter("error")
import torch
from alphagrad import AlphaGrad, InBackward, Rule, signals, variants

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))
optimizer = AlphaGrad(model.named_parameters(), lr=3e-3, momentum=0.9, rule=variants.sqrt_dim(k=2.0))
inputs = torch.randn(256, 2)
targets = inputs.prod(1, keepdim=True)
losses = []
for _ in range(300):
    optimizer.zero_grad()
    loss = (model(inputs) - targets).square().mean()
    loss.backward()
    signals(optimizer)
    optimizer.step()
    losses.append(loss.item())
asked = sys.argv[1:]
print(json.dumps([losses, [name for name in asked if importlib.util.find_spec(name)]]))
"""


def packages(name: str, extras: frozenset[str] = frozenset()) -> dict[str, Distribution]:
    """A package of this environment and all that it needs."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(name, extras)]
    while waiting:
        package, wanted = waiting.pop()
        if (package, wanted) in seen:
            continue
        seen.add((package, wanted))
        found[canonicalize_name(package)] = distribution(package)
        for line in requires(package) or ():
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": e}) for e in ("", *wanted)):
                waiting.append((need.name, frozenset(need.extras)))
    return found


@pytest.fixture(scope="module")
def there() -> dict[str, Distribution]:
    """What the environment holds: torch, NumPy and what they need."""
    return packages("torch") | packages("numpy")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    checkout = Path(__file__).resolve().parent.parent
    work = tmp_path_factory.mktemp("wheel")
    (work / "sources").mkdir()
    for name in SOURCES:  # a copy: a build leaves files in the folder it builds
        if (checkout / name).is_file():
            shutil.copy(checkout / name, work / "sources")
        else:
            shutil.copytree(checkout / name, work / "sources" / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["-m", "build", "--wheel", "--no-isolation", "--outdir", str(work), str(work / "sources")]
    subprocess.run([sys.executable, *build], check=True, capture_output=True)
    (built,) = work.glob("*.whl")
    return built


def environment(work: Path, wheel: Path) -> tuple[Path, Path]:
    """The Python and the folder of packages of a new environment with the wheel alone."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(work / "env")], check=True)
    (site,) = (work / "env").glob("lib/python*/site-packages")
    python = work / "env/bin/python"
    pip = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *pip], check=True)
    return python, site


@pytest.fixture(scope="module")
def alone(tmp_path_factory, there, wheel) -> Path:
    """The Python of an environment with torch, NumPy, what these need, and the wheel installed with `--no-deps`."""
    python, site = environment(tmp_path_factory.mktemp("alone"), wheel)
    for found in there.values():
        for entry in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            link = site / entry
            if not link.is_symlink():
                link.symlink_to(Path(str(found.locate_file(entry))))
    return python


def ran(alone: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "ALPHAGRAD", "MLFLOW"))}
    return subprocess.run([*words], capture_output=True, text=True, check=False, cwd=folder, env=env)


@pytest.mark.long
def test_the_optimizer_trains_where_only_torch_is(alone, there, tmp_path):
    names = ("hydra", "omegaconf", "mlflow", "pydantic", "rich", "numba", "matplotlib", "gymnasium", "scipy", "sklearn")
    done = ran(alone, str(alone), "-c", TRAINED, *names, "torch", "numpy", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    losses, importable = json.loads(done.stdout)
    assert importable == ["torch", "numpy"]
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.long
def test_the_command_line_says_what_is_missing(alone, there, tmp_path):
    """One line, status 2, nothing written; the flags that need nothing work."""
    asked = [canonicalize_name(Requirement(line).name) for line in requires("alphagrad") if "extra ==" not in line]
    missing = [name for name in asked if name not in there]
    assert {"hydra-core", "mlflow", "omegaconf", "pydantic", "rich", "pyyaml"} <= set(missing)
    program = str(alone.with_name("alphagrad"))
    for command, words in COMMANDS.items():
        done = ran(alone, program, command, *words, folder=tmp_path)
        assert (done.returncode, done.stdout) == (2, ""), (command, done)
        (line,) = done.stderr.splitlines()
        assert line == (
            f"alphagrad: {command}: needs {', '.join(missing)}; "
            "`pip install alphagrad`, without --no-deps, installs what is missing"
        )
    assert ran(alone, program, "--version", folder=tmp_path).stdout == f"alphagrad {__version__}\n"
    shown = ran(alone, program, "--help", folder=tmp_path)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "alphagrad run" in shown.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_the_laboratory_runs_from_the_wheel(wheel, tmp_path):
    """Where Hydra finds the plugins in a folder of packages, not through the checkout."""
    python, site = environment(tmp_path, wheel)
    beside = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "beside.pth").write_text("\n".join(beside))  # folders named there are not searched for `.pth` files
    words = ("run", "recipe.total_steps=1000", "optimizer=sin_tanh", "--cfg", "job")
    done = ran(python, str(python.with_name("alphagrad")), *words, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "total_steps: 1000" in done.stdout


def test_the_code_of_one_checkout_with_the_configuration_of_another_is_refused(tmp_path, checkout):
    """As a second checkout's in the first one's environment: Python finds the first one's configuration."""
    for part in ("alphagrad", "conf", "recipes"):
        shutil.copytree(checkout / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(checkout / "alphagrad_cli.py", tmp_path)
    refused = subprocess.run(
        [sys.executable, "-m", "alphagrad_cli", "ls"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    told = f"alphagrad: {tmp_path}: its conf/ is not the one that is found, {checkout / 'conf'}; "
    assert refused.stderr.startswith(told)
    assert refused.stderr.count("\n") == 1
