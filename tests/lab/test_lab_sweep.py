"""The jobs of a multirun."""

from __future__ import annotations

from itertools import product

import pytest
import recalled

from alphagrad.common.errors import ConfigError
from alphagrad.lab.config import alike, compose
from alphagrad.lab.config.sweep import jobs_of, sweep_parameters


@pytest.fixture
def jobs(lab):
    """``jobs(override, ...)`` → the jobs, each as a set of overrides."""
    with compose.hydra_initialized():
        yield lambda *overrides: [set(job) for job in jobs_of(overrides)]


def test_one_job_without_commas(jobs):
    assert jobs("optimizer=adam", "seed=3") == [{"optimizer=adam", "seed=3"}]
    assert jobs() == [set()]


def test_product_in_order(jobs):
    found = jobs("optimizer=adam,sgd", "seed=range(3)", "recipe.gamma=0.9")
    expected = [{f"optimizer={o}", f"seed={s}", "recipe.gamma=0.9"} for o, s in product(("adam", "sgd"), range(3))]
    assert found == expected


def test_ranges_choices_and_lists(jobs):
    assert jobs("seed=range(2,8,3)") == [{"seed=2"}, {"seed=5"}]
    assert jobs("seed=choice(4,7)") == [{"seed=4"}, {"seed=7"}]
    assert jobs("recipe.hidden=[8,8],[16]") == [{"recipe.hidden=[8,8]"}, {"recipe.hidden=[16]"}]
    assert jobs("recipe.hidden=[8,8]") == [{"recipe.hidden=[8,8]"}]


def test_a_setting_goes_to_the_optimizers_that_have_it(jobs):
    found = jobs("optimizer=adam,alphagrad", "alpha.value=93,186")
    assert found == [
        {"optimizer=adam"},
        {"optimizer=alphagrad", "alpha.value=93"},
        {"optimizer=alphagrad", "alpha.value=186"},
    ]


def test_a_setting_goes_to_the_rules_that_have_it(jobs):
    found = jobs("optimizer=hybrid", "transform=hybrid,hybrid_scheduled", "transform.lam.steps=5,6")
    assert found == [
        {"optimizer=hybrid", "transform=hybrid"},
        {"optimizer=hybrid", "transform=hybrid_scheduled", "transform.lam.steps=5"},
        {"optimizer=hybrid", "transform=hybrid_scheduled", "transform.lam.steps=6"},
    ]


def test_what_is_left_is_not_run_twice(jobs):
    found = jobs("optimizer=adam,alphagrad", "alpha.value=93,186,279", "seed=range(2)", "optimizer.lr=0.1")
    assert len(found) == len({frozenset(j) for j in found}) == 2 + 6
    assert all("optimizer.lr=0.1" in job for job in found)  # both have it


def test_slots_and_settings_of_one_optimizer(jobs):
    found = jobs("optimizer=adam,sign,alphagrad", "alpha=constant,sqrt_dim")
    assert found == [
        {"optimizer=adam"},
        {"optimizer=sign"},
        {"optimizer=alphagrad", "alpha=constant"},
        {"optimizer=alphagrad", "alpha=sqrt_dim"},
    ]
    found = jobs("optimizer=adam,sgd", "optimizer.betas=[0.9,0.99]", "optimizer.momentum=0.5")
    assert found == [
        {"optimizer=adam", "optimizer.betas=[0.9,0.99]"},
        {"optimizer=sgd", "optimizer.momentum=0.5"},
    ]


def test_settings_follow_the_slot_that_is_chosen(jobs):
    found = jobs("optimizer=adam,alphagrad", "alpha=sqrt_dim", "alpha.k=1,3")
    assert found == [
        {"optimizer=adam"},
        {"optimizer=alphagrad", "alpha=sqrt_dim", "alpha.k=1"},
        {"optimizer=alphagrad", "alpha=sqrt_dim", "alpha.k=3"},
    ]


@pytest.mark.long
def test_what_no_optimizer_has_stays_and_fails(jobs, composed):
    for overrides in (("optimizer=adam,sgd", "alpha.value=3"), ("optimizer=adam,alphagrad", "alpha.valu=3,4")):
        for job in jobs(*overrides):
            key = overrides[1].partition("=")[0]
            with pytest.raises(ConfigError, match=key):
                composed(*job)


def test_settings_of_recipe_and_job_are_never_dropped(jobs, composed):
    found = jobs("optimizer=adam,alphagrad", "recipe.nope=3", "alpha.value=93")
    assert all("recipe.nope=3" in job for job in found)
    with pytest.raises(ConfigError, match=r"recipe\.nope"):
        composed(*found[0])


def test_with_one_optimizer_nothing_is_dropped(jobs):
    assert jobs("optimizer=adam", "alpha.value=93,186") == [
        {"optimizer=adam", "alpha.value=93"},
        {"optimizer=adam", "alpha.value=186"},
    ]


def test_a_continuous_range_gives_no_jobs(jobs):
    assert jobs("optimizer.lr=interval(0.1,0.2)", "seed=1,2") == []


def test_notice_once_for_each_optimizer(lab, capsys):
    with compose.hydra_initialized():
        jobs_of(["optimizer=adam,sign,alphagrad", "alpha.value=93,186", "seed=range(3)"], announce=True)
        told = capsys.readouterr().err.splitlines()
        jobs_of(["optimizer=adam,alphagrad", "alpha.value=93,186"])
        assert capsys.readouterr().err == ""
    assert sorted(told) == [
        "alphagrad: alpha.value does not apply to optimizer=adam, which runs without it",
        "alphagrad: alpha.value does not apply to optimizer=sign, which runs without it",
    ]


def test_a_study_file_sweeps(lab, tmp_path):
    folder = tmp_path / "experiment"
    folder.mkdir()
    (folder / "small.yaml").write_text(
        "# @package _global_\n# a small study\nhydra:\n  sweeper:\n    params:\n"
        "      optimizer: adam,alphagrad\n      alpha.value: 93,186\n      seed: range(2)\n"
    )
    lab.setenv("ALPHAGRAD_CONF", str(tmp_path))
    with compose.hydra_initialized():
        overrides = ["experiment=small", "recipe.gamma=0.5"]
        params = sweep_parameters(overrides)
        assert params == ["optimizer=adam,alphagrad", "alpha.value=93,186", "seed=range(2)"]
        found = jobs_of([*params, *overrides])
        assert len(found) == 6
        # the command line wins over the file
        found = jobs_of([*params, *overrides, "seed=7"])
        assert len(found) == 3
        assert all("seed=7" in job and "recipe.gamma=0.5" in job for job in found)
        assert sweep_parameters(["seed=1,2"]) == []


def test_hydra_runs_the_jobs_that_were_checked(lab):
    """The sweeper that Hydra calls and the check before it take the same list; Hydra's own settings stay with Hydra."""
    from alphagrad.lab.launching.check import checked_jobs

    compose.register()
    from hydra_plugins.alphagrad import StudySweeper

    overrides = ["optimizer=adam,alphagrad", "alpha.value=93,186", "seed=range(2)"]
    with compose.hydra_initialized():
        listed = jobs_of(overrides)
    jobs = checked_jobs(["hydra/launcher=stacked", *overrides], True, None)
    with jobs.handed_out():
        assert StudySweeper.split_arguments([], None) == [listed]
        batches = StudySweeper.split_arguments([], 4)
    assert [len(b) for b in batches] == [4, 2]
    assert [job for b in batches for job in b] == listed
    with jobs.handed_out(set(jobs) - {list(jobs)[3]}):
        assert StudySweeper.split_arguments([], None) == [[listed[3]]]
    with pytest.raises(LookupError):
        StudySweeper.split_arguments([], None)


def seeds_and_values():
    jobs = [
        [f"optimizer={name}", f"seed={seed}", "recipe.gamma=0.5"] for name in ("adam", "alphagrad") for seed in range(3)
    ]
    jobs += [["optimizer=adam"], ["seed=7", "optimizer=adam", "seed=8"], ["seed=9", "optimizer=adam", "seed=10"]]
    jobs += [
        ["optimizer=alphagrad", f"alpha.value={value}", f"optimizer.lr={lr}"] for value in (93, 1e2) for lr in (1, 2)
    ]
    jobs += [["optimizer.lr=1", "+optimizer.rho=1"], ["optimizer.lr=2", "+optimizer.rho=2"]]
    jobs += [["recipe.gamma=null", "output_root=x"], ["recipe.gamma=0.9", "output_root='${device}'"]]
    return [*jobs, ["alpha=sqrt_dim", "optimizer.lr=3"], ["alpha=constant", "optimizer.lr=4"]]


@pytest.mark.long
def test_jobs_that_differ_in_values_are_composed_once(lab, monkeypatch):
    """And are what composing each of them gives."""
    jobs = seeds_and_values()
    with compose.hydra_initialized():
        expected = [compose.composed(job) for job in jobs]
        composed = []
        one = compose.composed
        monkeypatch.setattr(alike, "composed", lambda job: composed.append(job) or one(job))
        monkeypatch.setattr(alike, "checked", lambda config, job: config)
        assert alike.compose_all(jobs) == expected
    assert composed == [jobs[n] for n in (0, 3, 6, 7, 9, 13, 14, 15, 17, 18)]
    assert len({compose.job_key(config) for config in expected}) == len(jobs)


def test_a_copy_is_checked_as_what_was_composed(lab):
    jobs = [["seed=1"], ["seed=2"], ["seed='${nowhere}'"]]
    with compose.hydra_initialized(), pytest.raises(ConfigError, match="nowhere"):
        alike.compose_all(jobs)
    with compose.hydra_initialized(), pytest.raises(ConfigError, match="wrong"):
        alike.compose_all([["recipe.wrong=1"], ["recipe.wrong=2"]])


def test_the_launcher_gets_what_hydra_composes(lab):
    """Copies included: Hydra's notes of the job's settings, and names of folders made of them."""
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    jobs = [["seed=1", "recipe.gamma=0.5"], ["seed=2", "recipe.gamma=0.25"], ["recipe.gamma=0.1", "seed=3"]]
    with compose.hydra_initialized():
        loader = GlobalHydra.instance().config_loader()
        master = compose.hydra_config(["hydra.sweep.dir=there"])
        composed = []

        def compose_one(job):
            composed.append(job)
            return loader.load_sweep_config(master, job)

        composing = alike.Alike(compose_one, loader)
        for job in jobs:
            found, expected = composing(job), loader.load_sweep_config(master, job)
            plain = [OmegaConf.to_container(config, resolve=False) for config in (found, expected)]
            assert plain[0] == plain[1]
            assert found.hydra.sweep.subdir == expected.hydra.sweep.subdir
    assert composed == [jobs[0], jobs[2]]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["recipe.name=[1,2]", "recipe.name=3"], ["recipe.name=3", "recipe.name=[1,2]"]),
        (["tracking.uri=b", "tracking={uri:a}"], ["tracking.uri=c", "tracking={uri:a}"]),
        (["tracking={uri:a}", "tracking.uri=b"], ["tracking={uri:a}", "tracking.uri=c"]),
    ],
    ids=str,
)
def test_settings_of_one_place_count_in_their_order(lab, first, second):

    def outcome(compose_one, job):
        try:
            return compose_one(job)
        except ConfigError as error:
            return str(error)

    with compose.hydra_initialized():
        composing = alike.Alike(compose.composed, compose.GlobalHydra.instance().config_loader())
        for job in (first, second):
            assert outcome(composing, job) == outcome(compose.composed, job)


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer=adam", "seed=3"],
        ["recipe=image", "optimizer=hybrid", "transform=hybrid_scheduled", "hydra/launcher=stacked"],
        ["~instruments.every", "+optimizer.new=1", "hydra.run.dir=there"],
        ["recipe=text", "optimizer=nope"],
        ["recipe.nope=1"],
    ],
    ids=" ".join,
)
def test_what_the_tests_recall_is_what_hydra_composes(lab, words):
    """Whatever was done with a configuration that was handed out before."""
    from omegaconf import OmegaConf, open_dict

    def outcome():
        try:
            with compose.hydra_initialized():
                return compose.hydra_config(words)
        except ConfigError as error:
            return str(error)

    before = outcome()
    if not isinstance(before, str):
        with open_dict(before):
            before.hydra.overrides.task.clear()
            before.pop("optimizer")
    found = outcome()
    lab.setattr(recalled.ConfigRepository, "load_config", recalled.READ)
    lab.setattr(recalled.ConfigLoaderImpl, "_compose_config_from_defaults_list", recalled.MERGE)
    expected = outcome()
    plain = [c if isinstance(c, str) else OmegaConf.to_container(c, resolve=False) for c in (found, expected)]
    assert plain[0] == plain[1]


def test_malformed_overrides_are_named(lab):
    with compose.hydra_initialized(), pytest.raises(ConfigError, match=r"seed=\["):
        jobs_of(["seed=["])
    with compose.hydra_initialized(), pytest.raises(ConfigError, match="optimizer=nope"):
        sweep_parameters(["optimizer=nope"])
