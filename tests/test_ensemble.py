"""Several networks and views as one model: what is averaged and refused, and that each job uses it like any model."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.params import EvaluateParams, PredictParams

TINY = {"n_epochs": 1, "num_iteration_on_epoch": 2, "pretrained": False, "img_size": [48, 32], "trackers": []}
NETWORKS = {"one": "test_efficientnet", "two": "test_resnet"}


def values(name: str, **more) -> dict:
    return {**SMALL, **TINY, "experiment_name": name, "model_name": NETWORKS.get(name, "test_resnet"), **more}


def train(name: str, **more) -> Path:
    from postergenre.train.training import train_run

    return train_run(make_params(values(name, **more))).folder


def combine(name: str, *members: str, tta: tuple = ("flip",), **more):
    from postergenre.train.averaging import combine_run

    return combine_run(make_params(values(name, ensemble_members=list(members), tta=list(tta), **more)))


def _make_opinionated(path: Path, seed: int) -> None:
    "Give a checkpoint a head whose scores differ from poster to poster, and from view to view."
    from postergenre.train.checkpoints import load_checkpoint, save_checkpoint

    stored = load_checkpoint(path)
    weight = stored["model"]["head.linear.weight"]
    weight.normal_(0, 2, generator=torch.Generator().manual_seed(seed))
    save_checkpoint(path, stored["model"], stored["meta"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "A folder with two finished runs of different networks on one split."
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("runs")
        patch.setenv("RUNS_PATH", str(folder))
        patch.delenv("ROOT_PATH", raising=False)
        for seed, name in enumerate(NETWORKS):
            train(name)
            _make_opinionated(folder / name / "model.best.pth", seed)
        yield folder


@pytest.fixture(scope="module")
def combined(runs):
    "Both networks over both views, in the folder of the first."
    return combine("one", "two", overwrite=True)


def by_hand(runs: Path, images: torch.Tensor, names: tuple = tuple(NETWORKS), flip: bool = True) -> np.ndarray:
    "Return the scores of mean logits, from the checkpoints of the runs."
    from postergenre.train.checkpoints import load_checkpoint, model_of

    models = [model_of(load_checkpoint(runs / name / "model.best.pth")) for name in names]
    views = (images, images.flip(3)) if flip else (images,)
    with torch.inference_mode():
        logits = [model(view) for model in models for view in views]
    return (sum(logits) / len(logits)).sigmoid().numpy()


def posters_of(runs: Path, split: str) -> tuple[torch.Tensor, list[str]]:
    from postergenre.data.experiment import dataset_of, load_run_data

    params = make_params(values("one"))
    data = load_run_data(params)
    dataset = dataset_of(params, data, split)
    return torch.stack([dataset[row][0] for row in range(len(dataset))]), getattr(data, split)["path"].tolist()


def test_the_scores_of_each_job_are_those_of_the_mean_logits(runs, combined, tmp_path):
    from postergenre.export.job import export_run
    from postergenre.predict.job import predict_folder
    from postergenre.predict.scorer import load_predictor
    from postergenre.report.predictions import open_finished, scores_of_split

    images, paths = posters_of(runs, "test")
    wanted = by_hand(runs, images)
    for other in (by_hand(runs, images, flip=False), by_hand(runs, images, ("one",)), by_hand(runs, images, ("two",))):
        assert np.abs(other - wanted).max() > 0.01  # so each member and each view matters
    run = open_finished("one", "ensemble")
    np.testing.assert_allclose(scores_of_split(run, "test").scores, wanted, atol=1e-5)
    export = export_run(make_params(values("one", export_weights="ensemble", overwrite=True)))
    assert "Mean logits of model.best.pth of run one and model.best.pth of run two" in str(export)
    assert export.summary["postergenre"]["tta"] == ["flip"] and len(export.summary["postergenre"]["members"]) == 2
    for name in ("model.ensemble.pth", "model.ts", "model.pt2", "model.onnx"):
        predictor = load_predictor(export.folder / name)
        with torch.inference_mode():
            for n in (1, 5):
                given = predictor.scores(images[:n]).numpy()
                np.testing.assert_allclose(given, wanted[:n], atol=1e-5, err_msg=name)
        assert list(predictor.thresholds) == run.meta["thresholds"], name
    (tmp_path / "list.txt").write_text("\n".join(paths))
    for name in ("model.ensemble.pth", "model.ts"):
        asked = {"model": f"one/{name}", "images": str(tmp_path / "list.txt"), "output": str(tmp_path / f"{name}.csv")}
        predict_folder(PredictParams(**asked, n_shown=0))
        table = pd.read_csv(tmp_path / f"{name}.csv")
        np.testing.assert_allclose(table[run.genres].to_numpy(), wanted, atol=1e-5)
    shown = scores_of_split(open_finished("one", "model.onnx"), "test").scores
    np.testing.assert_allclose(shown, wanted, atol=1e-5)


def test_openvino_runs_it(runs, combined):
    from postergenre.model.inference import CompiledNetwork, compile_network
    from postergenre.train.checkpoints import load_checkpoint, model_of

    images, _ = posters_of(runs, "test")
    compiled = compile_network(model_of(load_checkpoint(runs / "one" / "model.ensemble.pth")), (48, 32))
    assert isinstance(compiled, CompiledNetwork)
    np.testing.assert_allclose(compiled(images).sigmoid().numpy(), by_hand(runs, images), atol=1e-4)


def test_thresholds_are_tuned_on_validation_scores_of_the_ensemble_and_nothing_looks_at_test_posters(runs, monkeypatch):
    from postergenre.metrics.metrics import tune_thresholds
    from postergenre.report.predictions import open_finished, scores_of_split
    from postergenre.train import averaging

    asked, plain = [], averaging.evaluation_loader
    monkeypatch.setattr(averaging, "evaluation_loader", lambda p, d, split: asked.append(split) or plain(p, d, split))
    again = combine("one", "two", overwrite=True)
    assert asked == ["valid"]
    run = open_finished("one", "ensemble")
    valid = scores_of_split(run, "valid")
    np.testing.assert_allclose(run.meta["thresholds"], tune_thresholds(valid.targets, valid.scores, 3), atol=1e-5)
    alone = [open_finished(name, "best") for name in NETWORKS]
    for member in alone:
        assert member.meta["thresholds"] != run.meta["thresholds"]
    table = again.table.set_index("model")["macro_ap"]
    assert again.summary["best_single"] == table.iloc[:2].max()
    assert again.summary["best_member"] == table.iloc[:2].idxmax()
    assert again.summary["comparison"]["b"] == table.iloc[2] == again.summary["value"]


@pytest.mark.parametrize("clear", [True, False])
def test_auto_takes_the_ensemble_only_if_it_is_clearly_better(runs, clear, monkeypatch):
    from postergenre.report.comparison import results_table
    from postergenre.report.predictions import open_finished
    from postergenre.train import averaging

    plain = averaging.paired_difference

    def certain(*given, **more):
        found = plain(*given, **more)
        return found | ({"low": 0.01, "high": 0.03} if clear else {"low": -0.01, "high": 0.03})

    monkeypatch.setattr(averaging, "paired_difference", certain)
    found = combine("one", "two", overwrite=True)
    assert ("Averaging helped" in str(found)) is clear
    assert open_finished("one").weights.name == ("model.ensemble.pth" if clear else "model.best.pth")
    assert f"ensemble of 2: {found.summary['value']:.3f}"[:18] in results_table(["one"]).loc["one", "note"]
    assert results_table(["one"]).loc["one", "note"].split(", ")[-1].startswith("used" if clear else "not used")


def test_the_report_names_the_members_and_grad_cam_explains_the_first(runs, combined):
    from postergenre.model.attribution import grad_cam
    from postergenre.pages.try_it import load_judge
    from postergenre.report.evaluation import evaluate_run
    from postergenre.train.checkpoints import load_checkpoint, model_of

    asked = {"experiment_name": "one", "weights": "ensemble", "n_cam": 2, "n_mistakes": 0, "overwrite": True}
    evaluated = evaluate_run(EvaluateParams(**asked))
    note = next(note for note in evaluated.notes if note.startswith("Mean logits"))
    assert "model.best.pth of run two, each over the poster and its mirror image: 4 forward passes" in note
    assert "Grad-CAM explains the first" in note and any("Grad-CAM" in title for title in evaluated.pictures)
    images, _ = posters_of(runs, "test")
    judge = load_judge(runs / "one" / "model.ensemble.pth")
    first = model_of(load_checkpoint(runs / "one" / "model.best.pth"))
    assert np.array_equal(grad_cam(judge.eager, images[:2], 0), grad_cam(first, images[:2], 0))


REFUSED = {
    "size": ({"img_size": [64, 48]}, "has img_size [64, 48], not [48, 32]"),
    "squash": ({"squash": True}, "has squash True, not False"),
    "genres": ({"drop_genres": ["Drama"]}, "lacks Drama"),
    "split": ({"split_seed": 7}, "was trained on another split"),
    "flips": ({"augmentations": [{"HorizontalFlip": {"p": 0}}]}, "`tta`: given flip"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_members_that_do_not_fit_are_refused_by_name(runs, case):
    changed, words = REFUSED[case]
    train(case, **changed)
    before = sorted(path.name for path in (runs / "two").iterdir())
    with pytest.raises(ConfigError) as caught:
        combine("two", case)
    assert words in str(caught.value) and f"model.best.pth of run {case}" in str(caught.value)
    assert sorted(path.name for path in (runs / "two").iterdir()) == before
    if case == "flips":
        assert "HorizontalFlip" in str(caught.value) and "`tta: []`" in str(caught.value)
        assert combine("two", case, tta=()).summary["forward_passes"] == 2


def test_a_member_of_another_split_needs_consent_and_is_never_used_unasked(runs, monkeypatch):
    from postergenre.train import averaging

    plain = averaging.paired_difference
    monkeypatch.setattr(averaging, "paired_difference", lambda *g, **m: plain(*g, **m) | {"low": 0.01, "high": 0.03})
    train("elsewhere", split_seed=8)
    with pytest.raises(ConfigError, match="`allow_other_split: true`"):
        combine("two", "elsewhere", overwrite=True)
    found = combine("two", "elsewhere", overwrite=True, allow_other_split=True)
    assert found.summary["seen"]["valid"] > 0 and found.summary["helped"] is False
    assert f"members were trained on {found.summary['seen']['valid']} of these posters" in str(found)
    from postergenre.report.evaluation import score_run

    asked = {"experiment_name": "two", "weights": "ensemble", "n_cam": 0, "n_mistakes": 0, "split": "test"}
    notes = score_run(EvaluateParams(**asked, overwrite=True)).notes
    assert any(f"{found.summary['seen']['test']} of these posters were trained on before" in note for note in notes)


def test_members_that_are_missing_or_given_twice_are_named(runs, combined):
    for members, words in (
        (["tow"], "There is no checkpoint `tow`"),
        (["one"], "given twice"),
        (["one/model.ensemble.pth"], "is an ensemble itself"),
        ([], "nothing to combine"),
    ):
        with pytest.raises(ConfigError) as caught:
            combine("one", *members, tta=(), overwrite=True)
        assert words in str(caught.value) and "ensemble_members" in str(caught.value)


def test_training_does_not_start_from_an_ensemble(runs, combined):
    with pytest.raises(ConfigError, match="model.ensemble.pth of run one is an ensemble, and training starts from one"):
        train("later", checkpoint_name="one/model.ensemble.pth")


def test_an_ensemble_stays_what_it_was_until_a_member_changes(runs):
    from postergenre.train.checkpoints import load_checkpoint, save_checkpoint

    first = combine("two", "one", overwrite=True)
    written = (runs / "two" / "model.ensemble.pth").stat().st_mtime_ns
    assert combine("two", "one").summary == first.summary
    assert (runs / "two" / "model.ensemble.pth").stat().st_mtime_ns == written
    with pytest.raises(ConfigError, match="Give `overwrite: true`"):
        combine("two", tta=("flip",))
    path = runs / "one" / "model.best.pth"
    content, stored = path.read_bytes(), load_checkpoint(path)
    stored["model"]["head.linear.weight"] += 1
    save_checkpoint(path, stored["model"], stored["meta"])
    assert combine("two", "one").summary["sha256"] != first.summary["sha256"]
    path.write_bytes(content)
    (runs / "two" / "ensemble.json").write_text("{")
    with pytest.raises(ConfigError, match=r"runs/two/ensemble.json is damaged.*`overwrite: true` \(nbs/ensemble"):
        combine("two", "one")


def test_a_damaged_description_is_named(runs, combined):
    from postergenre.train.checkpoints import load_checkpoint, save_checkpoint

    stored = load_checkpoint(runs / "one" / "model.ensemble.pth")
    for change in ({"members": []}, {"members": [{}]}, {"members": 3}, {"tta": ["rotate"]}):
        save_checkpoint(runs / "damaged.pth", stored["model"], stored["meta"] | change)
        with pytest.raises(ConfigError, match=r"damaged.pth is damaged: `(members|tta)` must hold"):
            load_checkpoint(runs / "damaged.pth")


def test_an_ensemble_in_int8(runs, combined, monkeypatch):
    pytest.importorskip("nncf", reason="nncf is not installed (the optional extra int8)")
    from postergenre.export import job
    from postergenre.predict.scorer import load_predictor

    monkeypatch.setattr(job, "INT8_LIMIT", 1.0)
    export = job.export_run(
        make_params(values("one", export_weights="ensemble", export_precision="int8", overwrite=True))
    )
    assert export.summary["int8"]["kept"]
    images, _ = posters_of(runs, "test")
    given = load_predictor(export.folder / "model.int8.onnx").scores(images).numpy()
    wanted, alone = by_hand(runs, images), [by_hand(runs, images, (name,)) for name in NETWORKS]
    assert 0 < np.abs(given - wanted).mean() < min(np.abs(one - wanted).mean() for one in alone) / 2


def test_a_parameters_file_of_training_may_name_the_views(runs):
    from postergenre.train.training import finished_run

    assert finished_run(make_params(values("one", tta=[], ensemble_members=["two"])))[2] == []
    assert json.loads((runs / "one" / "run.json").read_text())["stage"] == "finished"
