"""A module that must not be called, and ways to call it."""

from __future__ import annotations

MODULE = """
import os
open(os.path.join(os.path.dirname(__file__), "imported"), "w").close()
import torch
from alphagrad.alpha import Constant
from alphagrad.rule import Rule

def called():
    open(os.path.join(os.path.dirname(__file__), "called"), "w").close()

def rule(value: float = 3.0) -> Rule:
    called()
    return Rule(alpha=Constant(value))

def bare(value=3.0):
    called()
    return Rule(alpha=Constant(value))

def liar() -> Rule:
    return "no rule"

def silent(value=3.0):
    called()

def wrong() -> int:
    called()

class Plain:
    def __init__(self, *args, **kwargs):
        called()

class Mine(Constant):
    pass

def make(params, lr: float = 0.1) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for _, p in params], lr=lr)

def make_bare(params, lr=0.1):
    return torch.optim.SGD([p for _, p in params], lr=lr)

def make_nothing(params, lr=0.1):
    return None
"""
DANGEROUS = (
    "sympy.sympify",
    "os.system",
    "os.mknod",
    "os.mkdir",
    "shutil.copy",
    "builtins.open",
    "builtins.eval",
    "builtins.exec",
    "subprocess.run",
    "torch.load",
    "torch.hub.load",
    "pickle.loads",
    "runpy.run_path",
    "importlib.import_module",
    "hydra.utils.instantiate",
    "hydra.utils.call",
    "functools.partial",
    "alphagrad_test_evil.called",
    "alphagrad_test_evil.rule",
    "alphagrad_test_evil.Mine",
    # what is reached through a module that is allowed
    "torch.optim.optimizer.torch.load",
    "torch.optim.lr_scheduler.LambdaLR",
    "alphagrad.lab.commands.ui.os.system",
    "alphagrad.lab.records.checkpoint.torch.load",
    "alphagrad.lab.records.folder.Path",
    "pytorch_optimizer.torch.load",
    "alphagrad.lab.commands.resume.os.chdir",
    "torch.optim.adam.torch.os.system",
)
PLACES = (
    "recipe",
    "optimizer",
    "optimizer.rule",
    "optimizer.lr",
    "optimizer.rule.alpha",
    "optimizer.rule.transform",
    "optimizer.rule.normalization",
    "alpha.value",
    "alpha.value[0]",
    "optimizer.rule._args_[0]",
    "recipe.hidden",
    "recipe.hidden[0]",
    "recipe.env",
    "recipe.env.id",
)
HYDRA = (
    "hydra.launcher._target_=os.system",
    "hydra.sweeper._target_=os.system",
    "hydra/sweeper=basic",
    "hydra/job_logging=none",
    "hydra.job_logging.handlers.file.filename={made}",
    "+hydra.callbacks.mine._target_=alphagrad_test_evil.Plain",
    "+hydra.job_logging.handlers.mine={{'()': alphagrad_test_evil.called}}",
    "hydra.searchpath=[file://{conf}]",
    "+hydra.job.env_set.LD_PRELOAD={made}",
    "hydra.job.chdir=true",
    "hydra.job.name=../../../x",
    "hydra.output_subdir={made}",
    "hydra.sweep.subdir=same",
    "hydra.mode=MULTIRUN",
    "hydra.runtime.output_dir={made}",
    "hydra={{}}",
    "~hydra.run.dir",
    "--config-path={conf}",
    "--config-name=other",
    "--experimental-rerun={made}",
    "--config-dir={conf}",
)
