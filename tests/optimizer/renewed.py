"""What torch tests its own SGD with, for six rules and three ways to step, as fixtures."""

import ast
import enum
import itertools
import typing
from pathlib import Path

import pytest
import torch
from torch.nn import Linear, Parameter, Sequential, Sigmoid
from torch.optim import lr_scheduler

from alphagrad import AlphaGrad, Rule, variants
from alphagrad.alpha import Saturation, Schedule, SqrtDim, SqrtTotal
from alphagrad.normalization import Blend, Global
from alphagrad.transform import SinTanh
from alphagrad.values import Ramp

RULES = {
    "base": variants.alphagrad(),
    "module_wise": variants.module_wise(),
    "global_sqrt_total": Rule(Global(), SqrtTotal(1.0)),
    "blend_saturation": Rule(Blend(0.3), Saturation(SqrtDim(1.0), 0.3, 0.5, tau=1.0, every=2)),
    "hybrid_ramp": variants.hybrid(lam=Ramp(0.1, 0.9, 5)),
    "sin_tanh_schedule": Rule(alpha=Schedule(2.0, 50.0, 10, "cosine"), transform=SinTanh(1.2)),
}
HOW = {"kernel": {}, "foreach": {"foreach": True}, "loop": {"foreach": False}}


def torchs_own():
    """What torch tests SGD with, from the source of ``torch.testing._internal.common_optimizers`` as installed.

    To import it would freeze the flags of ``torch.backends`` for the whole process.
    """
    path = Path(torch.__file__).parent / "testing" / "_internal" / "common_optimizers.py"
    tree = ast.parse(path.read_text())
    wanted = {"OptimizerInput", "OptimizerErrorEnum", "ErrorOptimizerInput", "_get_device_type"}
    wanted |= {"get_error_inputs_for_all_optims", "optim_inputs_func_sgd", "optim_error_inputs_func_sgd"}
    definitions = [node for node in tree.body if getattr(node, "name", None) in wanted]
    found = {**vars(enum), **vars(typing), **vars(lr_scheduler), "torch": torch, "Parameter": Parameter}
    exec(compile(ast.Module(definitions, []), str(path), "exec"), found)
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and ast.unparse(n.func) == "OptimizerInfo"]
    (sgd,) = (call for call in calls if ast.unparse(call.args[0]) == "SGD")
    (schedulers,) = (k.value for k in sgd.keywords if k.arg == "scheduler_inputs")
    found["scheduler_inputs"] = eval(compile(ast.Expression(schedulers), str(path), "eval"), found)
    return found


TORCH = torchs_own()


@pytest.fixture(params=RULES.values(), ids=RULES)
def rule(request):
    return request.param


@pytest.fixture(params=HOW.values(), ids=HOW)
def how(request):
    return request.param


@pytest.fixture
def third(rule, how):
    """Every third one, from another start in each case: every rule meets all, and so does every execution."""
    start = list(RULES.values()).index(rule) + list(HOW.values()).index(how)
    return lambda cases: cases[start % 3 :: 3]


@pytest.fixture
def settings(third):
    """SGD's settings in torch's tests, all of which AlphaGrad has; tensors among them are new each time."""
    return third([given.kwargs for given in TORCH["optim_inputs_func_sgd"]("cpu")])


@pytest.fixture
def make(rule, how):
    """Makes an optimizer with the rule, executed so; parameters get names."""
    return lambda params, **given: AlphaGrad(named(params), **{"rule": rule, **how, **given})


def named(params):
    """Parameters, or groups of them, with names of one module."""
    counter = itertools.count()
    if isinstance(params[0], dict):
        return [{**group, "params": [(f"layer.{next(counter)}", p) for p in group["params"]]} for group in params]
    return [(f"layer.{next(counter)}", p) for p in params]


def layer(contiguous=True):
    """A weight and a bias, the same in each call, and a loss that both should lower."""
    torch.manual_seed(1)
    weight, bias, x = torch.randn(10, 5, 2), torch.randn(10, 2), torch.randn(5)
    params = [Parameter(p[..., 0].contiguous() if contiguous else p[..., 0]) for p in (weight, bias)]
    return params, lambda: (params[0].mv(x) + params[1]).pow(2).sum()


def descend(optimizer, loss, steps=5, schedulers=()):
    """Takes steps; the loss before the first and after the last."""

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    start = loss().item()
    for _ in range(steps):
        value = optimizer.step(closure).detach()
        for scheduler in schedulers:
            scheduler.step(*([value] if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau) else []))
    return start, loss().item()


def assert_equal(one, other, tolerance=0.0):
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def path(rule, dtype=torch.float32, **given):
    """Parameters and state of a network after each of five steps: one without gradients, two with a frozen layer."""
    torch.manual_seed(1)
    model = Sequential(Linear(2, 3, dtype=dtype), Sigmoid(), Linear(3, 1, dtype=dtype), Sigmoid())
    model.single = Parameter(torch.tensor(0.5, dtype=dtype))
    x = torch.arange(0.1, 0.65, 0.1, dtype=dtype).view(3, 2)
    optimizer = AlphaGrad(model.named_parameters(), rule=rule, **given)
    points = []
    for step in range(5):
        optimizer.zero_grad()
        model[2].requires_grad_(step not in (2, 3))
        if step != 1:
            (model(x).sum() + model.single).backward()
        optimizer.step()
        points.append([t.detach().clone() for p in model.parameters() for t in (p, *optimizer.state[p].values())])
    return points
