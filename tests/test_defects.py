"""The thirteen defects of the workflow that this project re-creates: each has a test here that can fail."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT, SMALL

from postergenre.config import make_params, read_params_file, run_folder
from postergenre.errors import ConfigError
from postergenre.params import Params


def checkpoint(path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def test_01_the_range_test_ends_in_order_smooths_and_suggests(chain):
    import pandas as pd

    from postergenre.train.finder import smooth

    for stage in ("lrf_head", "lrf_full"):  # exit code 0 is checked where the chain is run
        table = pd.read_csv(chain / stage / "lr_find.csv")
        assert table["lr"].is_monotonic_increasing and np.allclose(table["smoothed"], smooth(table["loss"]))
        summary = json.loads((chain / stage / "summary.json").read_text())
        assert summary["suggestion"]["words"] and not list((chain / stage).glob("*.pth"))


@pytest.mark.parametrize(("test", "stage"), [("lrf_head", "head"), ("lrf_full", "full")])
def test_02_a_range_test_probes_the_stage_it_is_for(test, stage):
    probed, trained = (read_params_file(ROOT / "params" / f"{name}.yaml") for name in (test, stage))
    parts = ("model_name", "model_kwargs", "checkpoint_name", "img_size", "squash", "augmentations", "batch_size",
             "loss", "loss_kwargs", "pos_weight", "optimizer", "optimizer_kwargs", "backbone_lr_factor",
             "layer_decay", "gradient_clip", "mixed_precision")  # fmt: skip
    assert {name: getattr(probed, name) for name in parts} == {name: getattr(trained, name) for name in parts}

    def frozen(params):
        return [item for item in params.callbacks if "freeze" in item]

    assert frozen(probed) == frozen(trained)


def test_03_the_average_is_the_accepted_one_with_its_own_batch_norm_and_whole_counters(chain):
    from postergenre.train.averaging import greedy_soup

    states = [{"w": torch.tensor(value)} for value in (1.0, 5.0)]
    taken, value, kept = greedy_soup(states, lambda state: (-abs(state["w"].item() - 1), state), "macro_ap")
    assert taken == [0] and value == 0 and kept["w"] == 1.0  # the rejected average is not what is kept

    averaged = checkpoint(chain / "full" / "model.swa.pth")
    members = [checkpoint(chain / "full" / "checkpoints" / name)["model"] for name in averaged["meta"]["averaged"]]
    mean = torch.stack([member["backbone.bn2.running_mean"] for member in members]).mean(0)  # of the last stage
    assert not torch.allclose(averaged["model"]["backbone.bn2.running_mean"], mean, atol=1e-6)
    counters = {name: value.dtype for name, value in averaged["model"].items() if name.endswith("num_batches_tracked")}
    assert counters and set(counters.values()) == {torch.int64}


def test_04_frozen_layers_and_their_batch_norm_statistics_stay_still(chain):
    from postergenre.model.classifier import create_model

    head, full = (checkpoint(chain / stage / "model.best.pth")["model"] for stage in ("head", "full"))
    pretrained = create_model("tf_efficientnet_lite0", 8, (64, 48)).state_dict()
    backbone = [name for name in pretrained if name.startswith("backbone.")]
    assert all(torch.equal(head[name], pretrained[name]) for name in backbone)
    assert torch.equal(full["backbone.bn1.running_mean"], head["backbone.bn1.running_mean"])  # of the stem, frozen
    assert not torch.equal(full["backbone.bn2.running_mean"], head["backbone.bn2.running_mean"])  # free, it moves


def test_05_06_07_the_export_is_in_eval_mode_with_the_thresholds_and_genres_it_was_measured_with(chain):
    from postergenre.predict.scorer import load_predictor

    stored = checkpoint(
        chain / "full" / json.loads((chain / "full" / "export.json").read_text())["made_from"]["weights"]
    )
    images = torch.randint(0, 256, (4, 3, 64, 48), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for file in ("model.ts", "model.pt2", "model.onnx"):
        predictor = load_predictor(chain / "full" / file)
        first, second, alone = predictor.scores(images), predictor.scores(images), predictor.scores(images[:1])
        assert torch.equal(first, second)  # no dropout
        assert torch.allclose(first[:1], alone, atol=1e-5)  # no batch statistics
        assert predictor.genres == stored["meta"]["genres"]
        assert np.allclose(predictor.thresholds, stored["meta"]["thresholds"], atol=0)
    assert len(set(stored["meta"]["thresholds"])) > 1  # tuned, not one constant


def test_08_no_epoch_replays_another_ones_augmentation(runs, monkeypatch):
    from postergenre.train.setup import create_run

    monkeypatch.setenv("RUNS_PATH", str(runs))
    monkeypatch.delenv("ROOT_PATH", raising=False)
    values = {**SMALL, "model_name": "test_efficientnet", "pretrained": False, "batch_size": 1, "num_workers": 1}
    run = create_run(make_params({**values, "num_iteration_on_epoch": 120}), runs / "streams")
    epochs = [{int(index): image[0] for image, _, index in run.train_loader} for _ in range(2)]
    shared = epochs[0].keys() & epochs[1].keys()
    same = [index for index in shared if torch.equal(epochs[0][index], epochs[1][index])]
    assert len(shared) > 100 and not same


def test_09_a_genre_without_positives_spoils_no_average():
    from postergenre.metrics.metrics import summary_metrics

    rng = np.random.default_rng(0)
    targets = (rng.random((200, 3)) < 0.3).astype(int)
    scores, genres = rng.random((200, 3)), ["Drama", "Comedy", "News"]
    targets[:, 2] = 0
    figures = summary_metrics(targets, scores, genres)
    without = summary_metrics(targets[:, :2], scores[:, :2], genres[:2])
    assert np.isfinite(list(figures.values())).all() and figures["n_genres"] == 2
    assert figures["macro_auc"] == without["macro_auc"] and figures["macro_ap"] == without["macro_ap"]


def test_10_a_schedule_whose_peak_falls_below_its_base_is_refused():
    from postergenre.train.schedules import create_schedule

    wanted = {"max_lr": 1e-3, "period_epochs": 5, "warmup_iterations": 100, "decay": 0.7}
    with pytest.raises(ConfigError, match="cycle 14 of 20"):
        create_schedule("cosine_restarts", wanted, 1e-5, 100, 100)
    assert str(create_schedule("cosine_restarts", wanted, 1e-5, 100, 50)).endswith("10 peaks")


def test_11_focal_loss_gets_steps_as_large_as_bce_from_the_optimizer_of_its_params_file():
    from postergenre.train.losses import create_loss
    from postergenre.train.schedules import create_optimizer

    full, overlay = (read_params_file(ROOT / "params" / f"{name}.yaml") for name in ("full", "focal"))
    focal = full.model_copy(update=overlay.model_dump(exclude_unset=True))
    assert focal.loss == "focal" and focal.optimizer_kwargs == full.optimizer_kwargs

    def first_step(params: Params) -> tuple[float, float]:
        "Norms of the gradient and of what the optimizer makes of it."
        torch.manual_seed(0)
        model = torch.nn.Module()
        model.head = torch.nn.Linear(64, 8)
        features, targets = torch.randn(128, 64), (torch.rand(128, 8) < 0.15).float()
        optimizer = create_optimizer(model, params.optimizer, {**params.optimizer_kwargs, "weight_decay": 0.0})
        before = model.head.weight.detach().clone()
        create_loss(params.loss, params.loss_kwargs)(model.head(features), targets).backward()
        gradient = model.head.weight.grad.norm().item()
        optimizer.step()
        return gradient, (model.head.weight.detach() - before).norm().item()

    (gradient, step), (focal_gradient, focal_step) = first_step(full), first_step(focal)
    assert gradient > 1.5 * focal_gradient  # the defect is real ...
    assert 0.9 < step / focal_step < 1.1  # ... and does not reach the weights


NO_RUNS = ("bench", "demo", "evaluate", "sweep_example")


def test_12_a_run_is_found_again_by_its_name_alone(chain):
    assert (chain / "full" / "model.swa.pth").is_file()  # swa was given no path, only the same params file
    files = sorted(file for file in (ROOT / "params").glob("*.yaml") if file.stem not in NO_RUNS)
    names = {file.stem: run_folder(read_params_file(file)).name for file in files}
    assert all(name in (stem, f"full_{stem}") for stem, name in names.items()), names  # full_: overlays of full.yaml
    with pytest.raises(ConfigError, match="experiment_name"):
        make_params({"experiment_name": "full/2026-11-24 10:00"})


def test_13_the_configuration_is_validated():
    with pytest.raises(ConfigError, match="Did you mean `n_epochs`"):
        make_params({"n_epoch": 3})
    with pytest.raises(ConfigError, match="at least 1"):
        make_params({"n_epochs": 0})
