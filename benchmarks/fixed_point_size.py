"""Bytes of code and of state of an update in integers: AlphaGrad's, SGD's and Adam's, in the same style of C.

    python benchmarks/fixed_point_size.py [--cc "arm-none-eabi-gcc -mcpu=cortex-m0 -mthumb"]

Each update is compiled alone, with -Os, without a C library. *code* is what is executed, *constants* is the table.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

from alphagrad.fixed_point import header

HERE = Path(__file__).parent / "fixed_point"
FLAGS = ("-std=c99", "-Os", "-ffreestanding", "-fno-asynchronous-unwind-tables", "-fno-stack-protector")
COMMON = "int16_t *w, const int8_t *g, uint32_t n"
LAST = "alphagrad_number rate, int16_t bits, uint32_t *noise"
UPDATES = {
    "AlphaGrad": ("alphagrad", "alphagrad_number alpha, " + LAST, "alpha, rate, bits, noise", 0),
    "SGD": ("sgd", "int16_t e, " + LAST, "e, rate, bits, noise", 0),
    "SGD, momentum": (
        "sgd_momentum",
        f"int16_t e, {LAST}, int16_t *v, int16_t ve, int16_t decay",
        "e, rate, bits, noise, v, ve, decay",
        2,
    ),
    "Adam": ("adam", f"int16_t e, {LAST}, adam_moments *m, int16_t me", "e, rate, bits, noise, m, me", 8),
}
"""Update → its prefix in C, parameters and arguments after the common ones, and bytes of state of a weight."""


def sizes(compiler: list[str], name: str, folder: Path) -> tuple[int, int]:
    """Bytes of code and of constants of one update's object file."""
    prefix, parameters, arguments, _ = UPDATES[name]
    source, made = folder / "one.c", folder / "one.o"
    own = f"void one({COMMON}, {parameters})"
    include = f'#include "{prefix.partition("_")[0]}.h"\n'
    source.write_text(f"{include}{own};\n{own} {{ {prefix}_update(w, g, n, {arguments}); }}\n", encoding="utf-8")
    words = [*compiler, *FLAGS, f"-I{folder}", f"-I{HERE}", "-c", str(source), "-o", str(made)]
    subprocess.run(words, check=True)
    told = subprocess.run(["readelf", "-SW", str(made)], capture_output=True, text=True, check=True).stdout
    found = re.findall(r"\] (\.text|\.rodata)\S*\s+PROGBITS\s+\w+ \w+ (\w+)", told)
    code, constants = (sum(int(size, 16) for kind, size in found if kind == want) for want in (".text", ".rodata"))
    return code, constants


def main() -> None:
    """Prints the table of one compiler."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cc", default="cc", help="the compiler, with the flags of its processor")
    compiler = shlex.split(parser.parse_args().cc)
    print(f"| {shlex.join(compiler)} | code | constants | state of a weight |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "alphagrad.h").write_text(header(), encoding="utf-8")
        for update, (*_, state) in UPDATES.items():
            code, constants = sizes(compiler, update, folder)
            print(f"| {update} | {code} | {constants} | {state} |")


if __name__ == "__main__":
    main()
