"""References to the paper: the sections that each part is from, and no reference that is not looked at here."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest
from written import CHECKOUT

NUMBERS = r"\d(?:\.\d)?(?:(?:,| and) \d(?:\.\d)?)*"
REFERENCE = re.compile(rf"[Ss]ections? ({NUMBERS})|[Pp]aper,? \(({NUMBERS})\)")
OTHERS = re.compile(r"\(\d{4}, section [\d.]+\)|appendix")
"""References to other papers."""

SECTIONS = {
    "2": "the update: normalisation by an L2 norm, then tanh; its limits",
    "2.1": "how α is chosen",
    "3": "theory: one norm over all parameters",
    "5.2": "how α is chosen",
    "5.3": "the unit of normalisation: tensor, layer",
    "6": "experiments in CleanRL's setting",
    "7.1": "β·tanh and sin(κ·tanh)",
    "7.2": "how α is chosen",
    "7.3": "saturation: S(α), its band, schedules of α",
    "7.5": "the hybrid of tanh and ĝ, λ fixed, scheduled or adaptive",
    "7.6": "diagnostics, stage 1 and stage 2 alone",
}
"""The paper's sections that are referred to."""
PARTS = {
    "alphagrad.step": "2",
    "alphagrad.instruments.observe": "7.3 7.6",
    "alphagrad.normalization": "2 5.3",
    "alphagrad.normalization.Global": "3",
    "alphagrad.normalization.Blend": "5.3",
    "alphagrad.normalization.Unnormalized": "7.6",
    "alphagrad.alpha": "2.1 5.2 7.2 7.3",
    "alphagrad.alpha.FanIn": "2.1",
    "alphagrad.alpha.Schedule": "7.3",
    "alphagrad.alpha.Saturation": "7.3",
    "alphagrad.values.Ramp": "7.3 7.5",
    "alphagrad.transform": "2 7.1 7.5",
    "alphagrad.transform.ScaledTanh": "7.1",
    "alphagrad.transform.SinTanh": "7.1",
    "alphagrad.transform.Hybrid": "7.5",
    "alphagrad.transform.FromSaturation": "7.5",
    "alphagrad.transform.Identity": "7.6",
    "alphagrad.variants.alphagrad": "2",
    "alphagrad.variants.sqrt_dim": "2.1",
    "alphagrad.variants.scaled_tanh": "7.1",
    "alphagrad.variants.sin_tanh": "7.1",
    "alphagrad.variants.hybrid": "7.5",
    "alphagrad.variants.saturation": "7.3",
    "alphagrad.variants.normalize_only": "2 7.6",
    "alphagrad.variants.tanh_only": "7.6",
    "alphagrad.variants.sign": "2",
    "alphagrad.variants.module_wise": "5.3",
    "alphagrad.variants.group_wise": "5.3",
}
"""Module or class → the sections that its docstring refers to."""
FILES = {
    "alphagrad/step.py": "2 7.3",
    "conf/recipe/dqn_cartpole.yaml": "6",
    "conf/recipe/ppo_halfcheetah.yaml": "6",
    "conf/recipe/td3_hopper.yaml": "6",
    "docs/howto/text.md": "7.5",
    "docs/precision.md": "7.4",
    "docs/paper.md": "6",
    "docs/results/regression.md": "5.3",
    "docs/theory.md": "3",
    "recipes/statements/__init__.py": "3",
    "recipes/theory.py": "3",
    "alphagrad/instruments/gaussianity.py": "2.1",
}
"""Files whose references stand elsewhere than in the docstrings of :data:`PARTS`."""


def referred(text: str) -> list[str]:
    """The sections that a text refers to, in order."""
    found = {
        number for match in REFERENCE.findall(OTHERS.sub("", text)) for number in re.findall(r"\d(?:\.\d)?", str(match))
    }
    return sorted(found)


def part(name: str) -> object:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        module, _, own = name.rpartition(".")
        return getattr(import_module(module), own)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_of_its_sections(name):
    named = referred(inspect.getdoc(part(name)) or "")
    assert named == PARTS[name].split()
    assert set(named) <= set(SECTIONS)


def test_no_other_reference():
    """One that is written anywhere else is to be entered here, and looked up in the paper first."""
    expected: dict[str, set[str]] = {name: set(sections.split()) for name, sections in FILES.items()}
    for name, sections in PARTS.items():
        file = Path(str(inspect.getfile(part(name)))).relative_to(CHECKOUT)
        expected.setdefault(str(file), set()).update(sections.split())
    files = [
        file
        for folder in ("alphagrad", "conf", "recipes", "docs", "benchmarks")
        for pattern in ("*.py", "*.yaml", "*.md")
        for file in (CHECKOUT / folder).rglob(pattern)
        if not {"generated", "_build"} & set(file.parts)
    ]
    every = {str(file.relative_to(CHECKOUT)): set(referred(file.read_text(encoding="utf-8"))) for file in files}
    found = {name: sections for name, sections in every.items() if sections}
    # a new variant says its source itself, and is entered nowhere
    added = {name for name in found.keys() - expected.keys() if name.startswith("alphagrad/variants/")}
    assert all(found[name] <= set(SECTIONS) for name in added)
    assert {name: sections for name, sections in found.items() if name not in added} == expected


def test_references_are_seen():
    assert referred("(paper, sections 2.1, 5.2 and 7.3)") == ["2.1", "5.2", "7.3"]
    assert referred("The paper (5.3) names it; section 3") == ["3", "5.3"]
    assert referred("Chen (1999, section 4.1.6) has 7.5 of it") == []
