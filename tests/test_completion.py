"""Tab completion, in real shells at a terminal of their own."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
SECONDS = 60


@pytest.fixture(
    params=[
        pytest.param(
            name,
            marks=[
                pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed (apt install {name})"),
                *([] if name == "bash" else [pytest.mark.long]),
            ],
        )
        for name in SHELLS
    ]
)
def shell(request, tmp_path):
    """``shell(line)`` → the lines of input once a tab was pressed at the end of each."""

    def typed(*lines: str, keys: str = "\t", folder: Path = tmp_path, **environment: str) -> list[str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("COMP_", "ALPHAGRAD_"))}
        env |= {"PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "dumb", "HOME": str(tmp_path), **environment}
        pid, terminal = pty.fork()
        if not pid:
            os.chdir(folder)
            os.execvpe(request.param, SHELLS[request.param], env)
        try:
            said = send(
                terminal, f'eval "$(alphagrad completion {request.param})"; stty columns 2000; echo rea""dy\n', "ready"
            )
            for number, line in enumerate(lines):
                # what is in the line then is written by echo
                said += send(terminal, f"{line}{keys}\x01echo '>{number}' '\x05' '<'{number}''\n", f"<{number}\r")
        finally:
            os.kill(pid, signal.SIGKILL)
            os.close(terminal)
            os.waitpid(pid, 0)
        return [re.findall(rf">{number} (.*?) ?<{number}\r", said)[-1].rstrip() for number in range(len(lines))]

    return typed


def send(terminal: int, text: str, until: str) -> str:
    """What the shell writes until it has written something."""
    os.write(terminal, text.encode())
    said, deadline = "", time.monotonic() + SECONDS
    while until not in said:
        assert time.monotonic() < deadline, said
        if select.select([terminal], [], [], 0.5)[0]:
            said += os.read(terminal, 65536).decode(errors="replace")
    return said


def test_one_candidate_is_inserted(shell):
    assert shell(
        "alphagrad sta",
        "alphagrad run optimizer=sqr",
        "alphagrad run -m optimizer=adam,sqr",
        "alphagrad alpha recipe=dqn_c",
        "alphagrad run hydra/launcher=sta",
        "alphagrad completion z",
    ) == [
        "alphagrad status",
        "alphagrad run optimizer=sqrt_dim",
        "alphagrad run -m optimizer=adam,sqrt_dim",
        "alphagrad alpha recipe=dqn_cartpole",
        "alphagrad run hydra/launcher=stacked",
        "alphagrad completion zsh",
    ]


def test_of_several_only_what_they_share_is_inserted(shell):
    """And never all of them as one word."""
    assert shell("alphagrad run optimizer=ada", "alphagrad run optimizer=_al") == [
        "alphagrad run optimizer=adam",
        "alphagrad run optimizer=_al",
    ]


def test_runs_and_folders(shell, tmp_path):
    for place, run_id in (("dqn/adam/seed0-1/2", "abc123456789"), ("dqn/studies/1", "def123456789")):
        (tmp_path / "outputs" / place).mkdir(parents=True)
        (tmp_path / "outputs" / place / "run_id").write_text(f"{run_id}\n")
    (tmp_path / "outputs/dqn/studies/1/arguments.json").write_text("{}")
    (tmp_path / "elsewhere/x").mkdir(parents=True)
    (tmp_path / "elsewhere/x/run_id").write_text("eee123456789\n")
    assert shell(
        "alphagrad status d",
        "alphagrad report a",
        "alphagrad resume abc1234567",
        "alphagrad watch d",
        "alphagrad resume outputs/dqn/st",
        "alphagrad status --output-root elsewhere ",
    ) == [
        "alphagrad status def12345",
        "alphagrad report abc12345",
        "alphagrad resume abc123456789",
        "alphagrad watch d",
        "alphagrad resume outputs/dqn/studies/",
        "alphagrad status --output-root elsewhere eee12345",
    ]
