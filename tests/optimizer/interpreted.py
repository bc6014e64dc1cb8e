"""Runs the Triton kernels in Triton's interpreter, on this machine's CPU, against the plain step.

A program of its own, because Triton reads TRITON_INTERPRET when it is imported. Its argument says of how many rules it
takes one.
"""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
from cases import DECAYS, MOMENTA, WITH_KERNEL, error, make_values, rule_of, train

from alphagrad import kernels
from alphagrad.kernels import gpu


def kernel_for(device, dtype, rule, rounding, asked):
    return gpu.KERNEL if asked else None


def main():
    import alphagrad.gather

    alphagrad.gather.kernel_for = kernel_for
    compared = 0
    initial, grads = make_values(seed=3)
    others = [{**m, **d} for d in DECAYS.values() for m in MOMENTA.values()]
    bad = [{n: g * float("nan") if n == "a.bias" else g for n, g in grads[0].items()}, *grads[1:]]
    every = int(sys.argv[1])
    for i, slots in enumerate(WITH_KERNEL):
        if (i + i // every) % every:
            continue
        settings = {"lr": 0.1, "maximize": i % 3 == 0, **others[i % len(others)]}
        given = bad if i % 5 == 0 else grads
        plain, expected = train(rule_of(*slots), initial, given, fused=False, **settings)
        fused, got = train(rule_of(*slots), initial, given, fused=True, **settings)
        for name in expected:
            torch.testing.assert_close(
                got[name], expected[name], rtol=1e-6, atol=2e-7, msg=str((slots, settings, name))
            )
            for key, value in plain.state[expected[name]].items():
                torch.testing.assert_close(fused.state[got[name]][key], value, rtol=1e-6, atol=1e-6)
            compared += 1
    for dtype in (torch.bfloat16, torch.float16):
        for momentum_dtype in (None, torch.float32):
            settings = {"lr": 0.1, "momentum": 0.9, "momentum_dtype": momentum_dtype}
            _, expected = train(rule_of("tensor", "sqrt_dim", "tanh"), initial, grads, dtype, fused=False, **settings)
            _, got = train(rule_of("tensor", "sqrt_dim", "tanh"), initial, grads, dtype, fused=True, **settings)
            for name in expected:
                assert error(got[name].float(), expected[name].detach().double().numpy()) < 2 * torch.finfo(dtype).eps
                compared += 1
    stacked()
    print(compared, "alike")


def stacked():
    """A stack of runs that lie apart, larger than a piece."""
    from alphagrad import AlphaGrad, Rule

    ends = []
    for fused in (False, True):
        generator = torch.Generator().manual_seed(0)
        matrix = torch.randn(2, 70_000, generator=generator)
        views = [matrix[:, :69_000], matrix[:, 69_000:].view(2, 20, 50)]
        optimizer = AlphaGrad(views, lr=torch.tensor([0.1, 0.02]), momentum=0.9, batch_dims=1, fused=fused, rule=Rule())
        for _ in range(2):
            views[0].grad = torch.randn(2, 69_000, generator=generator)
            views[1].grad = torch.randn(2, 20, 50, generator=generator)
            optimizer.step()
        ends.append(matrix)
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)


if __name__ == "__main__":
    assert kernels.has("triton")
    main()
