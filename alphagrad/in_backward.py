"""Steps taken during the backward pass, a parameter at a time, so that gradients need not be kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alphagrad.gather import Gatherer
from alphagrad.optimizer import AlphaGrad


class InBackward(AlphaGrad):
    """:class:`AlphaGrad` that steps each parameter as soon as its gradient is complete, and frees the gradient at once.

    At most the gradients that the backward pass still works on are alive. Arguments, groups, schedulers and states are
    :class:`AlphaGrad`'s; ``step()`` has nothing left to do, so a training loop may keep calling it. The update equals
    that of a step after the backward pass. What needs all gradients at once cannot be had: clipping by the whole norm
    finds none, each of several backward passes makes a step, ``GradScaler`` finds nothing to unscale. A parameter
    that is frozen when its group is added and thawed later is stepped by ``step()``.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = InBackward(model.parameters(), lr=0.1)
        >>> model(torch.ones(1, 2)).sum().backward()
        >>> model.weight.grad is None
        True

    Raises:
        ValueError: the rule measures across tensors (its norm or α spans several), or ``compile`` is asked for.
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        self._alone: dict[Tensor, Gatherer] = {}
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        super().__init__(params, **settings)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            if group["rule"].spans_tensors:
                raise ValueError(
                    f"rule: {group['rule']!r} measures across tensors, whose gradients are never there together; "
                    "use PerTensor (and of sqrt_total the form with a given total)"
                )
            if group["compile"]:
                raise ValueError("compile: steps in the backward pass are not compiled, got True")
        except ValueError:
            self.param_groups.pop()
            raise
        self._register(len(self.param_groups) - 1)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_handles" not in self.__dict__:  # a copy, or from a pickle: its parameters have no hooks yet
            self._alone, self._handles = {}, []
            for index in range(len(self.param_groups)):
                self._register(index)

    def _register(self, index: int) -> None:
        for place, p in enumerate(self.param_groups[index]["params"]):
            if p.requires_grad:
                self._handles.append(p.register_post_accumulate_grad_hook(self._hook(index, place)))

    def _hook(self, index: int, place: int) -> Any:
        def step_alone(p: Tensor) -> None:
            with torch.no_grad():
                alone = {**self.param_groups[index], "params": [p]}
                gatherer = self._alone.setdefault(p, Gatherer())
                try:
                    found = gatherer.batches([alone], lambda _: [self._names(index)[place]], self.state)
                    self._check_finite(found)
                    self._execute([b for b, _ in found], None, None)
                finally:
                    gatherer.release()
            p.grad = None

        return step_alone

    def remove(self) -> None:
        """Ends the steps in the backward pass; from now on ``step()`` makes them."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
