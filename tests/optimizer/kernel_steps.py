"""A training with kernels, on tensors of many sizes."""

import torch

from alphagrad import AlphaGrad


def trained(shapes, dtype=torch.float32, layout=lambda t: t, grad_layout=lambda t: t, steps=3, **settings):
    """Parameters and buffers after some steps of drawn gradients."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda shape: torch.randn(shape, generator=generator).to(dtype)  # noqa: E731
    params = [torch.nn.Parameter(layout(draw(shape))) for shape in shapes]
    optimizer = AlphaGrad([(f"m{i // 2}.p{i}", p) for i, p in enumerate(params)], lr=0.05, **settings)
    for _ in range(steps):
        for p in params:
            p.grad = grad_layout(draw(p.shape))
        optimizer.step()
    return params
