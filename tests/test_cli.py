"""The command line: help, listings, the table of α, completion in a real bash."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import alphagrad_cli
from alphagrad import __version__
from alphagrad.lab import commands

COMMANDS = commands.NAMES
BIN = Path(sys.executable).parent


def test_help(cli):
    for words in ((), ("--help",), ("-h",), ("help",)):
        shown = cli(*words)
        assert shown.status == 0
        assert shown.err == ""
        for command in COMMANDS:
            assert f"alphagrad {command}" in shown.out
        assert "ALPHAGRAD_CONF" in shown.out
        assert "--traceback" in shown.out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_commands(cli, command):
    if command == "run":
        shown = cli("run", "--help").out
        assert "recipe: dqn_cartpole" in shown
        assert "total_steps" in shown
        assert "seed: 0" in shown
        for flag in ("--cfg", "--multirun", "--traceback"):
            assert flag in shown
        for hidden in ("_alphagrad", "experimental", "claim:", "shell-completion"):
            assert hidden not in shown
        assert all(len(line) <= 80 for line in shown.splitlines())
        return
    shown = cli(command, "--help")
    assert shown.status == 0
    assert f"usage: alphagrad {command}" in shown.out


def test_version_alone_takes_no_words(cli):
    assert cli("--version", "x").status == 2


def test_version(cli):
    assert cli("--version").out == f"alphagrad {__version__}\n"


def test_installed_command():
    shown = subprocess.run([BIN / "alphagrad", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"alphagrad {__version__}\n"
    failed = subprocess.run([BIN / "alphagrad", "nope"], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert failed.stdout == ""


def test_ls(cli, checkout):
    shown = cli("ls").out
    headings = ("Recipes", "Variants of AlphaGrad", "Baselines")
    assert [shown.index(h) for h in headings] == sorted(shown.index(h) for h in headings)
    for group in ("recipe", "optimizer", "experiment"):
        for file in (checkout / "conf" / group).glob("[a-z]*.yaml"):
            assert re.search(rf"^  {file.stem}  +\S", shown, re.MULTILINE), file
    baselines = shown.partition("Baselines")[2].partition("Studies")[0]
    for name in ("adam", "adamw", "sgd", "rmsprop", "signsgd", "lars", "lamb", "shampoo", "lion", "muon"):
        assert re.search(rf"^  {name} ", baselines, re.MULTILINE)
    assert not re.search(r"^  (alphagrad|sign|hybrid) ", baselines, re.MULTILINE)


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a table of α: tensor → cells."""
    found = [line.split() for line in text.splitlines() if re.match(r"\s*\d+\.(weight|bias)\s", line)]
    return {cells[0]: cells[1:] for cells in found}


def test_alpha_is_table_2_corrected(cli, lab):
    lab.setenv("COLUMNS", "160")
    shown = cli("alpha", "recipe=dqn_cartpole").out
    assert "network total d = 10,934, √d = 104.6" in shown
    heading = next(line for line in shown.splitlines() if "fan-in" in line)
    columns = re.split(r"\s{1,}", heading.strip())
    assert columns == [
        "tensor",
        "shape",
        "d",
        "fan-in",
        "√d",
        "3√d",
        "√total",
        "3√total",
        "5%>τ",
        "√fan-in",
        "alphagrad",
    ]
    table = {tensor: dict(zip(columns[1:], cells, strict=True)) for tensor, cells in rows(shown).items()}
    shapes = {
        "0.weight": (120, 4),
        "0.bias": (120,),
        "2.weight": (84, 120),
        "2.bias": (84,),
        "4.weight": (2, 84),
        "4.bias": (2,),
    }
    assert list(table) == list(shapes)

    def written(alpha: float) -> str:
        return f"{alpha:.1f}" if alpha < 100 else f"{alpha:.0f}"

    for tensor, shape in shapes.items():
        d = shape[0] * (shape[1] if len(shape) > 1 else 1)
        cells = table[tensor]
        assert cells["shape"] == "×".join(map(str, shape))
        assert cells["d"] == f"{d:,}"
        assert cells["fan-in"] == str(shape[-1])
        assert cells["√d"] == written(d**0.5)
        assert cells["3√d"] == written(3 * d**0.5)
        assert (cells["√total"], cells["3√total"]) == ("105", "314")  # 104.6 and 313.7
        assert cells["5%>τ"] == written(2.5 / 1.9599640 * d**0.5)
        assert cells["√fan-in"] == written(shape[-1] ** 0.5)
        assert cells["alphagrad"] == "100"


def test_alpha_of_the_chosen_optimizer(cli, lab):
    lab.setenv("COLUMNS", "120")
    shown = cli("alpha", "optimizer=sqrt_dim", "alpha.k=2").out
    assert rows(shown)["2.weight"][:2] == ["84×120", "10,080"]
    assert rows(shown)["0.weight"][-1] == "43.8"  # 2·√480
    # the paper's own count for CartPole, and a network without an α of its own
    assert rows(cli("alpha", "alpha=sqrt_total", "alpha.total=8576").out)["0.weight"][-1] == "92.6"
    assert len(rows(cli("alpha", "optimizer=adam").out)["0.weight"]) == 9
    assert len(rows(cli("alpha", "optimizer=sign").out)["0.weight"]) == 9


def test_alpha_follows_the_recipes_network(cli, lab):
    lab.setenv("COLUMNS", "160")
    shown = cli("alpha", "recipe.hidden=[8]", "env.id=Acrobot-v1").out
    assert rows(shown)["0.weight"][:2] == ["8×6", "48"]
    assert f"network total d = {6 * 8 + 8 + 8 * 3 + 3}" in shown


def test_the_home_folder_is_a_tilde(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = yaml.safe_load(cli("run", "--cfg", "job", "recipe=image", "output_root=~/runs", "data.root=~/data").out)
    assert (config["output_root"], config["data"]["root"]) == (f"{tmp_path}/runs", f"{tmp_path}/data")


def test_cfg_job_prints_the_configuration(cli, tmp_path, lab):
    lab.chdir(tmp_path)
    shown = cli("run", "--cfg", "job", "optimizer=hybrid", "seed=7", "transform.lam=0.25")
    assert shown.status == 0
    config = yaml.safe_load(shown.out)
    assert config["seed"] == 7
    assert config["transform"] == {"_target_": "alphagrad.transform.Hybrid", "lam": 0.25}
    assert config["optimizer"]["name"] == "hybrid"
    assert "hydra" not in config
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("optimizer=nope",), "optimizer=nope: no such optimizer; there are"),
        (("recipe.gama=1",), "recipe.gama: no such setting; did you mean gamma?"),
        (("optimizer=adam", "alpha.value=3"), "alpha.value: optimizer=adam has no alpha"),
        (("-m", "seed=1,2"), "Only one of"),
    ],
)
def test_cfg_of_something_unknown(cli, words, said):
    failed = cli("run", "--cfg", "job", *words)
    assert failed.status == 2
    assert failed.err.startswith(f"alphagrad: {said}")
    assert len(failed.err.splitlines()) == 1


def test_what_does_not_train_writes_nothing(cli, tmp_path, lab):
    lab.chdir(tmp_path)
    for words in (("run", "--help"), ("run", "--info", "searchpath"), ("ls",), ("alpha",), ("completion", "bash")):
        assert cli(*words).status == 0
    assert os.listdir(tmp_path) == []


BASH = shutil.which("bash")


def complete(line: str, **environment: str) -> list[str]:
    """What bash puts into COMPREPLY for a line, by the script that `alphagrad completion bash` prints."""
    script = f"""
eval "$(alphagrad completion bash)"
COMP_LINE={line!r}
COMP_POINT=${{#COMP_LINE}}
read -ra COMP_WORDS <<< "$COMP_LINE"
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
[[ $(complete -p alphagrad) == *"-F _alphagrad alphagrad" ]] || exit 3
compopt() {{ :; }}  # bash allows it only while it completes
_alphagrad alphagrad "${{COMP_LINE##* }}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("COMP_", "ALPHAGRAD_"))}
    env |= {"PATH": f"{BIN}:{os.environ['PATH']}", **environment}
    done = subprocess.run([BASH, "--norc", "-c", script], capture_output=True, text=True, check=True, env=env)
    return done.stdout.split()


needs_bash = pytest.mark.skipif(BASH is None, reason="bash is not installed (apt install bash)")


@needs_bash
def test_completion_of_commands():
    assert complete("alphagrad r") == ["run", "resume", "report"]
    assert set(complete("alphagrad ")) == set(COMMANDS)
    assert complete("alphagrad zz") == []


@pytest.mark.long
@needs_bash
def test_completion_of_settings(tmp_path):
    assert "optimizer=" in complete("alphagrad run opt")
    found = complete("alphagrad run optimizer=ad")
    assert set(found) == {"optimizer=adam", "optimizer=adamw"}
    assert "alpha.value=" in complete("alphagrad run alpha.v")
    assert "optimizer=sqrt_dim" in complete("alphagrad alpha recipe=dqn_cartpole optimizer=sq")
    assert "recipe.gamma=" in complete("alphagrad run -m seed=1,2 recipe.ga")
    assert complete("alphagrad ls opt") == []
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer/adventurous.yaml").write_text("name: mine\n")
    assert "optimizer=adventurous" in complete("alphagrad run optimizer=ad", ALPHAGRAD_CONF=str(tmp_path))


def test_completion_needs_a_known_shell(cli):
    failed = cli("completion", "tcsh")
    assert failed.status == 2
    assert "bash" in failed.err


def test_complete_is_not_advertised(cli):
    assert "complete" in commands.HIDDEN
    assert "alphagrad complete" not in cli("--help").out.replace("alphagrad completion", "")


def test_a_reader_that_has_seen_enough():
    """`alphagrad ls | head -1` ends without a traceback."""
    command = f"{sys.executable} -u -m alphagrad_cli run --help | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    assert "alphagrad run" in done.stdout


def test_an_unforeseen_error_is_one_line(cli, lab):
    def fail(argv):
        raise ZeroDivisionError("division\nby zero")

    lab.setattr("alphagrad.lab.commands.ls.main", fail)
    failed = cli("ls")
    assert failed.status == 1
    assert failed.err == "alphagrad: ZeroDivisionError: division by zero (--traceback shows where)\n"
    with pytest.raises(ZeroDivisionError):
        cli("ls", "--traceback")


def test_ctrl_c_in_any_command(cli, lab):
    def interrupted(argv):
        raise KeyboardInterrupt

    lab.setattr("alphagrad.lab.commands.ls.main", interrupted)
    assert cli("ls").status == 130


def test_no_code_ends_the_program_silently(lab, capfd):

    lab.setattr("alphagrad.lab.commands.ls.main", lambda _: sys.exit(0))
    assert alphagrad_cli.main(["ls"]) == 1
    assert "sys.exit(0) was called" in capfd.readouterr().err
    lab.undo()
    for words in (["ls", "--help"], ["run", "--version"]):
        with pytest.raises(SystemExit) as left:
            alphagrad_cli.main(words)
        assert not left.value.code
    for words in (["--version"], ["run", "--help"]):
        assert alphagrad_cli.main(words) == 0
