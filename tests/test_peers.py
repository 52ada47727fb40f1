"""The benchmark's contenders as it runs them: a process each, by path, on a small prepared folder."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

MODULE = ROOT / "postergenre" / "peers.py"
ALONE = ("torch", "timm")  # run with this Python
ELSEWHERE = ("fastai", "lightning")  # need the environment of nbs/peers.txt
SETTINGS = {
    "model_name": "test_efficientnet",
    "img_size": [64, 48],
    "batch_size": 8,
    "n_epochs": 2,
    "max_lr_head": 1e-2,
    "max_lr_full": 1e-3,
    "weight_decay": 0.01,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "n_genres": 4,
    "num_workers": 0,
    "seed": 0,
    "threads": 1,
    "augmentation": {
        "flip": 0.5,
        "scale": [0.7, 1.0],
        "brightness": 0.1,
        "contrast": 0.1,
        "saturation": 0.1,
        "hue": 0.02,
        "jitter_p": 0.5,
    },
    "device": "cpu",
    "amp": "no",
}
TRAIN, VALID = 18, 6  # posters; the last training batch is short


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    "A folder of work: drawn posters, random targets, random weights."
    import timm
    import torch
    from PIL import Image

    folder = tmp_path_factory.mktemp("work")
    (folder / "work.json").write_text(json.dumps(SETTINGS))
    generator = np.random.default_rng(0)
    paths = []
    for number in range(TRAIN + VALID):
        paths.append(str(folder / f"{number}.jpg"))
        coarse = Image.fromarray(generator.integers(0, 256, (6, 4, 3), dtype=np.uint8))
        coarse.resize((100, 148), Image.Resampling.BILINEAR).save(paths[-1])
    for part, chosen in (("train", slice(0, TRAIN)), ("valid", slice(TRAIN, None))):
        (folder / f"{part}.json").write_text(json.dumps(paths[chosen]))
        targets = generator.random((len(paths[chosen]), SETTINGS["n_genres"])) < 0.4
        np.save(folder / f"{part}_targets.npy", targets.astype(np.float32))
    (folder / "folder.json").write_text(json.dumps(paths))
    torch.manual_seed(0)
    state = timm.create_model(SETTINGS["model_name"]).state_dict()
    kept = {name: value for name, value in state.items() if not name.startswith("classifier.")}
    torch.save(kept, folder / "backbone.pth")
    return folder


@pytest.fixture(scope="module")
def peers():
    "The module, imported from its file."
    spec = importlib.util.spec_from_file_location("peers_alone", MODULE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def call(*arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess:
    "The module as the benchmark runs it: nothing of the project can be imported."
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [python, str(MODULE), *map(str, arguments)],
        env={**environment, "OMP_NUM_THREADS": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
    )


def check(contender: str, job: str, work: Path, folder: Path, python: str = sys.executable) -> dict:
    "Runs a job and checks what it left."
    finished = call(contender, job, work, folder / "result.json", python=python)
    assert finished.returncode == 0, finished.stderr
    result = json.loads((folder / "result.json").read_text())
    assert (result["contender"], result["job"], result["threads"], result["num_workers"]) == (contender, job, 1, 0)
    assert {"python", "torch", "timm"} <= set(result["versions"])
    assert result["posters_per_second"] > 0 and 0 < result["seconds"] <= result["total_seconds"]
    full = TRAIN // 8 * 8 if contender in ("timm", "fastai") else TRAIN  # these leave a short batch out
    if job == "predict":
        assert result["epoch_posters"] == [TRAIN + VALID] and result["start_seconds"] is None
    else:
        assert result["epoch_posters"] == [full, full] and len(result["epoch_seconds"]) == 2
        assert 0 < result["start_seconds"] < result["seconds"]
    if job == "finetune":
        assert result["scores"] is None and result["backbone_changed"] > 20
        assert np.isclose(result["posters_per_second"], full / result["epoch_seconds"][1])
        return result
    assert result["scores"] == {"head": "valid_scores.npy", "predict": "scores.npy"}[job]
    scores = np.load(folder / result["scores"])
    assert scores.shape == (VALID if job == "head" else TRAIN + VALID, SETTINGS["n_genres"])
    assert scores.dtype == np.float32 and np.isfinite(scores).all() and 0 <= scores.min() < scores.max() <= 1
    if job == "predict" or contender != "fastai":  # fastai goes on training the frozen backbone's batch-norm
        assert result["backbone_changed"] == 0
    return result


@pytest.mark.parametrize("job", ["head", "finetune", "predict"])
@pytest.mark.parametrize("contender", ALONE)
def test_a_contender_does_the_job_alone(contender, job, work, tmp_path):
    check(contender, job, work, tmp_path)


@pytest.mark.parametrize("job", ["head", "finetune", "predict"])
@pytest.mark.parametrize("contender", ELSEWHERE)
def test_a_contender_of_the_other_environment_does_the_job(contender, job, work, tmp_path):
    python = os.environ.get("PEERS_PYTHON")
    if not python:
        pytest.skip(f"PEERS_PYTHON names no Python that has {contender}; see nbs/peers.txt")
    check(contender, job, work, tmp_path, python)


def test_it_can_be_imported_without_torch():
    code = f"import runpy, sys; runpy.run_path({str(MODULE)!r}); print('torch' in sys.modules, 'PIL' in sys.modules)"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert finished.stdout.strip() == "False False", finished.stderr


def test_what_cannot_be_done_is_told_in_a_sentence(peers, work, tmp_path):
    lacking = tmp_path / "lacking"
    lacking.mkdir()
    (lacking / "work.json").write_text(json.dumps({**SETTINGS, "seed": None, "amp": "half"}))
    other = next((name for name in ELSEWHERE if importlib.util.find_spec(name) is None), None)
    for arguments, word in (
        (["torch", "head"], "Usage"),
        (["keras", "head", work], "'keras' is no contender; allowed: fastai, torch, timm, lightning."),
        (["torch", "heads", work], "'heads' is no job; allowed: head, finetune, predict."),
        (["torch", "head", tmp_path], "work.json does not exist"),
        (["timm", "head", lacking], "amp 'half'"),
        *([([other, "head", work], f"{other} needs {other}, which this Python lacks")] if other else []),
    ):
        finished = call(*arguments, *([tmp_path / "result.json"] if len(arguments) == 3 else []))
        assert finished.returncode != 0 and not (tmp_path / "result.json").exists()
        assert word in finished.stderr and finished.stderr.count("\n") == 1 and not finished.stdout


def test_broken_work_is_refused_before_it_starts(peers, work, tmp_path):
    read = peers.read_work(work)
    (tmp_path / "work.json").write_text(json.dumps(SETTINGS))
    with pytest.raises(peers.WorkError, match="train.json does not exist"):
        peers.check_posters(peers.read_work(tmp_path), ("train",))
    (tmp_path / "train.json").write_text(json.dumps(read.paths("train")))
    np.save(tmp_path / "train_targets.npy", np.zeros((TRAIN - 1, 4), dtype=np.float32))
    with pytest.raises(peers.WorkError, match="they must agree"):
        peers.check_posters(peers.read_work(tmp_path), ("train",))
    with pytest.raises(peers.WorkError, match="backbone.pth does not exist"):
        peers.create_model(peers.read_work(tmp_path))
