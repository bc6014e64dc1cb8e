"""Wrong command lines made of the composed configuration; none names a path outside of the folder it is given.

Nothing is trained: :func:`told` has what would train noted instead. So it is safe as any user.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

RECIPES = ("dqn_cartpole", "ppo_halfcheetah", "td3_hopper", "image", "lm", "text", "regression", "theory")
OPTIMIZERS = ("alphagrad", "hybrid", "saturation", "adam", "sgd", "muon", "lars", "lion", "rmsprop", "shampoo")
GROUPS = (
    "recipe",
    "optimizer",
    "tracking",
    "instruments",
    "normalization",
    "alpha",
    "transform",
    "data",
    "model",
    "problem",
)
PATHS = ("output_root", "tracking.uri", "tracking.artifacts", "data.root", "model.path", "data.train", "data.test")
"""Settings that name places; a plain word is right for them."""
FREE = ("optimizer.name", "tracking.experiment", "checkpoint.best", "recipe.name", "env.id", "data.name", "model.name")
"""Settings that are words."""
LONG, DIGITS = "x" * 5000, "9" * 5000
WRONG = {
    bool: ("maybe", "7", "-1", "[true]", "{a: 1}", "1.5", LONG, DIGITS, "''", "None"),
    int: ("abc", "1.5", "-3", "[1]", "{a: 1}", "true", LONG, DIGITS, "1e400", "nan", "''", "0x10z", "१२x"),
    float: ("abc", "nan", "inf", "-inf", "[[1]]", "{a: 1}", "true", LONG, DIGITS, "''", "1_0_x"),
    str: ("[a,b]", "{a: 1}", "[]", LONG, DIGITS, "''"),
    list: ("abc", "{a: 1}", "[[]]", "[a]", LONG, DIGITS, "true", "''"),
    type(None): ("[[1]]", "{a: {b: 1}}", DIGITS),
    dict: ("abc", "7", "true", "[1]", DIGITS),
}
"""Kind of a setting → values that no such setting takes."""
POINTERS = ("${nosuch}", "${oc.env:ALPHAGRAD_TEST_NOWHERE}", "${nosuch:1}", "${oc.decode:'[1'}", "${a.b.c}", "${")
WORDS = (
    "é",
    "日本",
    "👩‍🔬",
    "%s",
    "{}",
    "..",
    "a b",
    "a,b",
    "'",
    '"',
    "\\",
    "|",
    ";",
    "$(x)",
    "`x`",
    "!",
    "#x",
    "*",
    "?",
)
CONTROL = ("\x00", "\x1b[31m", "\r", "\n", "\udcff", "\u202e", "\x9b", "\x7f")
NO_NAMES = ("null", "3", "1.5", "true", "[1]", "{a: 1}", "-1", LONG, DIGITS, "nosuch", "../x", "/x")
ADDING = ("", "+", "++")
POINTER = "${{{}}}"
TARGETS = ("os.nosuch", "alphagrad_nowhere.x", "alphagrad.nosuch", "nosuch", "3", "null", "alphagrad", "a..b", ".a", "")
HYDRA = (
    "hydra.launcher._target_=alphagrad_nowhere.x",
    "hydra.sweeper._target_=alphagrad_nowhere.x",
    "hydra=null",
    "hydra=3",
    "~hydra",
    "hydra.run=null",
    "hydra.run.dir=null",
    "hydra.run.dir=[1]",
    "hydra.run.dir=''",
    "hydra.sweep.dir=3",
    "hydra.sweep.subdir=x",
    "hydra.launcher=null",
    "hydra.launcher=3",
    "hydra/launcher=null",
    "hydra/launcher=nosuch",
    "hydra/launcher=3",
    "hydra/launcher=basic,stacked",
    "hydra.launcher.nosuch=1",
    "+hydra.launcher.nosuch=1",
    "hydra.sweeper.params=3",
    "hydra/job_logging=null",
    "hydra.job_logging=null",
    "hydra.callbacks=3",
    "hydra.verbose={a: 1}",
    "hydra.job.num=x",
    "hydra.nosuch=1",
    "hydra.run.dir.x=1",
    "hydra@x=1",
)
SWEEPS = (
    "seed=1,abc",
    "seed=0,-1",
    "seed=range(0)",
    "seed=range(3,1)",
    "seed=range(0,5,0)",
    "seed=range(1000000000000)",
    "seed=range(0,inf)",
    "seed=range(a,b)",
    "seed=interval(0,1)",
    "seed=choice()",
    "seed=glob(zzz*)",
    "seed=choice(1,x)",
    "seed=sort(3,x)",
    "seed=shuffle(range(2),nosuch=1)",
    "optimizer=adam,nosuch",
    "optimizer=adam,3",
    "optimizer=adam,null",
    "recipe=dqn_cartpole,nosuch",
    "recipe.gamma=0.9,2",
    "checkpoint.keep_last=1,0",
    "stack.max_runs=1,2",
    "tracking.flush_seconds=1,2",
    "tracking.uri=a,b",
    "output_root=a,b",
    "study.rerun=failed,all",
    "optimizer.lr=1e-3,abc",
    "alpha.value=1,abc",
    "+nosuch=1,2",
    "~optimizer=adam,sgd",
    "seed=1,9" + DIGITS,
    "seed=" + ",".join(["1"] * 200) + ",x",
)
SHAPES = (
    "",
    "=",
    "==",
    "+",
    "++",
    "~",
    "=1",
    "seed",
    "seed 3",
    "seed==3",
    "seed = x",
    "seed=[",
    "seed={",
    "seed=(",
    "seed='",
    "a=b=c",
    "+a.b.=1",
    ".seed=1",
    "seed.=1",
    "..=1",
    "seed.x=1",
    "seed[0]=1",
    "+seed=1",
    "~seed=9",
    "seed@x=1",
    "optimizer@=adam",
    "optimizer@recipe=adam",
    "+optimizer@mine=adam",
    "recipe@_global_.x=image",
    "--seed=3",
    "-seed",
    "--nosuch",
    "--config-name=x",
    "--config-path=x",
    "--config-dir=" + LONG,
    "--experimental-rerun=x",
    "--allow-target",
    LONG,
    LONG + "=1",
    "+" + LONG + "=1",
    "~" + LONG,
    "a." * 500 + "b=1",
    "+" + "a." * 500 + "b=1",
    "seed=" + "[" * 300 + "]" * 300,
    "seed=" + "{a:" * 300 + "1" + "}" * 300,
)


def kinds_of(compose: Callable[..., Any], recipe: str, optimizer: str) -> dict[str, Any]:
    """Every setting and section of a job, by path, with its value."""
    found: dict[str, Any] = {}

    def walk(node: Any, path: str) -> None:
        for key, value in node.items():
            name = f"{path}.{key}" if path else key
            found[name] = value
            if isinstance(value, dict):
                walk(value, name)

    walk(OmegaConf.to_container(compose(f"recipe={recipe}", f"optimizer={optimizer}"), resolve=False), "")
    return found


def lines(compose: Callable[..., Any], seed: int, count: int) -> Iterator[list[str]]:
    """Wrong lines of words for ``alphagrad run``, always the same for a seed."""
    draw = random.Random(seed)
    known: dict[tuple[str, str], dict[str, Any]] = {}
    for _ in range(count):
        job = draw.choice(RECIPES[:4]), draw.choice(OPTIMIZERS)
        if job not in known:
            known[job] = kinds_of(compose, *job)
        groups = [f"recipe={job[0]}", f"optimizer={job[1]}"]
        wrong, study = _wrong(draw, known[job])
        keys = {word.lstrip("+~").partition("=")[0] for word in wrong}
        words = [*(word for word in groups if word.partition("=")[0] not in keys), *wrong]
        draw.shuffle(words)
        yield [*(["-m"] if study else []), *words]


def _wrong(draw: random.Random, settings: dict[str, Any]) -> tuple[list[str], bool]:  # noqa: PLR0911
    name = draw.choice([n for n in settings if "_target_" not in n])
    value = settings[name]
    study = draw.random() < 0.3
    kind = draw.randrange(12)
    if kind <= 3:  # a wrong value
        if isinstance(value, str) and "${" in value:
            return [f"{name}={draw.choice(POINTERS)}"], study
        return [f"{name}={draw.choice(WRONG[type(value)])}"], study
    if kind == 4:  # something that is not there
        place = draw.choice((name + ".", name + "_", "x.", ""))
        return [f"{draw.choice(ADDING)}{place}nosuch={draw.choice(WORDS[:3])}"], study
    if kind == 5:  # a section that every job has
        needed = (
            "recipe",
            "optimizer",
            "tracking",
            "instruments",
            "stack",
            "checkpoint",
            "study",
            "seed",
            "device",
            "threads",
        )
        inner = (
            "optimizer.name",
            "optimizer.lr",
            "optimizer._target_",
            "optimizer.stacking",
            "recipe._target_",
            "recipe.name",
        )
        return [f"~{draw.choice((*needed, *inner, 'recipe.log_every', 'stack.max_runs'))}"], study
    if kind == 6:
        return [f"{draw.choice(GROUPS[:4])}={draw.choice(NO_NAMES)}"], study
    if kind == 7:
        return [f"{name}={draw.choice(POINTERS) if draw.random() < 0.7 else POINTER.format(name)}"], study
    if kind == 8:
        node = draw.choice(("recipe", "optimizer", "optimizer.rule", "optimizer.lr", "env"))
        return [f"++{node}._target_={draw.choice(TARGETS)}"], study
    if kind == 9:
        return [draw.choice(HYDRA)], draw.random() < 0.5
    if kind == 10:
        return [draw.choice(SWEEPS)], True
    if draw.random() < 0.3:
        return [f"{name}={draw.choice(CONTROL)}"], study
    return [draw.choice(SHAPES)], study


@contextmanager
def nothing_trains(patch: Any) -> Iterator[list[str]]:
    """What would train notes its words instead."""
    from alphagrad.lab.commands import run

    taken: list[str] = []
    patch.setattr(run, "through_hydra", lambda *_, **__: taken.append("a run"))
    patch.setattr(run, "run_study", lambda *_, **__: taken.append("a study"))
    yield taken


def left_in(folder: Path) -> list[str]:
    """What lies in a folder."""
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
