"""On real posters, which are no part of the project: the head, against logistic regression and against itself.

Run with REAL_POSTERS naming a data folder; a few minutes on two CPU cores for the first, a quarter of an hour for the
second."""

import os
import warnings

import numpy as np
import pytest
from conftest import ROOT
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from postergenre.config import read_params_file
from postergenre.data.experiment import cache_folder, dataset_of
from postergenre.data.split import targets_of
from postergenre.metrics.metrics import summary_metrics
from postergenre.train.features import FeatureDataset, stored_features
from postergenre.train.loop import evaluate, fit
from postergenre.train.runs import release
from postergenre.train.setup import prepare

REAL = os.environ.get("REAL_POSTERS")
pytestmark = pytest.mark.skipif(not REAL, reason="REAL_POSTERS names no folder of real posters")


def features_of(dataset: FeatureDataset) -> np.ndarray:
    return np.stack([dataset.rows[row] for row in range(len(dataset.rows))])


def test_the_head_stage_beats_logistic_regression_on_the_same_split(runs, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", os.environ.get("REAL_RUNS", str(runs)))
    params = read_params_file(ROOT / "params" / "head.yaml").model_copy(update={"root_path": REAL, "overwrite": True})
    run = prepare(params)
    fit(run)
    release(run.lock)
    best = max(run.history, key=lambda row: row["macro_ap"])

    plain = {split: dataset_of(params, run.data, split) for split in ("train", "valid", "test")}
    settings = params.model_dump(include={"model_name", "model_kwargs", "img_size", "squash"})
    arguments = (1, settings, run.accelerator, 10**9, 64)
    stored = stored_features(cache_folder(params), run.model, plain["train"], plain["valid"], *arguments)
    test = stored_features(cache_folder(params), run.model, plain["test"], plain["valid"], *arguments).train
    features = {"train": features_of(stored.train), "valid": features_of(stored.valid), "test": features_of(test)}
    targets = {split: targets_of(getattr(run.data, split), run.data.genres) for split in features}
    figures = {}
    for c in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=500))
            fitted = OneVsRestClassifier(one).fit(features["train"], targets["train"])
        for split in ("valid", "test"):
            scores = fitted.predict_proba(features[split])
            figures[c, split] = summary_metrics(targets[split], scores, run.data.genres)["macro_ap"]
    strongest = max((c for c, split in figures if split == "valid"), key=lambda c: figures[c, "valid"])
    from postergenre.train.checkpoints import load_checkpoint, model_of

    model = model_of(load_checkpoint(run.folder / "model.best.pth"))
    loader = [(images[None], wanted[None], 0) for images, wanted, _ in (test[index] for index in range(len(test)))]
    own = evaluate(model.head, loader, run.loss, run.accelerator)
    ours = {"valid": best["macro_ap"], "test": summary_metrics(own.targets, own.scores, run.data.genres)["macro_ap"]}
    theirs = {split: figures[strongest, split] for split in ("valid", "test")}
    print(f"head {ours}, logistic regression (C = {strongest:g}, the best on validation data) {theirs}")
    print({f"{c:g} {split}": round(value, 4) for (c, split), value in figures.items()})
    assert ours["valid"] > theirs["valid"]


def test_the_head_learns_as_well_on_stored_features_as_on_pictures(runs, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", os.environ.get("REAL_RUNS", str(runs)))
    values = {"root_path": REAL, "overwrite": True}
    params = read_params_file(ROOT / "params" / "head.yaml").model_copy(update=values)
    best = {}
    for name, views in (("features", params.feature_views), ("images", 0)):
        run = prepare(params.model_copy(update={"experiment_name": f"head_on_{name}", "feature_views": views}))
        best[name] = fit(run)["macro_ap"].max()
        release(run.lock)
        assert (run.feature_cache is not None) == bool(views)
    print(best)
    assert best["features"] > best["images"] - 0.005
