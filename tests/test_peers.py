"""The benchmark's competitors as it runs them: a process each, on a small prepared folder."""

import ast
import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

from bench.competitors import network, timm_loader, torch_loop
from bench.competitors.clock import Clock
from bench.competitors.work import ONE_CYCLE, WorkError, check_posters, one_cycle, plan_for, read_work, worker_count
from bench.prepare import AUGMENTATION

HERE = ("torch", "timm")  # run with this Python
ELSEWHERE = ("fastai", "lightning")  # need the environment of bench/peers.txt
SETTINGS = {
    "model_name": "test_efficientnet",
    "img_size": [64, 48],
    "batch_size": 8,
    "n_epochs": 2,
    "max_lr_head": 1e-2,
    "max_lr_full": 1e-3,
    "weight_decay": 0.01,
    "mean": [0.5, 0.4, 0.3],
    "std": [0.5, 0.25, 0.2],
    "n_genres": 3,
    "num_workers": 0,
    "seed": 0,
    "threads": 1,
    "augmentation": AUGMENTATION,
    "device": "cpu",
    "amp": "no",
}
TRAIN, VALID = 18, 6  # posters; the last training batch is incomplete
# each poster is one colour above another
COLOURS = np.random.default_rng(0).integers(0, 256, (TRAIN + VALID, 2, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "A folder of work: drawn posters, their upper colour as genres, random weights."
    import timm

    folder = tmp_path_factory.mktemp("work")
    (folder / "work.json").write_text(json.dumps(SETTINGS))
    paths = []
    for number, colours in enumerate(COLOURS):
        paths.append(str(folder / f"{number}.png"))
        Image.fromarray(colours[:, None].repeat(70, axis=0).repeat(90, axis=1)).save(paths[-1])
    for part, chosen in (("train", slice(0, TRAIN)), ("valid", slice(TRAIN, None))):
        (folder / f"{part}.json").write_text(json.dumps(paths[chosen]))
        np.save(folder / f"{part}_targets.npy", (COLOURS[chosen, 0] > 127).astype(np.float32))
    (folder / "folder.json").write_text(json.dumps(paths))
    torch.manual_seed(7)
    state = timm.create_model(SETTINGS["model_name"]).state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    torch.save(kept, folder / "backbone.pth")
    return folder


@pytest.fixture
def work(folder):
    return read_work(folder)


def call(*arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess:
    "One job of a competitor, as the benchmark runs it."
    return subprocess.run(
        [python, "-m", "bench.competitors.run", *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def check(competitor: str, job: str, folder: Path, place: Path, python: str = sys.executable) -> None:
    "Run a job and check what it wrote."
    finished = call(competitor, job, folder, place / "result.json", python=python)
    assert finished.returncode == 0, finished.stderr
    result = json.loads((place / "result.json").read_text())
    assert (result["contender"], result["job"], result["threads"], result["num_workers"]) == (competitor, job, 1, 0)
    assert {"python", "torch", "timm"} <= set(result["versions"])
    assert result["posters_per_second"] > 0 and 0 < result["seconds"] <= result["total_seconds"]
    full = TRAIN // 8 * 8 if competitor in ("timm", "fastai") else TRAIN  # these leave an incomplete batch out
    if job == "predict":
        assert result["epoch_posters"] == [TRAIN + VALID] and result["start_seconds"] is None
    else:
        assert result["epoch_posters"] == [full, full] and len(result["epoch_seconds"]) == 2
        assert 0 < result["start_seconds"] < result["seconds"]
    if job == "finetune":
        assert result["scores"] is None and result["backbone_changed"] > 20
        assert np.isclose(result["posters_per_second"], full / result["epoch_seconds"][1])
        return
    assert result["scores"] == {"head": "valid_scores.npy", "predict": "scores.npy"}[job]
    scores = np.load(place / result["scores"])
    assert scores.shape == (VALID if job == "head" else TRAIN + VALID, SETTINGS["n_genres"])
    assert scores.dtype == np.float32 and np.isfinite(scores).all() and 0 <= scores.min() < scores.max() <= 1
    if job == "predict" or competitor != "fastai":  # fastai goes on training the frozen backbone's batch-norm
        assert result["backbone_changed"] == 0


@pytest.mark.parametrize("job", ["head", "finetune", "predict"])
@pytest.mark.parametrize("competitor", HERE)
def test_a_competitor_does_the_job(competitor, job, folder, tmp_path):
    check(competitor, job, folder, tmp_path)


@pytest.mark.parametrize("job", ["head", "finetune", "predict"])
@pytest.mark.parametrize("competitor", ELSEWHERE)
def test_a_competitor_of_the_other_environment_does_the_job(competitor, job, folder, tmp_path):
    python = os.environ.get("PEERS_PYTHON")
    if not python:
        pytest.skip(f"PEERS_PYTHON names no Python that has {competitor}; see bench/peers.txt")
    check(competitor, job, folder, tmp_path, python)


def test_the_clock_starts_before_a_framework_is_imported():
    code = "import bench.competitors.run, sys; print({'torch', 'timm', 'PIL', 'postergenre'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert finished.stdout.strip() == "set()", finished.stderr


def test_competitors_import_nothing_of_this_project():
    files = sorted((ROOT / "bench" / "competitors").glob("*.py"))
    assert len(files) >= 8
    for file in files:
        nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
        named = [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
        named += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        for name in named:
            assert not name.startswith("postergenre"), file.name
            assert not name.startswith("bench") or name.startswith("bench.competitors"), file.name


def test_what_cannot_be_done_is_reported_in_one_line(folder, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "work.json").write_text(json.dumps({**SETTINGS, "amp": "half"}))
    other = next((name for name in ELSEWHERE if importlib.util.find_spec(name) is None), None)
    for arguments, words in (
        (["torch", "head"], "Usage"),
        (["keras", "head", folder], "'keras' is not a competitor; allowed: fastai, torch, timm, lightning."),
        (["torch", "heads", folder], "'heads' is not a job; allowed: head, finetune, tune, predict."),
        (["torch", "tune", folder], "tune is fastai's own recipe, which torch does not have."),
        (["torch", "head", tmp_path], "work.json does not exist"),
        (["timm", "head", broken], "amp 'half'"),
        *([([other, "head", folder], f"{other} needs {other}, which this Python lacks")] if other else []),
    ):
        finished = call(*arguments, *([tmp_path / "result.json"] if len(arguments) == 3 else []))
        assert finished.returncode != 0 and not (tmp_path / "result.json").exists()
        assert words in finished.stderr and finished.stderr.count("\n") == 1 and not finished.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "lacks model_name, img_size"),
        ("{", "is not JSON"),
        (json.dumps({**SETTINGS, "device": "tpu"}), "allowed: cpu or cuda"),
        (json.dumps({**SETTINGS, "amp": "bf16"}), "on cuda only"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(content, words, tmp_path):
    (tmp_path / "work.json").write_text(content)
    with pytest.raises(WorkError, match=words):
        read_work(tmp_path)


def test_posters_that_do_not_match_their_targets_are_refused(work, tmp_path):
    check_posters(work, ("train", "valid", "folder"))
    for changed, part, words in (
        (replace(work, folder=tmp_path), "train", "train.json does not exist"),
        (replace(work, n_genres=4), "valid", "they must match"),
        (replace(work, batch_size=TRAIN + 1), "train", "do not fill a batch"),
    ):
        with pytest.raises(WorkError, match=words):
            check_posters(changed, (part,))


def test_weights_that_do_not_fit_are_refused(work, tmp_path):
    for changed, words in (
        (replace(work, folder=tmp_path), "backbone.pth does not exist"),
        (replace(work, model_name="resnet18"), "backbone.pth does not fit resnet18"),
        (replace(work, model_name="efficient"), "does not know"),
    ):
        with pytest.raises(WorkError, match=words):
            network.create_model(changed)


def test_a_changed_weight_of_the_backbone_is_found(work):
    model, classifier = network.create_model(work)
    assert classifier.out_features == 3 and network.changed_weights(work, model) == []
    with torch.no_grad():
        model.conv_stem.weight[0] += 1
    assert network.changed_weights(work, model) == ["conv_stem.weight"]


def rates(total_steps: int) -> list[float]:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, **one_cycle(1e-2, total_steps))
    seen = []
    for _ in range(total_steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def fastai_rate(at: float) -> float:
    "As in fastai's `combined_cos`: `at` is the share of the run that is over."
    rise = ONE_CYCLE["pct_start"]
    low, high = (1e-2 / ONE_CYCLE["div"], 1e-2) if at < rise else (1e-2, 1e-2 / ONE_CYCLE["div_final"])
    fraction = at / rise if at < rise else (at - rise) / (1 - rise)
    return low + (1 + math.cos(math.pi * (1 - fraction))) * (high - low) / 2


def test_torch_follows_the_one_cycle_curve_of_fastai():
    curve = rates(400)
    # they differ by where within a step a rate is read
    assert np.allclose(curve, [fastai_rate(step / 400) for step in range(400)], atol=1.5e-4)
    assert math.isclose(curve[0], 1e-2 / 25) and math.isclose(curve[-1], 1e-7) and max(curve) == curve[99] == 1e-2
    assert all(len(rates(steps)) == steps for steps in range(2, 12))


def test_the_clock_counts_epochs_by_the_rule_of_each_job():
    clock = Clock()
    clock.started, clock.first_step, clock.began, clock.ends, clock.posters = 0.0, 6.0, 5.0, [9.0, 11.0], [40, 36, 0]
    head, tuned, predicted = (clock.results(job) for job in ("head", "finetune", "predict"))
    assert head["epoch_seconds"] == [4.0, 2.0] and head["seconds"] == 11.0 and head["start_seconds"] == 6.0
    assert math.isclose(head["posters_per_second"], 76 / 6) and tuned["posters_per_second"] == 18.0
    assert (predicted["seconds"], predicted["total_seconds"], predicted["start_seconds"]) == (6.0, 11.0, None)


def test_the_given_number_of_workers_is_used_and_otherwise_the_usual_one(work):
    assert worker_count(replace(work, num_workers=3), "timm") == 3
    usual = {name: worker_count(replace(work, num_workers=None), name) for name in (*HERE, *ELSEWHERE)}
    assert usual["timm"] == min(4, usual["torch"]) and 1 <= usual["lightning"] <= usual["fastai"] + 1


@pytest.mark.parametrize("load", [torch_loop.create_loader, timm_loader.poster_loader])
def test_images_are_normalised_as_given_and_in_order(load, work):
    mean, std = (torch.tensor(value).view(3, 1, 1) for value in (work.mean, work.std))
    for part, colours in (("folder", COLOURS[:8]), ("valid", COLOURS[TRAIN:])):
        images, _ = next(iter(load(work, part)))
        assert images.shape == (len(colours), 3, 64, 48) and images.dtype == torch.float32
        shown = images * std + mean
        assert np.allclose(shown[:, :, 5, 5], colours[:, 0] / 255, atol=5e-3)
        assert np.allclose(shown[:, :, -5, 5], colours[:, 1] / 255, atol=5e-3)
    images, _ = next(iter(load(work, "train")))
    assert images.shape == (8, 3, 64, 48)


def test_networks_that_start_from_one_seed_score_alike(work):
    with_torch, with_timm = (script.predict(work, Clock())[1] for script in (torch_loop, timm_loader))
    # the loaders differ by how a byte is resized
    assert with_torch.shape == (TRAIN + VALID, 3) and np.abs(with_torch - with_timm).max() < 2e-3 < np.ptp(with_torch)


def test_fine_tuning_changes_weights_and_batch_norm(work):
    model, scores = torch_loop.fit(work, plan_for("finetune", work), Clock())
    assert scores is None
    assert {"conv_stem.weight", "bn1.running_mean"} <= set(network.changed_weights(work, model))


def test_fastai_fine_tunes_by_its_own_recipe(folder, tmp_path):
    if not (python := os.environ.get("PEERS_PYTHON")):
        pytest.skip("PEERS_PYTHON names no Python that has fastai; see bench/peers.txt")
    finished = call("fastai", "tune", folder, tmp_path / "result.json", python=python)
    assert finished.returncode == 0, finished.stderr
    result, scores = json.loads((tmp_path / "result.json").read_text()), np.load(tmp_path / "valid_scores.npy")
    assert scores.shape == (5, VALID, SETTINGS["n_genres"]) and 0 < scores.min() < scores.max() < 1
    assert len(result["epoch_seconds"]) == 5 and result["epoch_posters"] == [TRAIN // 8 * 8] * 5
    assert result["backbone_changed"] > 20 and not np.allclose(scores[0], scores[4])
