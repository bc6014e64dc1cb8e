"""Texts of the hub: without a network, and their classes' names."""

from __future__ import annotations

import pytest
from alphagrad.recipes.language import hub
from alphagrad.recipes.language.data import DataSettings, labelled


@pytest.mark.long
def test_a_hub_name_without_network_is_one_line_at_once(cli, root, monkeypatch):
    from huggingface_hub import HfApi

    asked = []

    def unreachable(self, repo, **settings):
        asked.append((repo, settings["timeout"]))
        raise OSError("no route to the hub")

    monkeypatch.setattr(HfApi, "repo_info", unreachable)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("it must not wait and try again"))
    monkeypatch.setenv("HF_HOME", str(root))
    failed = cli("run", "recipe=text", "data=ag_news", f"output_root={root}")
    assert failed.status == 2
    assert "data.repo=fancyzhx/ag_news: is not on this machine" in failed.err
    assert "no route to the hub" in failed.err
    assert len(failed.err.strip().splitlines()) == 1
    assert asked == [("fancyzhx/ag_news", hub.TIMEOUT)]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    failed = cli("run", "recipe=text", "model=pretrained", "model.path=no/such", "recipe.vocabulary=null")
    assert "model.path=no/such: is not on this machine" in failed.err
    assert "HF_HUB_OFFLINE is set" in failed.err
    assert len(asked) == 1


def test_hub_data_have_their_classes_names(monkeypatch):
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})

    def load(repo, config, split):
        return datasets.Dataset.from_dict({"text": ["bad", "good"], "label": [0, 1]}, features=features)

    monkeypatch.setattr(datasets, "load_dataset", load)
    s = {"name": "hub", "repo": "some/reviews", "train": "train", "test": "test", "text": "text", "label": "label"}
    found = labelled(DataSettings(**s))
    assert (found.classes, found.train.labels) == (["neg", "pos"], [0, 1])
    with pytest.raises(ValueError, match=r"data.repo=some/reviews: has no column body"):
        labelled(DataSettings(**{**s, "text": "body"}))
