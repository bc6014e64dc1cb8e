"""Bad input: exit status 2, a line for each problem that names the setting, nothing begun."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from alphagrad.common.errors import ConfigError

# arguments → what the one line must say
ONE_LINE = {
    "alpha=schedule alpha.steps=abc": ("alpha.steps", "whole number", "abc"),
    "alpha=saturation alpha.every=1.5": ("alpha.every", "whole number", "1.5"),
    "normalization=blend normalization.rho=abc": ("normalization.rho", "[0, 1]", "abc"),
    "alpha.value=true": ("alpha.value", "number", "True"),
    "alpha.value=[1,2]": ("alpha.value", "one a run"),
    "optimizer=adam optimizer.stacking=batch_dims": ("optimizer.stacking='batch_dims'", "elementwise or per_run"),
    "optimizer_defaults=3": ("optimizer_defaults",),
    "optimizer_defaults.lr=x": ("optimizer_defaults.lr='x'", "number"),
    "optimizer_defaults.lr=-1": ("optimizer_defaults.lr=-1", "greater than or equal to 0"),
    "+optimizer_defaults.momentumm=3": ("optimizer_defaults.momentumm=3",),
    "recipe=image optimizer=adam optimizer_defaults.sgd_lr=-1": ("optimizer_defaults.sgd_lr=-1",),
    "optimizer=lamb optimizer.lr=1e-9 optimizer.stacking=elementwise": ("optimizer.stacking=elementwise", "per_run"),
    "optimizer=lamb optimizer.stacking=elementwise": ("optimizer.stacking=elementwise", "lamb", "per_run"),
    "optimizer=muon optimizer.stacking=elementwise": ("optimizer.stacking=elementwise", "muon", "per_run"),
    "optimizer.stacking=elementwise": ("optimizer.stacking='elementwise'", "batch_dims or per_run"),
    "optimizer=adam optimizer.betas=0.9": ("optimizer.betas=0.9", "(0.9, 0.999)"),
    "optimizer=muon optimizer.momentum=abc": ("optimizer.momentum='abc'", "0.95"),
    "optimizer.name=null": ("optimizer.name=None", "word"),
    "recipe=nope": ("recipe=nope", "dqn_cartpole"),
    "optimizer=nope": ("optimizer=nope", "alphagrad", "sqrt_dim", "shampoo"),
    "optimizer=sin_tnah": ("did you mean sin_tanh",),
    "normalization=nope": ("normalization=nope", "tensor", "blend"),
    "alpha=nope": ("alpha=nope", "sqrt_dim"),
    "transform=nope": ("transform=nope", "sin_tanh"),
    "tracking=nope": ("tracking=nope", "mlflow"),
    "instruments=nope": ("instruments=nope", "economy"),
    "experiment=nope": ("experiment=nope",),
    "nope=1": ("nope", "seed"),
    "sed=1": ("sed", "did you mean seed"),
    "recipe.nope=1": ("recipe.nope", "gamma"),
    "recipe.gama=0.9": ("recipe.gama", "did you mean gamma"),
    "env.nope=1": ("env.nope", "id"),
    "optimizer=adam optimizer.momentum=0.5": ("optimizer.momentum", "betas"),
    "optimizer=adam alpha.value=3": ("alpha.value", "optimizer=adam", "no alpha"),
    "optimizer=sign alpha.value=3": ("alpha.value", "optimizer=sign", "no alpha"),
    "optimizer=adam alpha=saturation": ("alpha", "optimizer=adam", "no alpha"),
    "optimizer=muon transform=tanh": ("transform", "optimizer=muon"),
    "alpha.k=3": ("alpha.k", "value"),
    "transform=sign": ("alpha", "Sign()"),
    "optimizer.lr=abc": ("optimizer.lr='abc'", "number"),
    "optimizer.lr=-1": ("optimizer.lr=-1", "≥ 0"),
    "optimizer.lr=nan": ("optimizer.lr=nan", "finite"),
    "optimizer.lr=true": ("optimizer.lr=True",),
    "optimizer.momentum=1.5": ("optimizer.momentum", "[0, 1)", "1.5"),
    "optimizer.nesterov=3": ("optimizer.nesterov", "true or false"),
    "optimizer.nonfinite=maybe": ("optimizer.nonfinite", "skip, raise, propagate"),
    "optimizer.stacking=foo": ("optimizer.stacking", "per_run"),
    "optimizer.clip_grad_norm=-1": ("optimizer.clip_grad_norm=-1", "> 0"),
    "optimizer.clip_grad_norm=abc": ("optimizer.clip_grad_norm='abc'",),
    "optimizer=adam optimizer.betas=[0.9,1.5]": ("optimizer.betas", "1.5"),
    "optimizer=adam optimizer.betas=3": ("optimizer.betas",),
    "optimizer=adam optimizer.eps=abc": ("optimizer.eps", "abc"),
    "optimizer=adamw optimizer.weight_decay=-2": ("optimizer.weight_decay", "-2"),
    "optimizer=sgd optimizer.momentum=-1": ("optimizer.momentum", "-1"),
    "optimizer=lion optimizer.betas=[2,2]": ("optimizer.betas", "2"),
    "optimizer=lars optimizer.momentum=7": ("optimizer.momentum", "7"),
    "optimizer=shampoo optimizer.preconditioning_compute_steps=0": ("optimizer.preconditioning_compute_steps", "0"),
    "optimizer=muon optimizer.ns_steps=0": ("ns_steps", "positive"),
    "alpha.value=-1": ("alpha.value", "-1", "> 0"),
    "alpha.value=abc": ("alpha.value", "abc", "number"),
    "alpha=quantile alpha.fraction=2": ("alpha.fraction", "2", "between 0 and 1"),
    "alpha=quantile alpha.fraction=abc": ("alpha.fraction", "abc"),
    "alpha=schedule alpha.kind=cubic": ("alpha.kind", "linear, cosine, exponential"),
    "alpha=schedule alpha.steps=x": ("alpha.steps", "x"),
    "alpha=saturation alpha.low=0.9": ("alpha.low", "0.9"),
    "alpha=saturation alpha.start.k=-1": ("alpha", "k", "-1"),
    "normalization=blend normalization.rho=2": ("normalization.rho", "[0, 1]", "2"),
    "normalization=blend normalization.rho=x": ("normalization.rho", "x"),
    "transform=scaled_tanh transform.beta=-1": ("transform.beta", "-1"),
    "optimizer=hybrid transform.lam=2": ("transform.lam", "[0, 1]"),
    "optimizer=hybrid transform.lam=-1": ("transform.lam", "[0, 1]", "-1"),
    "optimizer=hybrid transform=hybrid_scheduled transform.lam.start=-1": ("transform.lam.start", "[0, 1]", "-1"),
    "optimizer=hybrid transform=hybrid_scheduled transform.lam.steps=-5": ("transform.lam.steps", "whole number", "-5"),
    "optimizer=hybrid alpha=schedule transform=hybrid_scheduled transform.lam.steps=-5": ("transform.lam.steps", "-5"),
    "optimizer=hybrid alpha=schedule transform=hybrid_scheduled transform.lam.start=x": ("transform.lam.start", "'x'"),
    "optimizer=hybrid transform=hybrid_scheduled transform.lam.kind=x": ("transform.lam.kind", "linear"),
    "seed=-1": ("seed=-1", "0"),
    "seed=abc": ("seed='abc'", "integer"),
    "seed=1.5": ("seed=1.5", "integer"),
    "threads=0": ("threads=0", "greater than 0"),
    "threads=1000000": ("threads=1000000", "less than or equal to"),
    "tracking.artifacts=''": ("tracking.artifacts=''", "at least 1 character"),
    "tracking.artifacts=/etc/passwd": ("tracking.artifacts=/etc/passwd", "/etc/passwd is no folder"),
    "tracking.artifacts=/etc/passwd/files": ("tracking.artifacts=/etc/passwd/files", "/etc/passwd is no folder"),
    "tracking.artifacts=file:///etc/passwd/files": ("tracking.artifacts=file:///etc/passwd", "is no folder"),
    "tracking.artifacts=nosuch://x/y": ("tracking.artifacts=nosuch://x/y", "cannot write", "s3://"),
    "tracking.artifacts=ftp://127.0.0.1:9/x": ("tracking.artifacts=ftp://127.0.0.1:9/x", "no server answers"),
    "tracking.artifacts=sftp://127.0.0.1:9/x": ("tracking.artifacts=sftp://127.0.0.1:9/x",),
    "tracking.artifacts=mlflow-artifacts:///x": ("tracking.artifacts=mlflow-artifacts:///x", "MLflow server"),
    "device=foo": ("device=foo", "must be auto, cpu, cuda"),
    "recipe={}": ("recipe={}: recipe is a group", "give a name"),
    "-m optimizer=glob(sig*)": ("optimizer=glob(sig*): glob() is not supported",),
    "~transform": ("~transform: transform cannot be left out", "give a value"),
    "~env": ("~env: env cannot be left out",),
    "device=cuda:63": ("device=cuda:63",),
    "device=3": ("device=3",),
    "output_root=''": ("output_root=''",),
    "tracking.uri=ftp://x/y": ("tracking.uri=ftp://x/y", "sqlite:///", "http"),
    "tracking.uri=/some/folder": ("tracking.uri=/some/folder", "sqlite:///"),
    "tracking.uri=sqlite:////proc/nope/mlflow.db": ("tracking.uri=sqlite:////proc/nope/mlflow.db", "/proc/nope"),
    "tracking.uri=postgresql://127.0.0.1:9/x": ("tracking.uri=postgresql://127.0.0.1:9/x",),
    "tracking.flush_seconds=0": ("tracking.flush_seconds=0", "greater than 0"),
    "tracking.experiment=''": ("tracking.experiment=''",),
    "instruments.every=-1": ("instruments.every=-1",),
    "instruments.tau=0": ("instruments.tau=0",),
    "env.id=Nope-v0": ("env.id=Nope-v0",),
    "env.id=nomodule:Foo-v0": ("env.id=nomodule:Foo-v0", "nomodule"),
    "env.id=Pendulum-v1": ("env.id=Pendulum-v1", "Discrete", "Box"),
    "env.id=FrozenLake-v1": ("env.id=FrozenLake-v1", "Box", "Discrete(16)"),
    "env.id=3": ("env.id=3", "string"),
    "recipe.total_steps=0": ("recipe.total_steps=0", "greater than 0"),
    "recipe.total_steps=1.5": ("recipe.total_steps=1.5", "integer"),
    "recipe.batch_size=many": ("recipe.batch_size='many'", "integer"),
    "recipe.gamma=2": ("recipe.gamma=2", "less than or equal to 1"),
    "recipe.hidden=[]": ("recipe.hidden=[]",),
    "recipe.hidden=[8,0]": ("recipe.hidden", "greater than 0"),
    "recipe.compile=maybe": ("recipe.compile='maybe'", "auto"),
    "recipe._target_=nope.nope": ("recipe._target_=nope.nope", "nope"),
    "optimizer._target_=torch.optim.Nope": ("optimizer._target_=torch.optim.Nope",),
    "seed=1,2": ("seed=1,2", "--multirun"),
    "seed=[": ("seed=[",),
    "-m seed=range(2) optimizer=adam,nope": ("optimizer=nope",),
    "-m seed=range(2) recipe.gamma=0.9,7": ("recipe.gamma=7",),
    "-m optimizer=adam,sgd alpha.value=3": ("alpha.value", "no alpha"),
    "-m seed=interval(0,1)": ("seed=interval(0,1)",),
    "hydra/launcher=nope": ("hydra/launcher=nope", "basic"),
    "--config-dir=/nonexistent": ("--config-dir=/nonexistent",),
    "optimizer.rule=foo": ("optimizer.rule='foo'", "normalization=", "alpha=", "transform="),
    "recipe.env.id=X": ("recipe.env.id", "env.id=X"),
    "optimizer.rule.alpha.value=3": ("optimizer.rule.alpha.value", "as alpha.value=3"),
    "env=Acrobot-v1": ("env='Acrobot-v1'", "give env.id=Acrobot-v1"),
    "alpha=3": ("alpha=3", "give alpha.value=3", "sqrt_dim"),
    "checkpoint=5": ("checkpoint=5", "keep_last=5"),
    "lr=0.1": ("optimizer_defaults.lr=0.1 or optimizer.lr=0.1",),
    "launcher=stacked": ("hydra/launcher=stacked",),
    "hydra.launcher=stacked": ("hydra/launcher=stacked",),
    "--seed=3": ("settings have no dashes: seed=3",),
    "seed==3": ("give seed=3",),
    "optimizer=torch.optim.Adam": ("did you mean adam",),
    "optimizer=adam optimizer.amsgrad=maybe": ("optimizer.amsgrad='maybe'", "true or false"),
    "+nosuch=1": ("nosuch", "no such setting"),
    "~optimizer": ("~optimizer", "is missing"),
    "~optimizer_defaults.lr": ("~optimizer_defaults.lr", "optimizer.lr", "give optimizer.lr=VALUE"),
    "optimizer=null": ("optimizer=null", "adam"),
    "-m seed=0,-1": ("seed=-1",),
    "-m checkpoint.keep_last=1,0": ("checkpoint.keep_last=0",),
    "-m seed=1,2 hydra.launcher._target_=os.nosuch": ("hydra.launcher._target_=os.nosuch", "hydra/launcher=NAME"),
    "optimizer_defaults.lr=${optimizer_defaults.lr}": (
        "optimizer_defaults.lr=${optimizer_defaults.lr}",
        "refers to itself",
    ),
}


def files_under(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []


@pytest.mark.parametrize("words", ONE_LINE)
def test_one_line_names_the_setting(cli, tmp_path, words):
    out = tmp_path / "out"
    where = [] if "output_root" in words else [f"output_root={out}"]
    failed = cli("run", *words.split(" "), *where)
    assert failed.status == 2
    lines = failed.err.splitlines()
    assert len(lines) == 1, failed.err
    assert lines[0].startswith("alphagrad: ")
    for needed in ONE_LINE[words]:
        assert needed in lines[0]
    assert failed.out == ""
    assert not files_under(tmp_path)


def test_all_problems_at_once(cli, tmp_path):
    failed = cli(
        "run",
        "recipe.gamma=2",
        "recipe.tau=0",
        "optimizer.lr=-1",
        "seed=-1",
        "threads=0",
        "device=foo",
        f"output_root={tmp_path / 'out'}",
    )
    assert failed.status == 2
    lines = failed.err.splitlines()
    assert all(line.startswith("alphagrad: ") for line in lines)
    named = {line.removeprefix("alphagrad: ").partition("=")[0] for line in lines}
    assert named == {"recipe.gamma", "recipe.tau", "optimizer.lr", "seed", "threads", "device"}
    assert len(lines) == 6
    assert not (tmp_path / "out").exists()


def test_output_root_under_a_file(cli, tmp_path):
    (tmp_path / "file").write_text("mine")
    failed = cli("run", f"output_root={tmp_path}/file/out")
    assert failed.status == 2
    assert failed.err.splitlines() == [failed.err.strip()]
    assert f"output_root={tmp_path}/file/out" in failed.err
    assert (tmp_path / "file").read_text() == "mine"


def test_tracking_server_that_is_not_there(cli, tmp_path, lab):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{s.getsockname()[1]}"
    failed = cli("run", f"tracking.uri={uri}", f"output_root={tmp_path / 'out'}")
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    assert f"tracking.uri={uri}" in failed.err
    lab.setenv("MLFLOW_TRACKING_URI", uri)
    again = cli("run", f"output_root={tmp_path / 'out'}")
    assert again.err == failed.err  # the environment variable counts as well
    assert not (tmp_path / "out").exists()


def test_something_else_that_answers(cli, tmp_path):
    """A server that is no MLflow server."""
    import http.server
    import threading

    class NotFound(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), NotFound) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        failed = cli("run", f"tracking.uri={uri}", f"output_root={tmp_path / 'out'}")
        server.shutdown()
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    assert uri in failed.err
    assert not files_under(tmp_path)


def test_no_run_is_recorded(cli, root, store_runs):
    for words in ("recipe.gamma=2", "optimizer=nope", "env.id=Nope-v0", "-m seed=1,2 recipe.gamma=0.9,2"):
        assert cli("run", *words.split(" "), f"output_root={root}").status == 2
    assert store_runs(root) == []
    assert [p.name for p in root.iterdir() if not p.name.endswith(".lock")] == ["mlflow.db"]


def test_unknown_command_and_flag(cli, tmp_path):
    failed = cli("trian")
    assert failed.status == 2
    assert failed.err.splitlines() == [failed.err.strip()]
    assert "trian" in failed.err
    assert (
        "run, tune, resume, status, ls, alpha, report, export, export-model, claims, instruments, landscape, watch, "
        "ui, completion" in failed.err
    )
    for command in (("run", "--nope", f"output_root={tmp_path / 'out'}"), ("ls", "--nope"), ("report", "--nope")):
        failed = cli(*command)
        assert failed.status == 2
        assert "--nope" in failed.err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_alpha_and_report_complain_the_same_way(cli, tmp_path):
    failed = cli("alpha", "optimizer=nope")
    assert failed.status == 2
    assert failed.err.startswith("alphagrad: optimizer=nope: no such optimizer")
    failed = cli("alpha", "alpha.value=-3")
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    failed = cli("report", "--output-root", str(tmp_path / "none"))
    assert (failed.status, len(failed.err.splitlines())) == (2, 1)
    assert "none/mlflow.db" in failed.err
    assert not (tmp_path / "none").exists()


def test_traceback_when_asked_for(cli, tmp_path):
    for place in (0, 1, 2):
        words = ["run", "recipe.gamma=2", f"output_root={tmp_path / 'out'}"]
        words.insert(place, "--traceback")
        with pytest.raises(ConfigError, match=r"recipe\.gamma=2"):
            cli(*words)


def test_messages_do_not_depend_on_the_order(cli, tmp_path):
    """Overrides of a group and of its keys may come in any order."""
    out = f"output_root={tmp_path / 'out'}"
    first = cli("run", "alpha.value=3", "optimizer=adam", out)
    second = cli("run", "optimizer=adam", "alpha.value=3", out)
    assert first.status == second.status == 2
    assert first.err == second.err


def test_a_store_that_is_some_other_file(cli, tmp_path):
    file = tmp_path / "notes.db"
    file.write_text("not a database")
    failed = cli("run", f"tracking.uri=sqlite:///{file}", f"output_root={tmp_path / 'out'}")
    assert failed.status == 2
    assert failed.err.count("\n") == 1
    assert "is not an SQLite database" in failed.err
    assert file.read_text() == "not a database"


@pytest.mark.parametrize("command", ["report", "status"])
def test_the_settings_of_a_run_say_where_the_store_is(cli, root, tmp_path, lab, command):
    lab.chdir(tmp_path)
    words = (f"output_root={root}", "tracking.experiment=nowhere")
    told = cli(command, *words)
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert "tracking.experiment=nowhere: not in this store" in told.err
    told = cli(command, "recipe.gamma=1")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert "takes of a run's settings output_root, tracking.uri, tracking.experiment" in told.err


def test_a_word_with_a_blank_before_its_value_is_offered_without(cli):
    told = cli("run", "seed = 3")
    assert told.err == "alphagrad: seed = 3: cannot be read; give seed=3\n"


@pytest.mark.parametrize("command", [("report",), ("status",), ("ui",), ("resume", "3f2a"), ("watch", "3f2a")])
@pytest.mark.parametrize("place", ["~nosuchuser", "x" * 5000])
def test_a_place_that_is_no_path(cli, lab, tmp_path, command, place):
    lab.chdir(tmp_path)
    for words, setting in (("--output-root", place), "output_root"), (("--uri", f"sqlite:///{place}"), "tracking.uri"):
        told = cli(*command, *words)
        assert (told.status, len(told.err.splitlines())) == (2, 1)
        assert told.err.startswith(f"alphagrad: {setting}={place[:50]}")
        assert len(told.err) < 1000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("point", ["x", "-1", "", "9" * 5000])
def test_completion_does_without_a_cursor_that_is_none(cli, lab, point):
    lab.setenv("COMP_LINE", "alphagrad rep")
    lab.setenv("COMP_POINT", point)
    told = cli("complete")
    assert (told.status, told.out, told.err) == (0, "report\n", "")


@pytest.mark.parametrize("words", [("--trials", "9" * 20), ("--studies", "9" * 4000), ("--studies", "0")])
def test_a_budget_that_is_none(cli, lab, tmp_path, words):
    lab.chdir(tmp_path)
    told = cli("tune", "optimizer=adam", *words)
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert told.err.startswith(f"alphagrad: {words[0]}={words[1][:20]}")
    assert "at most 10000" in told.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("key", ["a." * 500 + "b", "a/" * 3000 + "b"])
def test_a_setting_longer_than_any_file_s_name_is_refused(cli, lab, tmp_path, key):
    """Hydra looks for a file of that name, dots and all."""
    lab.chdir(tmp_path)
    told = cli("run", f"{key}=1")
    assert (told.status, len(told.err.splitlines())) == (2, 1)
    assert "no such setting; it is longer than any" in told.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("kind", "words"),
    [("folder", ("run",)), ("pipe", ("status",)), ("link", ("run", "-m", "seed=0,1")), ("link", ("tune",))],
)
def test_what_is_no_lock_file_is_told_at_once(cli, root, lab, kind, words):
    """Waiting would not change it."""
    from alphagrad.lab.tuning import search as tune

    lab.setattr(tune, "key_of", lambda *_: "key")
    lock = root / {"tune": ".tuning-key.lock"}.get(words[0], "mlflow.db.lock")
    lock.unlink(missing_ok=True)
    {"folder": lock.mkdir, "pipe": lambda: os.mkfifo(lock), "link": lambda: lock.symlink_to("/dev/zero")}[kind]()
    told = cli(*words, f"output_root={root}")
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert f"{lock}: is to be a lock file and is no regular file; remove it" in told.err


def test_what_is_no_lock_file_is_held_by_nobody(tmp_path):
    from alphagrad.lab.records.folder import claimed, is_held

    lock = tmp_path / "lock"
    lock.symlink_to("/dev/zero")
    assert not is_held(lock)
    with pytest.raises(ConfigError, match="is no regular file; remove it"), claimed(lock):
        pass
