"""`model.int8.onnx` of a run, as `predict` and `try_it` read it."""

import numpy as np
import pytest
import torch
from conftest import QUICK

from postergenre.config import make_params
from postergenre.data.experiment import load_run_data
from postergenre.errors import ConfigError
from postergenre.export import job
from postergenre.export.job import export_run, quantize_network
from postergenre.predict.scorer import load_predictor
from postergenre.train.training import train_run

pytest.importorskip("nncf", reason="nncf is not installed (the optional extra int8)")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    "A run of a few steps, exported with int8 whatever that costs."
    values = {**QUICK, "experiment_name": "tiny", "n_demo_posters": 100, "split_fractions": [0.6, 0.4, 0.0]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNS_PATH", str(tmp_path_factory.mktemp("runs")))
        patch.delenv("ROOT_PATH", raising=False)
        patch.setattr(job, "INT8_LIMIT", 1.0)
        seen, quantize = [], quantize_network

        def watch(model, posters):
            seen.extend(str(posters.dataset.paths[row], "utf-8") for row in posters.indices)
            return quantize(model, posters)

        patch.setattr(job, "quantize_network", watch)
        params = make_params(values)
        train_run(params)
        export = export_run(make_params({**values, "export_precision": "int8"}))
        yield export, seen, load_run_data(params)


def test_ranges_are_measured_on_training_posters_alone(run):
    _, seen, data = run
    assert sorted(seen) == sorted(data.train["path"])


def test_the_predictor_reads_it_like_the_exact_file(run):
    folder = run[0].folder
    exact, int8 = (load_predictor(folder / name) for name in ("model.onnx", "model.int8.onnx"))
    assert int8.genres == exact.genres and np.array_equal(int8.thresholds, exact.thresholds)
    generator = torch.Generator().manual_seed(0)
    for size in ((48, 32), (90, 70)):
        images = torch.randint(0, 256, (9, 3, *size), dtype=torch.uint8, generator=generator)
        off = (int8.scores(images) - exact.scores(images)).abs()
        assert 0 < off.max() < 0.1
        assert torch.allclose(int8.scores(images[:1]), int8.scores(images)[:1], atol=1e-5)


def test_a_damaged_file_is_refused(run, tmp_path):
    content = bytearray((run[0].folder / "model.int8.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    damaged = tmp_path / "model.int8.onnx"
    damaged.write_bytes(content)
    with pytest.raises(ConfigError, match=r"model\.int8\.onnx is"):
        load_predictor(damaged)
