"""Checkpoint files: whole or not at all, and nothing in them runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiers import long

from alphagrad.common.errors import ConfigError
from alphagrad.common.files import check_target, write_whole
from alphagrad.harness import metrics
from alphagrad.harness.state import pack, unpack
from alphagrad.instruments.quantities import is_of_tensors
from alphagrad.lab.records.checkpoint import Checkpoints, load_safely, save_atomically
from alphagrad.lab.records.folder import CONFIG, MEMBERS, claimed, is_held, members_of
from alphagrad.lab.store.address import store_uri
from alphagrad.lab.store.connection import open_store
from alphagrad.lab.training.begun import plain_config


class Malicious:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_malicious_pickle_is_refused(tmp_path):
    torch.save({"version": 1, "parts": Malicious(str(tmp_path / "ran"))}, tmp_path / "state-000000000001.pt")
    with pytest.raises(ConfigError, match=r"state-000000000001\.pt: refused") as caught:
        states_of(tmp_path).load()
    assert "system" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "x.pt").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"x\.pt"):
        load_safely(tmp_path / "x.pt")


def test_a_state_without_its_step_is_damaged(tmp_path):
    torch.save({"version": 1}, tmp_path / "state-000000000001.pt")
    with pytest.raises(ConfigError, match=r"state-000000000001\.pt: is damaged"):
        states_of(tmp_path).load()


@pytest.mark.parametrize("text", ["[", '[{"folder": "a"}]', "7"])
def test_a_damaged_list_of_members_is_named(tmp_path, text):
    (tmp_path / MEMBERS).write_text(text)
    with pytest.raises(ConfigError, match=rf"{MEMBERS}: is damaged"):
        members_of(tmp_path)


@pytest.mark.parametrize("text", ["a: [1", "a: ${b}", "- 1"])
def test_a_damaged_configuration_is_named(tmp_path, text):
    (tmp_path / CONFIG).write_text(text)
    with pytest.raises(ConfigError, match=rf"{CONFIG}: ") as caught:
        plain_config(tmp_path)
    assert "\n" not in str(caught.value)


def states_of(folder: Path) -> Checkpoints:
    return Checkpoints(folder, every_steps=10, keep_last=2)


def test_the_last_ones_are_kept(tmp_path):
    checkpoints = states_of(tmp_path)
    for step in range(1, 46):
        if checkpoints.due(step):
            checkpoints.save(step, {"x": step})
    assert [f.name for f in checkpoints.files()] == ["state-000000000030.pt", "state-000000000040.pt"]
    assert states_of(tmp_path).load()["x"] == 40
    checkpoints.clear()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_leaves_the_last_one(tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("cannot mount a tmpfs here")
    try:
        save_atomically({"x": 1}, tmp_path / "state.pt")
        with pytest.raises(OSError, match="cannot be written"):
            save_atomically({"x": torch.zeros(500_000)}, tmp_path / "state.pt")
        assert load_safely(tmp_path / "state.pt") == {"x": 1}
        assert os.listdir(tmp_path) == ["state.pt"]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize("kind", [np.random.PCG64, np.random.MT19937])
def test_generators_go_on(tmp_path, kind):
    a, b = np.random.Generator(kind(3)), np.random.Generator(kind(4))
    a.random(5)
    save_atomically(pack({"rng": [a]}), tmp_path / "x.pt")
    unpack({"rng": [b]}, load_safely(tmp_path / "x.pt"))
    assert np.array_equal(a.random(9), b.random(9))


def test_what_has_no_state_is_refused():
    with pytest.raises(TypeError, match="state_dict"):
        pack({"x": object()})


def test_a_folder_has_one_process_at_a_time(tmp_path):
    lock = tmp_path / "lock"
    with claimed(lock):
        assert is_held(lock)
        with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}"), claimed(lock):
            pass
    assert not is_held(lock)


@pytest.mark.slow
def test_sixteen_writers(tmp_path):
    code = (
        "import sys\n"
        "from alphagrad.lab.records.run import Tracker\n"
        "tracker = Tracker(sys.argv[1], 'together', flush_seconds=0.001)\n"
        "with tracker.run(sys.argv[2], {}, {}):\n"
        "    for step in range(100):\n"
        "        tracker.metrics(step, {'a': step, 'b': -step})\n"
        "        tracker.drain()\n"
    )
    uri = store_uri(None, tmp_path)
    jobs = [subprocess.Popen([sys.executable, "-c", code, uri, str(k)]) for k in range(16)]
    assert [job.wait(300) for job in jobs] == [0] * 16
    client = open_store(uri)
    runs = client.search_runs([client.get_experiment_by_name("together").experiment_id])
    assert len(runs) == 16
    for run in runs:
        assert [p.step for p in client.get_metric_history(run.info.run_id, "a")] == list(range(100))
        assert len(client.get_metric_history(run.info.run_id, "b")) == 100


def test_an_interrupted_save_leaves_nothing(tmp_path, monkeypatch):
    """And the state before it stands."""

    def interrupted(*_):
        raise KeyboardInterrupt

    save_atomically({"step": 1}, tmp_path / "state.pt")
    before = (tmp_path / "state.pt").read_bytes()
    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_atomically({"step": 2}, tmp_path / "state.pt")
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "note", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["state.pt"]
    assert (tmp_path / "state.pt").read_bytes() == before


@pytest.mark.parametrize("recipe", ["dqn_cartpole", *long("ppo_halfcheetah", "td3_hopper", "image", "text", "lm")])
def test_a_best_metric_that_the_recipe_never_logs_is_refused(cli, tmp_path, recipe):
    told = cli("run", f"recipe={recipe}", "checkpoint.best=eval/los", f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert told.err.startswith(f"alphagrad: checkpoint.best=eval/los: recipe {recipe} has no such metric; it has ")
    assert not (tmp_path / "out").exists()


def test_what_a_recipe_says_it_logs_is_what_it_logs(cli, root, tiny, store_runs):
    from alphagrad.recipes.dqn import DQN

    words = (*tiny, "recipe.compile=false", "checkpoint.best=grad_norm/nosuch", f"output_root={root}")
    told = cli("run", *words)
    assert told.status == 0
    (run,) = store_runs(root)
    logged = set(run.data.metrics)
    assert logged >= {metrics.STATE_BYTES, metrics.PEAK_BYTES}  # by the laboratory itself
    logged -= {metrics.STATE_BYTES, metrics.PEAK_BYTES}
    assert {name for name in logged if not metrics.is_logged(name, DQN.logs)} == set()
    assert {name for name in logged if not is_of_tensors(name.partition("/")[0])} == DQN.logs
    # a name that cannot be known before is told at the end
    (said,) = [line for line in told.err.splitlines() if "checkpoint.best=" in line]
    assert "checkpoint.best=grad_norm/nosuch: never came up, so there is no best.pt; there were alpha/" in said


@pytest.mark.long
def test_a_recipe_of_ones_own_need_not_say_what_it_logs(odd, cli, root):
    words = ("recipe=odd", "optimizer=sgd", "recipe.total_steps=3", f"output_root={root}")
    told = cli("run", *words, "checkpoint.best=no/such")
    assert told.status == 0
    assert "checkpoint.best=no/such: never came up" in told.err
    assert "no best.pt" not in cli("run", *words, "checkpoint.best=eval/return").err


@pytest.mark.parametrize("setting", ["tracking.uri", "checkpoint.best", "tracking.artifacts", "tracking.experiment"])
def test_a_word_that_is_empty_is_refused(cli, tmp_path, setting):
    told = cli("run", f"{setting}=", f"output_root={tmp_path / 'out'}")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert told.err.startswith(f"alphagrad: {setting}='': ")
    assert not (tmp_path / "out").exists()


def test_no_measurements_every_0(cli, root, tiny, store_runs):
    assert cli("run", *tiny, "instruments.every=0", "recipe.compile=false", f"output_root={root}").status == 0
    (run,) = store_runs(root)
    assert not [name for name in run.data.metrics if is_of_tensors(name.partition("/")[0])]


def test_a_device_or_pipe_is_not_replaced(tmp_path):
    """As root, a file in its place would be there for the whole machine."""
    pipe = tmp_path / "pipe.md"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match=r"pipe\.md: is no regular file; give another"):
        write_whole(pipe, "text")
    with pytest.raises(ConfigError, match=r"--page=.*pipe\.md: has to be a file in a folder that exists"):
        check_target("--page", pipe)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]
