"""The pages that are made of the code: curves are the variants' equations, tables are the configuration."""

from __future__ import annotations

import math
import re
import sys

import numpy as np
import pytest
import yaml
from test_docs_code import check, desk, parses  # noqa: F401
from written import CHECKOUT, commands

from alphagrad import variants
from alphagrad.harness import metrics
from alphagrad.instruments.quantities import QUANTITIES
from alphagrad.lab.commands import NAMES
from alphagrad.lab.config import compose
from alphagrad.lab.config.build import recipe_class

sys.path.insert(0, str(CHECKOUT / "docs"))
import curves
import pages

sys.path.remove(str(CHECKOUT / "docs"))

TANH_100 = lambda x, s: np.tanh(s.get("alpha", 100.0) * x)  # noqa: E731
# the paper's equations, of x, a component of g/‖g‖ among 10,000, and the settings of a curve
EQUATIONS = {
    "alphagrad": TANH_100,
    "group_wise": TANH_100,
    "hybrid": lambda x, s: s["lam"] * np.tanh(100 * x) + (1 - s["lam"]) * x,
    "module_wise": TANH_100,
    "normalize_only": lambda x, s: x,
    "saturation": lambda x, s: np.tanh(s["k"] * math.sqrt(10_000) * x),
    "scaled_tanh": lambda x, s: s["beta"] * np.tanh(100 * x),
    "sign": lambda x, s: np.sign(x),
    "sin_tanh": lambda x, s: np.sin(s["kappa"] * np.tanh(100 * x)),
    "sqrt_dim": lambda x, s: np.tanh(s["k"] * math.sqrt(10_000) * x),
    "tanh_only": TANH_100,
}


@pytest.mark.parametrize("name", EQUATIONS)
def test_a_curve_is_the_variants_equation(name):
    x = np.array([-0.05, -0.01, -0.001, 0.0, 0.003, 0.02])
    for case in curves.cases(name):
        scale = case.norm if name == "tanh_only" else case.share
        expected = EQUATIONS[name](x * scale, case.settings)
        assert curves.curve(name, case, x) == pytest.approx(expected, abs=2e-5), case


def test_every_curve_has_a_variant():
    assert set(curves.CASES) <= set(variants.__all__)


def flat(node: dict, prefix: str = ""):
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        elif not key.startswith("_") and key != "name" and not (isinstance(value, str) and value.startswith("${")):
            yield f"{prefix}{key}", value


@pytest.mark.parametrize("group", ["recipe", "optimizer", "alpha", "transform", "normalization"])
def test_the_tables_are_the_configuration(group):
    for file in (CHECKOUT / "conf" / group).glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        config = yaml.safe_load(text)
        config.pop("defaults", None)
        shown = {name: yaml.safe_load(default) for name, default, _ in pages.settings(text)}
        assert shown == dict(flat(config)), file
        for _, default, comment in pages.settings(text):
            assert re.search(rf"{re.escape(default)} # {re.escape(comment)}$" if comment else "", text, re.MULTILINE)


@pytest.mark.parametrize("name", variants.__all__)
def test_a_variants_page(name):
    page = pages.variant(name)
    assert f"automodule:: alphagrad.variants.{name}\n" in page
    assert f"alphagrad run optimizer={name}" in page
    chosen = pages.slots(name)
    assert set(chosen) <= {"normalization", "alpha", "transform"}
    for group, option in chosen.items():
        assert f"| `{group}` | `{option}` |" in page


def test_the_lists_hold_what_there_is(lab):
    recipes, optimizers, commands = pages.recipes(), pages.optimizers(), pages.commands()
    for file in (CHECKOUT / "conf/recipe").glob("*.yaml"):
        assert f"\n## {file.stem}\n" in recipes
    for name in ("adam", "lars", "muon", "shampoo"):
        assert f"| `{name}` | " in optimizers
    for name in NAMES:
        assert f"\n## alphagrad {name}\n" in commands
    assert "usage: alphagrad tune" in commands
    assert "recipe: dqn_cartpole" in commands


def test_every_metric_is_told_with_its_unit_and_its_recipes():
    page = pages.METRICS_FILE.read_text(encoding="utf-8")
    assert page == pages.metrics(), "it is due: python docs/pages.py"
    for file in (CHECKOUT / "conf/recipe").glob("*.yaml"):
        recipe = recipe_class(yaml.safe_load(file.read_text(encoding="utf-8"))["recipe"]["_target_"])
        assert set(recipe.logs) <= set(metrics.TITLES), file
        for metric in recipe.logs:
            assert re.search(rf"^\| `{metric}` \| [^|]+ \| [^|]+ \|[^|]*`{file.stem}`", page, re.MULTILINE), metric
    for quantity in QUANTITIES:
        assert f"| `{quantity}/TENSOR` |" in page
    assert [pages.unit(metrics.title(name)) for name in (metrics.EVAL_LOSS, metrics.MFU, metrics.EVAL_RETURN)] == [
        "nats",
        "share",
        "sum of rewards",
    ]
    assert "Largest squared TD error of a single transition" in page  # what the code says of it
    assert ":data:" not in page


SHORT = {
    "dqn_cartpole": (
        *("recipe.total_steps=80", "recipe.learning_starts=20", "recipe.log_every=20", "recipe.batch_size=8"),
        "recipe.eval_episodes=1",
    ),
    "image": ("recipe.epochs=2", "recipe.gap_images=0"),
}


@pytest.mark.long
@pytest.mark.parametrize("recipe", SHORT)
def test_steps_count_what_the_page_says(cli, root, store_runs, recipe, lab):
    lab.setattr("alphagrad.recipes.image.draw_confusion", lambda file, *_: file.touch())
    lab.setattr("alphagrad.recipes.image.draw_mistakes", lambda file, *_: file.touch())
    assert cli("run", f"recipe={recipe}", *SHORT[recipe], "instruments=none", f"output_root={root}").status == 0
    (run,) = store_runs(root)
    history = histories(root, run.info.run_id)
    row = next(line for line in pages.metrics().splitlines() if line.startswith(f"| `{recipe}` |"))
    if "an environment step" in row:
        lengths = [length for _, length in history(metrics.EPISODIC_LENGTH)]
        assert [step + 1 for step, _ in history(metrics.EPISODIC_LENGTH)] == list(np.cumsum(lengths))
        assert [step + 1 for step, _ in history(metrics.FINAL_RETURN)] == [80]
    else:
        assert "an optimizer step" in row
        each = 1438 // 128  # whole batches in an epoch
        assert [step + 1 for step, _ in history(metrics.EVAL_ACCURACY)] == [each, 2 * each]


def histories(root, run_id):
    from alphagrad.lab.store.connection import open_store

    client = open_store(f"sqlite:///{root}/mlflow.db")
    return lambda name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


@pytest.mark.parametrize("made", ["recipes", *variants.__all__])
def test_the_commands_of_generated_pages_are_ones_that_there_are(made, tmp_path, desk, lab, parses):  # noqa: F811
    file = tmp_path / "page.md"
    file.write_text(pages.recipes() if made == "recipes" else pages.variant(made), encoding="utf-8")
    found = commands(file)
    assert found
    with compose.hydra_initialized():
        for words in found:
            check(words)


def test_a_page_that_is_the_same_is_not_written_again(tmp_path):
    file = tmp_path / "below/page.md"
    pages.write(file, "one")
    before = file.stat().st_mtime_ns
    pages.write(file, "one")
    assert file.stat().st_mtime_ns == before
    pages.write(file, "two")
    assert file.read_text() == "two"


def test_a_picture_is_drawn(tmp_path):
    curves.draw("sin_tanh", tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text()
    assert drawn.startswith("<?xml")
    assert drawn.count('id="line2d_') >= len(curves.cases("sin_tanh"))
