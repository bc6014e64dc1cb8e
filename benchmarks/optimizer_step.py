"""One optimizer step: AlphaGrad against torch's optimizers and others, in turns within one process.

    python benchmarks/optimizer_step.py                        # the table of docs/performance.md
    python benchmarks/optimizer_step.py --sizes 11k 82m --rounds 15
    python benchmarks/optimizer_step.py --variants             # every transform, α policy and normalisation
    python benchmarks/optimizer_step.py --device cuda --dtype bfloat16

Every round times each contestant once, in turn, after two steps outside the timing; the figures are medians over the
rounds, and ratios are to ``torch.optim.Adam(fused=True)`` of the same rounds. *bandwidth* is bytes moved (as the update
needs them: gradient twice, parameter read and written, momentum read and written) over time, as a share of what a
copy reaches in the same run. *first step* includes compilation; numba's are kept on disk, so --cold removes them first.
*state* is what the optimizer keeps, *peak* what a later step takes for a while besides: both in the parameters' bytes.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from contestants import contestants
from torch import Tensor

SHAPES: dict[str, list[tuple[int, ...]]] = {
    "11k": [(64, 17), (64,), (64, 64), (64,), (6, 64), (6,), (6,), (64, 17), (64,), (64, 64), (64,), (1, 64), (1,)],
    "1m": [(512, 512), (512,)] * 4,
    "161x16": [(16, 16)] * 161,
    "500x16": [(16, 16)] * 500,
    "1000x16": [(16, 16)] * 1000,
}


def gpt(width: int, layers: int) -> list[tuple[int, ...]]:
    """The tensors of a GPT-2."""
    block = [(width, 3 * width), (3 * width,), (width, width), (width,), (width, 4 * width), (4 * width,)]
    block += [(4 * width, width), (width,), *[(width,)] * 4]
    return [(50257, width), (1024, width), *block * layers, (width,), (width,)]


SHAPES |= {"82m": gpt(768, 6), "350m": gpt(1024, 24)}


def shapes_of(size: str) -> list[tuple[int, ...]]:
    """The shapes of a network's tensors."""
    if size.startswith("resnet"):
        import torchvision

        return [tuple(p.shape) for p in getattr(torchvision.models, size)(num_classes=10).parameters()]
    return SHAPES[size]


BASE = "Adam fused"
"""What ratios are to."""


def moved(name: str, params: int, itemsize: int) -> int:
    """Bytes that the update must move: AlphaGrad and SGD by what they read and write, Adam likewise."""
    if name.startswith("Adam"):
        return 7 * params * itemsize
    plain = 4 if not name.startswith("SGD") else 3
    return (plain + (2 if "momentum" in name else 0)) * params * itemsize


def timed(act: Callable[[], Any], device: torch.device) -> float:
    """Seconds until it is done on the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def extra_memory(act: Callable[[], Any], device: torch.device) -> float:
    """Bytes that it takes for a while beyond what there was before; NaN where the system does not tell."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        act()
        return torch.cuda.max_memory_allocated() - before
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    try:
        reset.write_text("5")  # the high-water mark becomes what is resident now
    except OSError:
        return math.nan
    before = _kilobytes(status, "VmHWM")
    act()
    return 1024 * (_kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(name))


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second that copying 256 MB moves, read and written: the best of nine."""
    a = torch.ones(1 << 26, device=device)
    b = torch.empty_like(a)
    return 2 * a.numel() * 4 / min(timed(lambda: b.copy_(a), device) for _ in range(9))


def measure(size: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each contestant."""
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    shapes = shapes_of(size)
    count = sum(math.prod(s) for s in shapes)
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(s, generator=generator).to(device, dtype) for s in shapes]
    params = [torch.nn.Parameter(d.clone()) for d in draws]
    for p, d in zip(params, draws, strict=True):
        p.grad = d
    bandwidth = copy_bandwidth(device)
    rows, running = [], {}
    for name, build in contestants(args.variants, args.compile).items():
        if args.only and name not in (*args.only, BASE):
            continue
        try:
            optimizer = build(params)
            first = timed(optimizer.step, device)
            peak = extra_memory(optimizer.step, device)
            if any(p.grad is None for p in params):
                raise RuntimeError("removes the gradients")
        except Exception as error:
            print(f"{name}: {' '.join(str(error).split())[:200]}; left out", file=sys.stderr)
            continue
        kept = sum(
            t.numel() * t.element_size()
            for state in optimizer.state.values()
            for t in state.values()
            if isinstance(t, Tensor)
        )
        running[name] = optimizer
        all_bytes = count * dtype.itemsize
        rows.append({"size": size, "name": name, "first": first, "state": kept / all_bytes, "peak": peak / all_bytes})
    times: dict[str, list[float]] = {name: [] for name in running}
    gc.disable()
    repeats = max(1, min(200, int(2e6 / max(count, 1))))
    for _ in range(args.rounds):
        for name, optimizer in running.items():

            def steps(step: Callable[[], Any] = optimizer.step) -> None:
                for _ in range(repeats):
                    step()

            times[name].append(timed(steps, device) / repeats)
    gc.enable()
    for row in rows:
        row["time"] = statistics.median(times[row["name"]])
        ratios = [mine / adam for mine, adam in zip(times[row["name"]], times[BASE], strict=True)]
        row["ratio"], row["low"], row["high"] = statistics.median(ratios), min(ratios), max(ratios)
        row["bandwidth"] = moved(row["name"], count, dtype.itemsize) / row["time"] / bandwidth
        row["tensors"], row["parameters"] = len(shapes), count
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = ["| parameters | optimizer | time | of fused Adam | bandwidth | first step | state | peak |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for r in rows:
        spread = f"{r['ratio']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
        took = f"{r['time'] * 1e6:,.0f} µs" if r["time"] < 1e-2 else f"{r['time'] * 1e3:,.1f} ms"
        size = f"{r['parameters']:,} in {r['tensors']}"
        lines.append(
            f"| {size} | {r['name']} | {took} | {spread} | {r['bandwidth']:.2f} | {r['first']:.2f} s | "
            f"{r['state']:.2f} | {r['peak']:.2f} |"
        )
    return "\n".join(lines)


def picture(rows: list[dict[str, Any]], file: Path) -> None:
    """Ratios as points with their range, a panel for each size."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    sizes = list(dict.fromkeys(r["size"] for r in rows))
    names = list(dict.fromkeys(r["name"] for r in rows))
    figure, axes = plt.subplots(1, len(sizes), figsize=(3.2 * len(sizes) + 2, 0.28 * len(names) + 1.2), sharey=True)
    for axis, size in zip([axes] if len(sizes) == 1 else axes, sizes, strict=True):
        for r in (r for r in rows if r["size"] == size):
            place = names.index(r["name"])
            axis.plot([r["low"], r["high"]], [place, place], color="0.6")
            axis.plot([r["ratio"]], [place], "o", color="C0" if "AlphaGrad" in r["name"] else "0.3")
        axis.axvline(1, color="0.8", zorder=0)
        axis.set(title=size, xscale="log", xlabel="time / fused Adam", yticks=range(len(names)), yticklabels=names)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--sizes", nargs="+", default=["11k", "1m", "resnet18", "82m"], help="also resnet50, 350m, 161x16"
    )
    parser.add_argument("--only", nargs="+", help="of the contestants, by the names in the table")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--variants", action="store_true", help="every transform, α policy and normalisation")
    parser.add_argument("--compile", action="store_true", help="with AlphaGrad under torch.compile too")
    parser.add_argument("--cold", action="store_true", help="without what numba has kept on disk")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.cold:
        os.environ["NUMBA_CACHE_DIR"] = tempfile.mkdtemp()
    torch.set_num_threads(args.threads)
    rows = [row for size in args.sizes for row in measure(size, args)]
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()}, {args.threads} threads"
    print(f"torch {torch.__version__}, {args.dtype}, {device}\n\n{table(rows)}")
    if args.plot:
        picture(rows, args.plot)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
