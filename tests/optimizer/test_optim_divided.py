"""Other ways to divide a model: FSDP's flat parameters, ZeRO; and how often two processes speak."""

import pytest
import torch
import torch.distributed as dist
from gloo import in_processes
from network import network
from torch.distributed.fsdp import fully_shard

from alphagrad import AlphaGrad, Rule
from alphagrad.alpha import Constant, Saturation, SqrtDim, SqrtTotal
from alphagrad.normalization import Global
from alphagrad.transform import FromSaturation, Hybrid


def flattened_and_divided():
    """FSDP1 and ZeRO: what is refused, by case, and where ZeRO goes with a rule that it may have."""
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.optim import ZeroRedundancyOptimizer

    refused = {}
    for original in (False, True):
        model = FullyShardedDataParallel(network(), use_orig_params=original, device_id=torch.device("cpu"))
        try:
            optimizer = AlphaGrad(model.parameters(), lr=0.1)
            model(torch.ones(2, 3)).sum().backward()
            optimizer.step()
        except ValueError as error:
            refused[f"fsdp1 {original}"] = str(error)
    for name, rule in {
        "global": Rule(Global(), Constant(3.0)),
        "sqrt_total": Rule(alpha=SqrtTotal()),
        "saturation": Rule(alpha=Saturation(SqrtTotal())),
    }.items():
        try:
            ZeroRedundancyOptimizer(network().parameters(), AlphaGrad, lr=0.1, rule=rule)
        except ValueError as error:
            refused[name] = str(error)
    ends = []
    for build in (AlphaGrad, lambda ps, **kw: ZeroRedundancyOptimizer(ps, AlphaGrad, **kw)):
        model = network()
        optimizer = build(model.parameters(), lr=0.1, rule=Rule(alpha=SqrtDim()), momentum=0.9)
        for step in range(3):
            model.zero_grad()
            model(torch.full((2, 3), float(step + 1))).sum().backward()
            optimizer.step()
        ends.append([p.detach() for p in model.parameters()])
    return {"refused": refused, "alone": ends[0], "zero": ends[1], "reductions": reductions()}


def reductions():
    """How many reductions a step of several sharded tensors makes, by rule."""
    counted = {}
    reduce = dist.all_reduce
    for name, rule in {
        "base": Rule(),
        "controlled": Rule(Global(), Saturation(tau=0.5), Hybrid(FromSaturation(0.7))),
    }.items():
        model = network()
        fully_shard(model)
        optimizer = AlphaGrad(
            [{"params": model[0].named_parameters()}, {"params": model[2].named_parameters()}], rule=rule
        )
        for _ in range(2):
            model(torch.ones(2, 3)).sum().backward()
            calls = []
            dist.all_reduce = lambda *args, calls=calls, **kwargs: calls.append(1) or reduce(*args, **kwargs)
            try:
                optimizer.step()
            finally:
                dist.all_reduce = reduce
            counted[name] = len(calls)
    return counted


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    return in_processes(flattened_and_divided, tmp_path_factory.mktemp("divided"))


@pytest.mark.long
def test_one_reduction_measures_all_norms_and_one_all_saturations(divided):
    for found in divided:
        assert found["reductions"] == {"base": 1, "controlled": 2}


@pytest.mark.long
def test_fsdp1_is_refused_with_the_way_out(divided):
    for found in divided:
        for original in (False, True):
            assert "flattened by FSDP1" in found["refused"][f"fsdp1 {original}"]
            assert "fsdp_version: 2" in found["refused"][f"fsdp1 {original}"]


@pytest.mark.long
def test_zero_takes_rules_that_work_tensor_by_tensor_alone(divided):
    for found in divided:
        for name in ("global", "sqrt_total", "saturation"):
            assert "ZeroRedundancyOptimizer" in found["refused"][name]
            assert "FSDP2" in found["refused"][name]
        assert all(torch.equal(p, q) for p, q in zip(found["alone"], found["zero"], strict=True))
