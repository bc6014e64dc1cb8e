"""`alphagrad watch`: the video shows the checkpoint's policy, frame by frame; wrong words are named."""

from __future__ import annotations

import ctypes.util
from typing import ClassVar

import gymnasium as gym
import imageio.v2 as imageio
import pytest
import torch
from alphagrad.recipes.mlp import mlp
from gymnasium.envs.classic_control import CartPoleEnv

SHORT = ("recipe.eval_every=0", "recipe.eval_episodes=1", "instruments.every=0")


@pytest.fixture
def run(cli, root, tiny):
    """The folder of a finished CartPole run."""
    assert cli("run", *tiny, *SHORT, f"output_root={root}").status == 0
    return next(root.rglob("run_id")).parent


def greedy_episode(folder, seed: int) -> int:
    """The length of an episode of the checkpoint's network, played without any code of the recipes."""
    network = mlp([4, 120, 84, 2])
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)["q_network"]
    network.load_state_dict(saved)
    env = gym.make("CartPole-v1")
    observation, _ = env.reset(seed=seed)
    length, over = 0, False
    while not over:
        action = network(torch.as_tensor(observation)).argmax().item()
        observation, _, terminated, truncated, _ = env.step(action)
        length, over = length + 1, terminated or truncated
    return length


@pytest.mark.parametrize("suffix", ["mp4", "gif"])
@pytest.mark.long
def test_the_video_is_the_policys_episodes(cli, run, root, store_runs, suffix):
    file = root / f"seen.{suffix}"
    seen = cli("watch", str(run), "--out", str(file), "--episodes", "2", "--seed", "3", "--artifact")
    assert seen.status == 0, seen.err
    lengths = [greedy_episode(run, seed) for seed in (3, 4)]
    assert ", ".join(f"{n:.1f}" for n in lengths) in seen.out  # a reward of 1 a step
    frames = [frame.shape for frame in imageio.mimread(file, memtest=False)]
    assert {shape[:2] for shape in frames} == {(400, 600)}
    if suffix == "mp4":  # a gif joins frames that are alike
        assert len(frames) == sum(lengths) + 2
    assert not list(root.rglob("*.tmp*"))
    (own,) = store_runs(root)
    logged = root / "artifacts" / "dqn_cartpole" / own.info.run_id / "artifacts" / "videos" / file.name
    assert logged.read_bytes() == file.read_bytes()


@pytest.mark.long
def test_a_run_is_found_by_the_beginning_of_its_id(cli, run, root):
    run_id = (run / "run_id").read_text().strip()
    seen = cli("watch", run_id[:8], "--output-root", str(root))
    assert (seen.status, (run / "watch.mp4").exists()) == (0, True)


@pytest.mark.skipif(ctypes.util.find_library("EGL") is None, reason="needs EGL: apt install libegl1 libgl1-mesa-dri")
@pytest.mark.long
def test_mujoco_is_drawn_without_a_screen(cli, root, tmp_path):
    short = ("recipe.total_steps=64", "recipe.num_steps=32", "recipe.minibatches=2", "env.id=InvertedPendulum-v5")
    assert cli("run", "recipe=ppo_halfcheetah", *short, *SHORT, f"output_root={root}").status == 0
    folder = next(root.rglob("run_id")).parent
    seen = cli("watch", str(folder), "--out", str(tmp_path / "seen.mp4"))
    assert seen.status == 0, seen.err
    frames = imageio.mimread(tmp_path / "seen.mp4", memtest=False)
    assert len(frames) > 1
    assert any((frames[0] != frame).any() for frame in frames)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "x.avi"), "--out=x.avi: must end in .mp4, .gif, .webm"),
        (("--out", "nowhere/x.mp4"), "--out=nowhere/x.mp4: has to be a file in a folder that exists"),
        (("--episodes", "0"), "--episodes=0: must be at least 1"),
        (("--best",), "has no best.pt yet"),
    ],
)
def test_wrong_words_are_named(cli, run, words, said):
    seen = cli("watch", str(run), *words)
    assert seen.status == 2
    assert said in seen.err
    assert len(seen.err.splitlines()) == 1
    assert not list(run.glob("watch*"))


class Blind(CartPoleEnv):
    """CartPole without pictures."""

    metadata: ClassVar[dict] = {"render_modes": []}

    def render(self):
        return gym.Env.render(self)


def test_an_environment_without_pictures(cli, root, tiny):
    gym.register("alphagrad_watch/Blind-v0", Blind, max_episode_steps=20)
    assert cli("run", *tiny, *SHORT, "env.id=alphagrad_watch/Blind-v0", f"output_root={root}").status == 0
    folder = next(root.rglob("run_id")).parent
    seen = cli("watch", str(folder))
    assert seen.status == 2, seen.err
    assert seen.err.splitlines()[-1] == "alphagrad: env.id=alphagrad_watch/Blind-v0: cannot be drawn off the screen"
    assert not list(folder.glob("watch*"))


class Misshapen(CartPoleEnv):
    """Its third observation while it is drawn is of another shape."""

    def __init__(self, render_mode=None):
        super().__init__(render_mode=render_mode)
        self.taken = 0

    def reset(self, **given):
        self.taken = 0
        return super().reset(**given)

    def step(self, action):
        self.taken += 1
        observation, *rest = super().step(action)
        wrong = self.render_mode is not None and self.taken == 3
        return (observation[:2] if wrong else observation, *rest)


def test_an_environments_mistake_is_told_as_such(cli, root, tiny):
    gym.register("alphagrad_watch/Misshapen-v0", Misshapen, max_episode_steps=20)
    assert cli("run", *tiny, *SHORT, "env.id=alphagrad_watch/Misshapen-v0", f"output_root={root}").status == 0
    folder = next(root.rglob("run_id")).parent
    seen = cli("watch", str(folder))
    assert seen.status == 1
    told = "env.id=alphagrad_watch/Misshapen-v0: its step 3 gave an observation of shape [2]; its space says [4]"
    assert told in seen.err.splitlines()[-1]
    assert not list(folder.glob("watch*"))


def test_a_checkpoint_that_runs_code_is_refused(cli, run):
    class Evil:
        def __reduce__(self):
            return (exit, (7,))

    torch.save({"q_network": Evil()}, run / "checkpoint.pt")
    seen = cli("watch", str(run))
    assert (seen.status, len(seen.err.splitlines())) == (2, 1)
    assert f"{run / 'checkpoint.pt'}: refused, it holds more than tensors and plain values" in seen.err
    assert "weights_only" not in seen.err
    assert not (run / "watch.mp4").exists()


def test_no_run(cli, root, tmp_path):
    seen = cli("watch", str(tmp_path), "--output-root", str(root))
    assert (seen.status, seen.err) == (2, f"alphagrad: {tmp_path}: is not the folder of a run, it has no config.yaml\n")


def test_a_run_that_its_store_does_not_have_is_refused_before_it_is_drawn(cli, run):
    (run / "run_id").write_text("null")
    seen = cli("watch", str(run), "--artifact")
    assert (seen.status, len(seen.err.splitlines())) == (2, 1)
    assert f"{run}/run_id: names the run null, which is not in the store sqlite:///" in seen.err
    assert not (run / "watch.mp4").exists()


def test_a_run_of_no_store_is_refused_before_it_is_drawn(cli, run):
    (run / "run_id").unlink()
    seen = cli("watch", str(run), "--artifact")
    assert seen.status == 2
    assert "watch without --artifact" in seen.err
    assert not (run / "watch.mp4").exists()


@pytest.mark.long
def test_a_damaged_checkpoint_is_named(cli, run):
    damaged = [b"", b"no checkpoint", {"q_network": {}}, {"other": 1}, {"q_network": 3}, [1, 2]]
    for content in [*damaged, {"q_network": {"0.weight": 1}}]:
        checkpoint = run / "checkpoint.pt"
        if isinstance(content, bytes):
            checkpoint.write_bytes(content)
        else:
            torch.save(content, checkpoint)
        seen = cli("watch", str(run))
        assert (seen.status, len(seen.err.splitlines())) == (2, 1), seen.err
        assert seen.err.startswith(f"alphagrad: {checkpoint}: ")
        assert "weights_only" not in seen.err
        assert not list(run.glob("watch*"))


def test_a_checkpoint_that_is_cut_off_is_named(cli, run):
    checkpoint = run / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-200])
    seen = cli("watch", str(run))
    assert (seen.status, len(seen.err.splitlines())) == (2, 1), seen.err
    assert seen.err.startswith(f"alphagrad: {checkpoint}: ")


DAMAGED = [
    ("config.yaml", b""),
    ("config.yaml", b"- 1\n"),
    ("config.yaml", b"a: [\n"),
    ("config.yaml", b"\xff\xfe"),
    ("config.yaml", b"recipe: 3\n"),
    ("config.yaml", b"seed: " + b"9" * 5000),
    ("config.yaml", b"a: ${a}\n"),
    ("run_id", b"\xff\xfe\x00"),
    ("run_id", b"../../elsewhere"),
    ("run_id", b"x" * 10_000),
    ("run_id", b"' OR 1=1 --"),
    ("members.json", b"{"),
    ("stack", b"\xff"),
]


@pytest.mark.long
def test_damaged_files_of_a_folder_are_named(cli, run):
    for name, content in DAMAGED:
        before = (run / name).read_bytes() if (run / name).exists() else None
        (run / name).write_bytes(content)
        for command in ("resume",) if name in ("members.json", "stack") else ("resume", "watch"):
            told = cli(command, str(run), *(["--artifact"] if command == "watch" else []))
            assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
            assert told.err.startswith(f"alphagrad: {run / name}: "), told.err
            assert len(told.err) < 1000
        (run / name).unlink() if before is None else (run / name).write_bytes(before)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"arguments": "seed=1", "cwd": "/"}',
        b'{"arguments": [1], "cwd": "/"}',
        b"\xff",
        b"[" * 5000,
    ],
)
def test_damaged_arguments_of_a_study_are_named(cli, root, content):
    folder = root / "study"
    folder.mkdir()
    (folder / "arguments.json").write_bytes(content)
    told = cli("resume", str(folder), "--output-root", str(root))
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert told.err.startswith(f"alphagrad: {folder / 'arguments.json'}: is damaged")


@pytest.mark.parametrize("what", ["x" * 300, "x" * 5000, "../" * 2000, "' OR 1=1 --"])
@pytest.mark.parametrize("command", ["watch", "resume"])
def test_what_is_no_run_is_one_line(cli, root, command, what):
    told = cli(command, what, "--output-root", str(root))
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert len(told.err) < 500
