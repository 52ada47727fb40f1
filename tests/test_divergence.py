"""Numbers that are not finite: a run stops at the batch where they occur, and a file that holds them is named."""

import json
import shutil

import numpy as np
import pytest
import torch

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.params import EvaluateParams, PredictParams
from postergenre.train.checkpoints import load_checkpoint, load_plain, model_of

SMALL = {
    "n_demo_posters": 150,
    "img_size": [32, 32],
    "batch_size": 8,
    "num_iteration_on_epoch": 4,
    "n_epochs": 3,
    "keep": "all",
    "pretrained": False,
    "num_workers": 0,
    "min_positives": 2,
    "model_name": "test_efficientnet",
}
STEPS = {"first": (5, "The loss of batch 3 of epoch 2"), "last": (7, "The validation loss of epoch 2 is nan")}


@pytest.fixture(autouse=True)
def here(runs, monkeypatch):
    monkeypatch.setenv("RUNS_PATH", str(runs))
    monkeypatch.delenv("ROOT_PATH", raising=False)


@pytest.mark.parametrize("metric", ["loss", "macro_ap"])
@pytest.mark.parametrize("step", STEPS)
def test_a_run_that_diverges_stops_there_and_can_go_on_from_the_epoch_before(step, metric, runs):
    from postergenre.train.loop import fit
    from postergenre.train.runs import release
    from postergenre.train.setup import prepare
    from postergenre.train.training import finalize

    number, words = STEPS[step]
    params = make_params({**SMALL, "experiment_name": f"diverged_{step}_{metric}", "valid_metric": metric})
    run = prepare(params)
    rate = run.schedule.lr
    object.__setattr__(run.schedule, "lr", lambda step: 1e38 if step == number else rate(step))
    with pytest.raises(FloatingPointError) as caught:
        fit(run)
    release(run.lock)
    assert str(caught.value).startswith(words) and "The learning rate may be too high" in str(caught.value)
    assert f"learning rate of {1e38 if step == 'last' else rate(6):.3g}." in str(caught.value)
    stored = [path.name for path in (run.folder / "checkpoints").iterdir()]
    assert stored == ["epoch_0001.pth"] and not (run.folder / "summary.json").exists()
    again = prepare(params)  # with the rates as they should be
    assert again.epoch == 1
    assert fit(again)["epoch"].tolist() == [1, 2, 3]
    assert np.isfinite(finalize(again)["valid"]["loss"])


@pytest.mark.parametrize("metric", ["loss", "macro_ap", "micro_ap", "macro_auc"])
@pytest.mark.parametrize("rate", [1e6, 1e38])
def test_a_rate_far_too_high_is_blamed_whatever_chooses_the_checkpoint(rate, metric, runs):
    from postergenre.train.loop import fit
    from postergenre.train.runs import release
    from postergenre.train.setup import prepare

    name = f"too_high_{rate:.0g}_{metric}".replace("+", "")
    values = {"experiment_name": name, "valid_metric": metric, "optimizer_kwargs": {"lr": rate}}
    run = prepare(make_params({**SMALL, **values}))
    with pytest.raises(FloatingPointError, match="The learning rate may be too high: run lr_find"):
        fit(run)
    release(run.lock)
    assert not list(run.folder.rglob("*.pth"))


def test_a_range_test_may_diverge(runs):
    from postergenre.train.finder import find_lr

    values = {"experiment_name": "lrf_diverged", "lrf_max_lr": 1e30, "lrf_iterations": 40, "lrf_stop_factor": 1e30}
    found = find_lr(make_params({**SMALL, **values}))
    assert 12 <= len(found.table) < 40 and np.isfinite(found.table.to_numpy()).all()


@pytest.fixture(scope="module")
def broken(runs):
    "A finished run with NaN in its checkpoints, and such exports."
    from postergenre.export.job import _float_files, export_notes, export_thresholds
    from postergenre.train.training import train_run

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNS_PATH", str(runs))
        patch.delenv("ROOT_PATH", raising=False)
        folder = train_run(make_params({**SMALL, "experiment_name": "broken"})).folder
        for path in (folder / "model.best.pth", *(folder / "checkpoints").iterdir()):
            spoil(path)
        for module in ("train.checkpoints", "export.files"):
            patch.setattr(f"postergenre.{module}.check_finite", lambda *_: None)
        checkpoint = load_checkpoint(folder / "model.best.pth")
        meta = checkpoint["meta"]
        notes = export_notes(meta, "model.best.pth", "", export_thresholds(folder, meta, ""))
        for name, content in _float_files(model_of(checkpoint), meta, notes):
            (folder / name).write_bytes(content)
    return folder


def spoil(path) -> None:
    "Put a NaN into a checkpoint, as an earlier version of this project would have."
    content = load_plain(path)
    content["model"]["backbone.bn1.weight"][0] = torch.nan
    torch.save(content, path)


def predict(file):
    from postergenre.predict.job import predict_folder

    return lambda folder: predict_folder(PredictParams(model=str(folder / file), output=str(folder / "scores.csv")))


def evaluate(folder):
    from postergenre.report.evaluation import evaluate_run

    evaluate_run(EvaluateParams(experiment_name=folder.name, weights="best"))


def try_it(folder):
    from postergenre.pages.try_it import load_judge

    load_judge(folder / "model.best.pth")


def average(folder):
    from postergenre.train.averaging import average_run

    average_run(make_params({**SMALL, "experiment_name": folder.name}))


def export(folder):
    from postergenre.export.job import export_run

    export_run(make_params({**SMALL, "experiment_name": folder.name, "export_weights": "best", "overwrite": True}))


def start(folder):
    from postergenre.train.setup import prepare

    prepare(make_params({**SMALL, "experiment_name": "from_broken", "checkpoint_name": folder.name}))


USES = {
    "train": (start, "model.best.pth"),
    "swa": (average, "epoch_0"),
    "export": (export, "model.best.pth"),
    "evaluate": (evaluate, "model.best.pth"),
    "try it": (try_it, "model.best.pth"),
    **{file: (predict(file), file) for file in ("model.best.pth", "model.ts", "model.pt2", "model.onnx")},
}


@pytest.mark.parametrize("use", USES)
def test_weights_that_are_not_finite_are_refused_by_the_name_of_their_file(use, broken):
    job, file = USES[use]
    with pytest.raises(ConfigError, match=f"{file}.* holds weights that are infinite or NaN") as caught:
        job(broken)
    assert "learning rate" not in str(caught.value)


def test_a_state_that_is_not_finite_is_refused_by_its_name(runs):
    from postergenre.train.loop import fit
    from postergenre.train.runs import release
    from postergenre.train.setup import prepare

    params = make_params({**SMALL, "experiment_name": "broken_state", "n_epochs": 1})
    run = prepare(params)
    fit(run)
    release(run.lock)
    state = torch.load(run.folder / "state.pth", weights_only=True)
    state["model"]["backbone.bn1.running_var"][:] = torch.inf
    torch.save(state, run.folder / "state.pth")
    with pytest.raises(ConfigError, match="state.pth holds weights that are infinite or NaN"):
        prepare(params)
    shutil.rmtree(run.folder)
    assert json.dumps(prepare(params).epoch) == "0"
