"""Large steps on little memory: several batches make one step, and activations are computed again."""

import pytest
import torch
from conftest import SMALL
from test_processes import ALIKE

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.train.finder import find_lr
from postergenre.train.loop import add_gradients, batches_of_steps, fit
from postergenre.train.runs import release
from postergenre.train.setup import prepare

ALIKE = {**ALIKE, "scheduler": "one_cycle", "scheduler_kwargs": {"max_lr": 0.2}, "gradient_clip": 0.05}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "A runs folder of their own: the pages that others test show the runs of the shared one."
    return tmp_path_factory.mktemp("accumulate")


@pytest.fixture(autouse=True)
def own_runs(place, monkeypatch):
    "That folder, and demo posters."
    monkeypatch.setenv("RUNS_PATH", str(place))
    monkeypatch.delenv("ROOT_PATH", raising=False)


def begun(name: str, **values):
    "A run that is prepared, and no longer locked."
    run = prepare(make_params({**ALIKE, "experiment_name": name, "overwrite": True, **values}))
    release(run.lock)
    run.lock = None
    return run


@pytest.mark.parametrize("clip", [0.05, None])  # clipping at a low norm would hide gradients that are too large
def test_two_small_batches_make_the_step_of_a_large_one(clip):
    changed = {"gradient_clip": clip}
    small, large = (
        begun("accumulated", accumulate=2, batch_size=8, **changed),
        begun("at_once", batch_size=16, **changed),
    )
    for run in (small, large):
        fit(run)
    assert small.step == large.step == 2 * ALIKE["num_iteration_on_epoch"]
    assert small.schedule.total_steps == large.schedule.total_steps
    assert small.sampler.draw == large.sampler.draw == 16 * large.step
    for part in ("model", "evaluated"):
        pairs = zip(getattr(small, part).state_dict().items(), getattr(large, part).state_dict().values(), strict=True)
        assert not [name for (name, one), other in pairs if (one.double() - other.double()).abs().max() > 1e-6], part
    moved = begun("at_once_again", batch_size=16).model.state_dict()
    assert (moved["head.linear.weight"] - large.model.state_dict()["head.linear.weight"]).abs().max() > 1e-3


def test_a_range_test_accumulates_as_training_does():
    values = {**ALIKE, "lrf_iterations": 14}
    small = find_lr(make_params({**values, "experiment_name": "lrf_small", "accumulate": 2, "batch_size": 8}))
    large = find_lr(make_params({**values, "experiment_name": "lrf_large", "batch_size": 16}))
    assert small.table["loss"].tolist() == pytest.approx(large.table["loss"].tolist(), rel=1e-5)


def test_a_step_holds_each_poster_once_and_says_so_if_it_cannot():
    run = begun("once", accumulate=4, batch_size=8, num_iteration_on_epoch=None)
    assert run.schedule.steps_per_epoch == 107 // 32
    for batches in batches_of_steps(run):
        indices = [index for _, _, batch in batches for index in batch.tolist()]
        assert len(batches) == 4 and len(set(indices)) == len(indices) == 32
    with pytest.raises(ConfigError, match="given 40, 3 times per step; allowed: at most 35"):
        begun("too_many", accumulate=3, batch_size=40)


@pytest.mark.parametrize("network", ["test_convnext", "test_vit"])
def test_activations_that_are_computed_again_give_the_same_gradients_from_less_memory(network):
    kept, gradients = {}, {}
    for again in (False, True):
        values = {**SMALL, "model_name": network, "gradient_checkpointing": again, "mixed_precision": "no"}
        run = begun(f"again_{again}_{network}", **values, model_kwargs={"drop_path_rate": 0.3, "drop_rate": 0.2})
        run.network.train()
        tensors: dict[int, int] = {}

        def count(tensor: torch.Tensor, tensors: dict[int, int] = tensors) -> torch.Tensor:
            tensors[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(0)
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            add_gradients(run, next(batches_of_steps(run)), 0)
        kept[again] = sum(tensors.values())
        gradients[again] = [value.grad for value in run.model.parameters()]
        run.model.eval()
        assert not any(getattr(module, "grad_checkpointing", False) for module in run.model.modules())
    for one, other in zip(*gradients.values(), strict=True):
        torch.testing.assert_close(one, other)
    assert kept[True] < 0.7 * kept[False], kept


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_name": "vgg11", "img_size": [64, 64]}, "timm does not support it for VGG"),
        (
            {"model_name": "test_efficientnet"},
            "EfficientNet has batch norm",
        ),
        ({"mixed_precision": "bf16", "img_size": [64, 64]}, "on a CPU it needs `mixed_precision: no`"),
    ],
)
def test_a_network_that_cannot_compute_its_activations_again_is_told(values, message):
    with pytest.raises(ConfigError, match=f"`gradient_checkpointing`: {message}"):
        begun("refused", gradient_checkpointing=True, **values)


def test_frozen_stages_of_a_network_that_computes_activations_again_run_with_the_rest():
    run = begun("again_frozen", gradient_checkpointing=True, callbacks=[{"freeze": {"stages": 1}}])
    assert run.network is run.model
