"""The update in integers: the emulation against the C header."""

import ctypes
import math
import random
import runpy
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from alphagrad.fixed_point import Number, header, quantized, update
from alphagrad.fixed_point.__main__ import main

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
DRIVER = Path(__file__).with_name("updates.c")
UPDATES = 10_000


@dataclass
class Case:
    """One update's arguments."""

    weights: torch.Tensor
    gradient: torch.Tensor
    alpha: Number
    rate: Number
    weight_bits: int = 12
    noise: int | None = None

    def packed(self) -> bytes:
        """As the driver in C reads it."""
        numbers = (*self.alpha, *self.rate, self.weight_bits, self.noise is not None, self.noise or 0)
        return (
            struct.pack("=IHhHhhHI", len(self.weights), *numbers)
            + self.weights.numpy().tobytes()
            + self.gradient.numpy().tobytes()
        )

    def emulated(self) -> bytes:
        """As the driver in C answers it."""
        weights, noise = update(self.weights, self.gradient, self.alpha, self.rate, self.weight_bits, self.noise)
        return weights.numpy().tobytes() + struct.pack("=I", noise or 0)


def int8(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int8)


def int16(*values: int) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int16)


ALPHA, RATE = Number.of(100.0), Number.of(1e-3)
LIMITS = [
    Number(m, e) for m in (0, 1, 1 << 14, (1 << 15) - 1, (1 << 16) - 1) for e in (-(1 << 15), -9, 0, (1 << 15) - 1)
]
EDGES = [
    Case(int16(5, -5), int8(0, 0), ALPHA, RATE, noise=7),
    Case(int16(5), int8(0), ALPHA, RATE),
    Case(int16(0), int8(1), ALPHA, RATE),
    Case(int16(100), int8(-128), ALPHA, RATE, noise=2**32 - 1),
    Case(int16(32767, -32768, 32767, -32768), int8(-128, 127, 127, -128), ALPHA, Number.of(1.0)),
    Case(int16(), int8(), ALPHA, RATE, noise=3),
    *(Case(int16(-3, 2, 9), int8(-128, 1, 127), a, r, bits) for a in LIMITS for r in LIMITS for bits in (0, 15)),
    *(
        Case(int16(-3, 2), int8(-128, 1), ALPHA, r, bits, 2**32 - 1)
        for r in LIMITS
        for bits in (-(1 << 15), (1 << 15) - 1)
    ),
]
LARGE = [
    # 2^18 squares of 2^14 are 2^32: a plain sum in 32 bits would be 0
    Case(torch.zeros(1 << 18, dtype=torch.int16), torch.full((1 << 18,), -128, dtype=torch.int8), Number.of(1e3), RATE),
    Case(
        torch.zeros(200_001, dtype=torch.int16),
        torch.full((200_001,), 127, dtype=torch.int8),
        Number.of(1e3),
        RATE,
        12,
        1,
    ),
    Case(
        torch.zeros(300_000, dtype=torch.int16),
        torch.randint(-128, 128, (300_000,), generator=torch.Generator().manual_seed(0)).to(torch.int8),
        Number.of(700.0),
        RATE,
        13,
        9,
    ),
]


def random_cases(count: int) -> list[Case]:
    """Updates of every kind: sizes, sparsities, scales, roundings, numbers sensible and not."""
    draw, rng = random.Random(0), np.random.default_rng(0)
    cases = []
    for _ in range(count):
        n, spread = draw.randint(1, 40), draw.choice((1, 5, 128))
        gradient = rng.integers(-spread, spread, n, dtype=np.int8) * (rng.random(n) < draw.random()).astype(np.int8)
        cases.append(
            Case(
                torch.from_numpy(rng.integers(-32768, 32768, n, dtype=np.int16)),
                torch.from_numpy(gradient),
                draw.choice(
                    (Number.of(10 ** draw.uniform(-3, 5)), Number(draw.randrange(1 << 16), draw.randint(-40, 40)))
                ),
                draw.choice(
                    (Number.of(10 ** draw.uniform(-5, 0)), Number(draw.randrange(1 << 16), draw.randint(-40, 20)))
                ),
                draw.randint(0, 15),
                draw.choice((None, draw.randrange(1 << 32))),
            )
        )
    return cases


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> Path:
    """The driver with the header, by the system's compiler; undefined behaviour ends it where the compiler can."""
    if COMPILER is None:
        pytest.skip("no C compiler (cc, gcc, clang) on this machine")
    folder = tmp_path_factory.mktemp("header")
    (folder / "alphagrad.h").write_text(header({"RATE": 1e-3}), encoding="utf-8")
    program = folder / "updates"
    for checked in (["-fsanitize=undefined", "-fno-sanitize-recover=all"], []):
        words = [COMPILER, *STRICT, "-O2", *checked, f"-I{folder}", str(DRIVER), "-o", str(program)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return program
    raise AssertionError(done.stderr)


def test_c_equals_the_emulation_to_the_bit(compiled):
    cases = [*EDGES, *LARGE, *random_cases(UPDATES)]
    done = subprocess.run([compiled], input=b"".join(case.packed() for case in cases), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    at = 0
    moved = 0
    for case in cases:
        expected = case.emulated()
        assert done.stdout[at : at + len(expected)] == expected, case
        at += len(expected)
        moved += expected[:-4] != case.weights.numpy().tobytes()
    assert at == len(done.stdout)
    assert moved > UPDATES / 2  # else the comparison says little


def test_the_object_needs_nothing(compiled, tmp_path):
    """No call leaves it: nothing of libm, of the allocator, of floating point in software."""
    if shutil.which("nm") is None:
        pytest.skip("no nm on this machine")
    source, made = tmp_path / "one.c", tmp_path / "one.o"
    source.write_text(
        '#include "alphagrad.h"\nvoid one(int16_t *w, const int8_t *g, uint32_t n, uint32_t *noise);\n'
        "void one(int16_t *w, const int8_t *g, uint32_t n, uint32_t *noise)\n"
        "{ alphagrad_update(w, g, n, RATE, RATE, 12, noise); }\n"
    )
    subprocess.run([COMPILER, *STRICT, "-Os", f"-I{compiled.parent}", "-c", source, "-o", made], check=True)
    undefined = subprocess.run(["nm", "-u", made], capture_output=True, text=True, check=True).stdout
    assert undefined.split() == []
    for word in ("float", "double", "malloc", "int64", "long"):
        assert word not in header().partition("#ifndef")[2]


OTHERS = """
#include <stddef.h>
#include "adam.h"
#include "sgd.h"
void sgd(int16_t *w, const int8_t *g, uint32_t n, int16_t e, uint16_t m, int16_t re);
void momentum(int16_t *w, const int8_t *g, uint32_t n, int16_t e, uint16_t m, int16_t re, int16_t *v);
void adam(int16_t *w, const int8_t *g, uint32_t n, int16_t e, uint16_t m, int16_t re, adam_moments *v);
void sgd(int16_t *w, const int8_t *g, uint32_t n, int16_t e, uint16_t m, int16_t re)
{ alphagrad_number rate = {m, re}; sgd_update(w, g, n, e, rate, 12, NULL); }
void momentum(int16_t *w, const int8_t *g, uint32_t n, int16_t e, uint16_t m, int16_t re, int16_t *v)
{ alphagrad_number rate = {m, re}; sgd_momentum_update(w, g, n, e, rate, 12, NULL, v, -11, 3); }
void adam(int16_t *w, const int8_t *g, uint32_t n, int16_t e, uint16_t m, int16_t re, adam_moments *v)
{ alphagrad_number rate = {m, re}; adam_update(w, g, n, e, rate, 12, NULL, v, -10); }
"""


@pytest.fixture(scope="module")
def others(compiled) -> ctypes.CDLL:
    """SGD and Adam of the benchmark, as a library."""
    source = compiled.parent / "others.c"
    source.write_text(OTHERS, encoding="utf-8")
    benchmark = Path(__file__).resolve().parents[2] / "benchmarks" / "fixed_point"
    library = compiled.with_name("others.so")
    words = [COMPILER, *STRICT, "-O2", "-shared", "-fPIC", f"-I{compiled.parent}", f"-I{benchmark}", source]
    subprocess.run([*words, "-o", library], check=True)
    return ctypes.CDLL(str(library))


@pytest.mark.parametrize(("name", "lr", "state"), [("sgd", 0.02, 0), ("momentum", 0.002, 2), ("adam", 0.01, 8)])
def test_what_it_is_compared_with_is_sgd_and_adam(others, name, lr, state):
    """The benchmark's C follows torch's floats over 300 steps of drifting gradients in changing units."""
    rng = torch.Generator().manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(200, dtype=torch.float64))
    optimizer = {
        "sgd": lambda: torch.optim.SGD([p], lr),
        "momentum": lambda: torch.optim.SGD([p], lr, momentum=7 / 8),
        "adam": lambda: torch.optim.Adam([p], lr, betas=(7 / 8, 1 - 2.0**-10), eps=1e-12),
    }[name]()
    weights = np.zeros(200, dtype=np.int16)
    kept = np.zeros(200 * state, dtype=np.int8)
    drift = torch.randn(200, generator=rng, dtype=torch.float64)
    for step in range(1, 301):
        quantised, exponent = quantized((drift + torch.randn(200, generator=rng)) * (0.2 + 0.1 * math.cos(step)))
        p.grad = quantised.double() * 2.0**exponent
        optimizer.step()
        rate = lr * math.sqrt(1 - (1 - 2.0**-10) ** step) / (1 - (7 / 8) ** step) if name == "adam" else lr
        gradient, pointers = quantised.numpy(), [] if state == 0 else [kept.ctypes]
        getattr(others, name)(weights.ctypes, gradient.ctypes, 200, exponent, *Number.of(rate), *pointers)
    moved = torch.from_numpy(weights).double() * 2.0**-12
    assert torch.nn.functional.cosine_similarity(moved, p.detach(), dim=0) > 0.999
    assert (moved - p.detach()).abs().max() < 0.03 * p.detach().abs().max()


def test_the_header_is_written(tmp_path, capsys):
    assert main(["--to", str(tmp_path / "alphagrad.h"), "--number", "RATE=1e-3", "--number", "STEEP=100"]) == 0
    text = (tmp_path / "alphagrad.h").read_text()
    assert "static const alphagrad_number RATE = {16777, -24}; /* 0.001 */" in text
    assert "@" not in text
    assert main([]) == 0
    assert capsys.readouterr().out == header()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--number", "RATE"], "RATE: expected NAME=VALUE"),
        (["--number", "1=2"], "1: must be a name in C"),
        (["--number", "alphagrad_x=2"], "must be a name in C that does not begin with alphagrad"),
        (["--number", "RATE=-1"], "RATE: must be finite and ≥ 0"),
        (["--number", "RATE=nan"], "RATE: must be finite and ≥ 0"),
        (["--to", "nowhere/at/all.h"], "nowhere"),
        (["--number", "int=1"], "int: is a word of C"),
        (["--number", "uint32_t=3"], "uint32_t: is a word of C, or of its headers"),
        (["--number", "UINT32_C=3"], "UINT32_C: is a word of C"),
        (["--number", "_RATE=1"], "_RATE: must be a name in C"),
        (["--number", "A=1", "--number", "A=2"], "--number A=2: A is given twice"),
        (["--number", "R=1e-400"], "--number R=1e-400: must be 0 or at least 5e-324"),
        (["--number", "R=1e400"], "R: must be finite and ≥ 0"),
        (["--nosuch"], "unrecognized arguments: --nosuch"),
    ],
)
def test_a_wrong_word_is_one_line(words, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line
    assert not list(tmp_path.iterdir())


NAMES = {
    False: ["RATE", "rate", "weights", "i", "noise", "INTENSITY_MAX", "x1", "interest", "sum", "A_C"],
    True: ["int", "uint32_t", "int_fast8_t", "INT8_MAX", "SIZE_MAX", "restrict", "linux", "main", "while"],
}


@pytest.mark.parametrize("taken", [False, True])
def test_names_that_a_compiler_takes(taken, tmp_path):
    """A name is refused where the header would not compile, and only there."""
    if COMPILER is None:
        pytest.skip("no C compiler (cc, gcc, clang) on this machine")
    words = (COMPILER, "-std=c99", "-Dlinux=1", "-fsyntax-only")  # as gcc itself defines it
    for name in NAMES[taken]:
        if taken:
            with pytest.raises(ValueError, match=f"{name}: is a word of C"):
                header({name: 1.0})
            text = header({"RATE": 1.0}).replace("alphagrad_number RATE", f"alphagrad_number {name}")
        else:
            text = header({name: 1.0})
        source = tmp_path / f"{name}.c"
        source.write_text(text + "int main(void) { return 0; }\n", encoding="utf-8")
        built = subprocess.run([*words, source], capture_output=True, check=False)
        assert (built.returncode != 0) == taken, (name, built.stderr)


def test_the_module_is_a_program(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["alphagrad.fixed_point", "--help"])
    monkeypatch.delitem(sys.modules, "alphagrad.fixed_point.__main__")
    with pytest.raises(SystemExit) as left:
        runpy.run_module("alphagrad.fixed_point", run_name="__main__")
    assert left.value.code == 0
    assert "--number NAME=VALUE" in capsys.readouterr().out
