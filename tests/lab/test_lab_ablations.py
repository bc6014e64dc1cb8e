"""The ablations: each composes with each recipe, at a length that the recipe has for them, and is described."""

from __future__ import annotations

from itertools import product

import pytest
from tiers import one_in

from alphagrad.lab.config.build import build
from alphagrad.lab.config.catalogue import options_of
from alphagrad.lab.config.compose import compose, hydra_initialized
from alphagrad.lab.config.sweep import jobs_of, sweep_parameters

STUDIES = sorted(name for name in options_of("experiment") if name.startswith("ablate/"))
RECIPES = sorted(options_of("recipe"))
CELLS = {
    "stages": 12,
    "alpha": 7,
    "alpha_rule": 6,
    "beta": 5,
    "kappa": 5,
    "lambda": 5,
    "gamma": 5,
    "epsilon": 5,
    "granularity": 6,
    "saturation_band": 6,
}
EPOCHS = ("image", "text")
"""Recipes whose length is said in epochs."""
SEEDS = "seed=range(5)"


def cells_of(study: str, recipe: str) -> list[list[str]]:
    """The jobs of one seed."""
    words = [f"experiment={study}", f"recipe={recipe}"]
    swept = sweep_parameters(words)
    assert SEEDS in swept
    return jobs_of([*words, *(word for word in swept if word != SEEDS)])


def check(study: str, recipe: str) -> None:
    cells = cells_of(study, recipe)
    assert len(cells) == CELLS[study.partition("/")[2]]
    short, whole = compose(cells[-1]), compose([f"recipe={recipe}"])
    length = "epochs" if recipe in EPOCHS else "total_steps"
    assert 0 < short.recipe[length] < whole.recipe[length]
    assert short.recipe.name == whole.recipe.name


def test_every_hyperparameter_and_the_stages_have_a_study():
    assert [name.partition("/")[2] for name in STUDIES] == sorted(CELLS)
    assert all(text for text, _ in (options_of("experiment")[name] for name in STUDIES))


@pytest.mark.parametrize("study", one_in(3, STUDIES))
def test_a_study_composes(study):
    with hydra_initialized():
        check(study, "theory")


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_can_be_ablated(recipe):
    with hydra_initialized():
        check("ablate/beta", recipe)


@pytest.mark.slow
@pytest.mark.parametrize(("study", "recipe"), [*product(STUDIES, RECIPES)])
def test_every_job_can_be_built(study, recipe):
    with hydra_initialized():
        check(study, recipe)
        for cell in cells_of(study, recipe):
            build(compose(cell))


def test_the_stages_are_what_they_say():
    with hydra_initialized():
        cells = [compose(cell) for cell in cells_of("ablate/stages", "ppo_halfcheetah")[::3]]
    built = {cell.optimizer.name: cell for cell in cells}
    rules = {name: (own.normalization._target_, own.transform._target_) for name, own in built.items() if name != "sgd"}
    stages = {name: tuple(part.rpartition(".")[2] for part in rule) for name, rule in rules.items()}
    assert stages == {
        "alphagrad": ("PerTensor", "Tanh"),
        "normalize_only": ("PerTensor", "Identity"),
        "tanh_only": ("Unnormalized", "Tanh"),
    }
    assert built["sgd"].optimizer._target_ == "torch.optim.SGD"  # neither
    assert {(own.optimizer.momentum, own.optimizer.clip_grad_norm) for own in built.values()} == {(0.9, None)}


def test_no_budget_is_a_recipes_own_length():
    with hydra_initialized():
        assert compose(["recipe=image"]) == compose(["recipe=image", "budget=full"])


def test_the_catalogue_of_a_group(cli):
    told = cli("ls", "experiment")
    assert told.status == 0
    assert told.out.count("ablate/") == len(STUDIES)
    assert "Recipes" not in told.out
    wrong = cli("ls", "nosuch")
    assert (wrong.status, len(wrong.err.splitlines())) == (2, 1)
    assert wrong.err.startswith("alphagrad: nosuch: no such group; there are ")
