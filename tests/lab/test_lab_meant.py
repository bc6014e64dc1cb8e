"""Words that go wrong in ways that people write them: one line says what was meant."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import product

import pytest
import yaml
from alphagrad.recipes.language import data as language
from alphagrad.recipes.language import models
from omegaconf import OmegaConf
from tiers import quick_where

from alphagrad.lab.config.catalogue import taken
from alphagrad.lab.config.complaints import options_in
from alphagrad.lab.config.compose import whole

ALPHAS = "(constant, fan_in, quantile, saturation, schedule, sqrt_dim, sqrt_total)"
# arguments → what the one line must say
MEANT = {
    "alpha=93": f"alpha=93: alpha is a group {ALPHAS}; give alpha.value=93",
    "-m alpha=93,100 seed=1,2": f"alpha=93: alpha is a group {ALPHAS}; give alpha.value=93",
    "alpha=[1,2]": f"alpha=[1,2]: alpha is a group {ALPHAS}; give a name",
    "alpha=true": f"alpha=true: alpha is a group {ALPHAS}; give a name",
    "alpha=inf": f"alpha=inf: alpha is a group {ALPHAS}",
    "optimizer=0.1": "optimizer is a group (adam, adamw, ",
    "recipe=3": (
        "recipe=3: recipe is a group (dqn_cartpole, image, lm, ppo_halfcheetah, regression, td3_hopper, text, theory)"
    ),
    "hydra/launcher=3": "hydra/launcher is a group (basic, ",
    "-m optimizer=[adam,sgd]": "optimizer=[adam,sgd]: optimizer is a group",
    "alpha.sqrt_dim=3": "alpha is a group; give alpha=sqrt_dim",
    "alpha.sqrt_dim.k=3": "give alpha=sqrt_dim alpha.k=3",
    "alpha.kind=saturation": "alpha is a group; give alpha=saturation",
    "alpha.value=sqrt_dim": "alpha is a group: give alpha=sqrt_dim",
    "optimizer.alpha=sqrt_dim": "alpha is a group of its own; give alpha=sqrt_dim",
    "optimizer.rule.alpha=sqrt_dim": "alpha is a group of its own; give alpha=sqrt_dim",
    "recipe=image recipe.model=cnn": "model is a group of its own; give model=cnn",
    "recipe.optimizer=nope": "optimizer is a group of its own; give optimizer=NAME; there are adam",
    "recipe.env=Acrobot-v1": "give env.id=Acrobot-v1",
    "optimizer.name=adam": "this only changes a name; optimizer is a group; give optimizer=adam",
    "recipe.name=image": "give recipe=image",
    "recipe=image model=gpt2": (
        "model=gpt2: recipe=image takes no such model; it takes cnn, custom, mlp, resnet18, resnet50"
    ),
    "recipe=lm model=cnn": "model=cnn: recipe=lm takes no such model; it takes custom, gpt2, llama",
    "recipe=text model=resnet18": "it takes custom, mlp, pretrained, transformer",
    "recipe=text data=mnist": "it takes ag_news, custom_text, imdb, newsgroups, pydocs, table\n",
    "recipe=lm data=mnist": "it takes ag_news, custom_text, imdb, newsgroups, sotu, table, text_files, topics\n",
    "recipe=image data=pydocs": "data=pydocs: recipe=image takes no such data; it takes cifar10, cifar100",
    "recipe.total_steps=1.5e0": "recipe.total_steps=1.5: input should be a valid integer",
    "optimizer=alphagrad, adam": "alphagrad, adam: a setting has no blanks in it; give optimizer=alphagrad,adam",
    "-m optimizer=adam , sgd": "give optimizer=adam,sgd",
    "recipe = image": "recipe = image: a setting has no blanks in it; give recipe=image",
    "recipe =image": "give recipe=image",
    "recipe= image": "give recipe=image",
    "recipe.hidden=[8, 8]": "give 'recipe.hidden=[8,8]'",
    "recipe.hidden=[8": "recipe.hidden=[8: cannot be read; it has [ and ] in different numbers",
    "seed=1, recipe=image": "seed=1,: cannot be read; give seed=1",
    "optimizer adam": "optimizer adam: a setting has no blanks in it; give optimizer=adam",
    "seed=1 alpha.value = 93": "alphagrad: alpha.value = 93: a setting has no blanks in it; give alpha.value=93",
    "seed=1 alpha.value 93": "alphagrad: alpha.value 93: a setting has no blanks in it; give alpha.value=93",
    "seed=1 alpha.value =93": "alphagrad: alpha.value =93: a setting has no blanks in it; give alpha.value=93",
    "seed=1 alpha.value= 93": "alphagrad: alpha.value= 93: a setting has no blanks in it; give alpha.value=93",
    "-m seed=1 ,2": "alphagrad: seed=1 ,2: a setting has no blanks in it; give seed=1,2",
    "optimizer=adam sgd": "alphagrad: sgd: is no setting; give sgd=VALUE",
    "alpha.alpha=93": "alpha.alpha=93: no such setting; alpha is a group of its own; give alpha.value=93",
    "recipe=theory alpha.alpha=93": "give alpha.value=93",
    "recipe=theory alpha.transform=sign": "transform is a group of its own; give transform=sign",
    "recipe=image model.model=3": "model is a group of its own; give model=NAME; there are cnn, custom",
    "recipe=theory model.hidden=3": "model.hidden: recipe=theory has no model",
    "optimizer=sign alpha.alpha=93": "alpha.alpha: optimizer=sign has no alpha",
    "optimizer.alpha=93": "optimizer.alpha=93: alpha is a group of its own; give alpha.value=93",
    "optimizer.rule.alpha=93": "give alpha.value=93",
    "recipe.alpha=93": "give alpha.value=93",
    "optimizer.alpha=93 optimizer=sqrt_dim": "give alpha.k=93",
    "--optimizer adam": "settings have no dashes: optimizer=adam",
    "--multi-run seed=1,2": "did you mean --multirun?",
    "optimizer=adam,sgd": "optimizer=adam,sgd: gives several values, which takes `alphagrad run -m` (--multirun)",
    "-m hydra.launcher.n_jobs=2": (
        "hydra.launcher.n_jobs=2: hydra/launcher=basic has no such setting; give hydra/launcher=joblib"
    ),
    "hydra.launcher.nope=2": "hydra.launcher.nope=2: hydra/launcher=basic has no such setting; it has none",
    "-m hydra/launcher=joblib hydra.launcher.n_job=2": "hydra/launcher=joblib has no such setting; it has ",
    "-m hydra/launcher=stacked hydra.launcher.n_jobs=2": "hydra/launcher=stacked has no such setting; give ",
    "hydra/launcher.n_jobs=2": "hydra/launcher.n_jobs=2: no such setting; give hydra.launcher.n_jobs=2",
    "hydra/launcher/n_jobs=2": "no such setting; give hydra.launcher.n_jobs=2",
    "seed=range(3)": "seed=range(3): gives several values",
}


DEAR = (
    "recipe=image data=pydocs",
    "recipe=lm model=cnn",
    "recipe=text model=resnet18",
    "recipe=text data=mnist",
    "recipe=lm data=mnist",
)
"""Words for which every option of a group is tried."""


@pytest.mark.parametrize("words", quick_where(MEANT, lambda words: words not in DEAR))
def test_one_line_says_what_is_meant(cli, lab, tmp_path, words):
    lab.chdir(tmp_path)
    told = cli("run", *words.split(" "))
    assert (told.status, len(told.err.splitlines()), told.out) == (2, 1, ""), told.err
    assert MEANT[words] in told.err
    for grammar in ("viable", "expecting", "mismatched", "ValueError", "Traceback"):
        assert grammar not in told.err
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(("recipe", "group"), product(("lm", "text"), ("model", "data")))
@pytest.mark.long
def test_what_is_listed_is_what_the_recipe_takes(composed, lab, recipe, group):
    """The recipe's own checks are asked, with texts in place of what is on disk or on the hub."""
    rows, documents = [("a", "x"), ("b", "y")], ["a", "b"]
    for name, made in {"_rows": rows, "_pairs": rows, "_documents": documents, "_own_documents": documents}.items():
        lab.setattr(language, name, lambda *_, made=made: made)
    allowed = models.CLASSIFIERS if recipe == "text" else models.CAUSAL
    read = (language.labelled if recipe == "text" else language.corpus).__wrapped__  # nothing is kept

    def takes(option):
        config = composed(f"recipe={recipe}", f"{group}={option}")
        values = OmegaConf.to_container(config[group], resolve=False)
        given = {key: "given" if value == "???" else value for key, value in values.items()}
        try:
            if group == "data":
                read(language.DataSettings(**given))
            else:
                models.check_model(models.ModelSettings(**given), recipe, allowed)
        except ValueError:
            return False
        return True

    options, listed = options_in(group), taken([f"recipe={recipe}"], group)
    assert listed == [option for option in options if takes(option)]


@pytest.mark.parametrize("command", ["alpha", "tune"])
def test_other_commands_say_it_too(cli, lab, tmp_path, command):
    lab.chdir(tmp_path)
    for words, said in {
        "alpha=93": "give alpha.value=93",
        "recipe=image model=gpt2": "takes no such model",
        "--optimizer adam": "settings have no dashes",
    }.items():
        told = cli(command, *words.split(" "))
        assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
        assert said in told.err


def test_whole_numbers_may_be_written_with_an_exponent(cli):
    words = (
        "recipe.total_steps=1e5",
        "recipe.hidden=[1e2,64]",
        "checkpoint.every_steps=1e3",
        "seed=2e0",
        "alpha=schedule",
    )
    shown = cli("run", "--cfg", "job", *words, "alpha.steps=1e4", "alpha.start=1e1")
    config = yaml.safe_load(shown.out)
    assert repr(config["recipe"]["total_steps"]) == "100000"
    assert repr(config["recipe"]["hidden"]) == "[100, 64]"
    assert repr(config["checkpoint"]["every_steps"]) == "1000"
    assert repr(config["seed"]) == "2"
    assert repr(config["alpha"]["steps"]) == "10000"
    assert repr(config["alpha"]["start"]) == "10.0"  # any number


@pytest.mark.parametrize(
    ("value", "standing", "made"),
    [
        (1e5, 3, 100000),
        (1.5, 3, 1.5),
        (1e5, 3.0, 1e5),
        (1e5, True, 1e5),
        (float("inf"), 3, float("inf")),
        ("1e5", 3, "1e5"),
    ],
)
def test_what_becomes_a_whole_number(value, standing, made):
    assert (whole(value, standing), type(whole(value, standing))) == (made, type(made))


def test_a_sweep_of_them_is_the_sweep_of_the_whole_numbers(composed):
    from alphagrad.lab.config import compose
    from alphagrad.lab.config.alike import compose_all
    from alphagrad.lab.config.sweep import jobs_of

    written, plain = (
        [compose.job_key(config) for config in compose_all(jobs_of([f"recipe.total_steps={values}", "seed=0,1"]))]
        for values in ("1e3,2e3", "1000,2000")
    )
    assert written == plain


def test_a_file_of_the_users_may_hold_them(cli, lab, tmp_path):
    folder = tmp_path / "conf/recipe"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [dqn_cartpole, _self_]\nrecipe:\n  total_steps: 1.0e+5\n  gamma: 2\n"
    )
    lab.setenv("ALPHAGRAD_CONF", str(tmp_path / "conf"))
    told = cli("run", "recipe=mine", f"output_root={tmp_path / 'out'}")
    assert (told.status, told.err.splitlines()) == (
        2,
        ["alphagrad: recipe.gamma=2: input should be less than or equal to 1"],
    )


@pytest.mark.long
def test_settings_that_have_no_effect_are_told(cli, odd, root):
    told = cli("run", "recipe=odd", "hydra/launcher=stacked", "stack.processes=1", f"output_root={root}")
    assert told.status == 0
    for word in ("hydra/launcher=stacked", "stack.processes=1"):
        assert f"alphagrad: {word}: has no effect without -m" in told.err
    told = cli("run", "-m", "recipe=odd", "hydra/launcher=stacked", "stack.processes=1", f"output_root={root}")
    assert "no effect" not in told.err


ASCII = """
import sys, alphagrad_cli
root = sys.argv[1]
for words in (["--help"], ["ls"], ["alpha"], ["run", "optimizer=\\u03b1"], ["run", "alpha.value=-1"],
              ["run", "recipe=odd", "\\u221a=1"],
              ["run", "recipe=odd", f"output_root={root}"],
              ["run", "-m", "recipe=odd", "seed=0,1", f"output_root={root}"],
              ["status", "--output-root", root], ["report", "--output-root", root]):
    try:
        print(alphagrad_cli.main(words))
    except SystemExit as left:
        print(left.code)
"""


@pytest.mark.long
def test_a_terminal_that_knows_ascii_alone(odd, root):
    """Also where the language is C, and Python does not make it UTF-8."""
    ascii_alone = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ASCII, str(root)], capture_output=True, check=False, env={**os.environ, **ascii_alone}
    )
    told, said = done.stdout.decode("ascii"), done.stderr.decode("ascii")
    assert done.returncode == 0, said
    assert [line for line in told.splitlines() if line in ("0", "1", "2")] == ["0"] * 3 + ["2"] * 3 + ["0"] * 4
    assert "UnicodeEncodeError" not in said
    assert "tanh(alpha*" in told
