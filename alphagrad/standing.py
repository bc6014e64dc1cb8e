"""Parameters that rounding keeps where they are, however long they are trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from alphagrad.batch import Batch
from alphagrad.rounding import HALVES


def warn_of_standing(batches: Sequence[Batch]) -> None:
    """Warns if half-precision parameters are too large for the rate to move them; waits for the device."""
    for b in batches:
        p = b.params[0]
        capturing = p.is_cuda and torch.cuda.is_current_stream_capturing()  # when nothing may be waited for
        if p.dtype not in HALVES or b.rounding != "nearest" or p.is_meta or capturing:
            continue
        largest = b.rule.transform.largest(b.rule.normalization.largest)
        # momentum adds up to 1/(1 − γ) of them
        rate = float(torch.as_tensor(b.lr).max()) * largest / (1 - float(b.momentum))
        share = standing(b.params, rate)
        if share > 0.5:
            warnings.warn(
                f"lr: steps of {rate:g} are below the resolution of {share:.0%} of a "
                f"{str(p.dtype).removeprefix('torch.')} parameter, which will not move; raise lr, keep "
                "parameters in float32, or set rounding='stochastic' or 'kahan'",
                stacklevel=4,
            )
            return


def standing(params: Sequence[Tensor], step: float) -> float:
    """The largest share, over tensors, of elements so large that no step of size ``step`` moves them.

    Rounded to the nearest, x moves by at least half the distance to its neighbour, which is |x|·2^-9 to |x|·2^-8 in
    bfloat16 and |x|·2^-12 to |x|·2^-11 in float16. Waits for the device.
    """
    shares = [torch.zeros((), device="cpu")] + [
        (p.detach().abs() > step / torch.finfo(p.dtype).eps * 4).float().mean().cpu() for p in params if p.numel()
    ]
    return float(torch.stack(shares).max())
