"""Checkpoint files: whole or not at all, and nothing in them runs."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from alphagrad.lab.begun import plain_config
from alphagrad.lab.build import CheckpointSettings
from alphagrad.lab.checkpoint import Checkpoints, load_safely, save_atomically
from alphagrad.lab.errors import ConfigError
from alphagrad.lab.folder import CONFIG, MEMBERS, claimed, is_held, members_of, write_whole
from alphagrad.lab.state import pack, unpack
from alphagrad.lab.store import open_store, store_uri


class Malicious:
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_malicious_pickle_is_refused(tmp_path):
    torch.save({"version": 1, "parts": Malicious(str(tmp_path / "ran"))}, tmp_path / "state-000000000001.pt")
    with pytest.raises(ConfigError, match=r"state-000000000001\.pt: refused") as caught:
        Checkpoints(tmp_path, settings()).load()
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
        Checkpoints(tmp_path, settings()).load()


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


def settings(**changes) -> CheckpointSettings:
    default = {"every_seconds": None, "every_steps": 10, "keep_last": 2, "best": None, "best_is": "max"}
    return CheckpointSettings(**{**default, **changes})


def test_the_last_ones_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, settings())
    for step in range(1, 46):
        if checkpoints.due(step):
            checkpoints.save(step, {"x": step})
    assert [f.name for f in checkpoints.files()] == ["state-000000000030.pt", "state-000000000040.pt"]
    assert Checkpoints(tmp_path, settings()).load()["x"] == 40
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
        "from alphagrad.lab.tracking import Tracker\n"
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
