"""Staged fine-tuning: frozen stages stay still, learn when they should, and a killed run ends with the same bits."""

import json
import signal

import pandas as pd
import pytest
import torch
from conftest import SMALL
from dying import train, train_and_die

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.model.inference import CompiledNetwork
from postergenre.train.averaging import average_run
from postergenre.train.callbacks import Run
from postergenre.train.checkpoints import load_plain
from postergenre.train.loop import fit
from postergenre.train.runs import release
from postergenre.train.setup import prepare
from postergenre.train.training import train_run

STEPS = SMALL["num_iteration_on_epoch"]
STAGED = {
    **SMALL,
    "n_epochs": 5,
    "model_name": "test_efficientnet",
    "model_kwargs": {"drop_path_rate": 0.2, "drop_rate": 0.1},
    "pretrained": False,
    "optimizer_kwargs": {"lr": 0.01, "weight_decay": 0.1},
    "backbone_lr_factor": 0.5,
    "layer_decay": 0.8,
    "scheduler": "one_cycle",
    "scheduler_kwargs": {"max_lr": 0.02},
    "gradient_clip": 1.0,
    "ema_decay": 0.9,
    "keep": "all",
    "callbacks": [{"freeze": {"stages": 3, "unfreeze_at": {3: 1, 5: 0}}}, {"checkpoints": {"top_k": 9}}],
}
STEM, FIRST, THIRD, LAST = "backbone.conv_stem", "backbone.blocks.0.", "backbone.blocks.2.", "backbone.blocks.4."


pytestmark = pytest.mark.usefixtures("own_runs")


def staged(name: str, **changed) -> dict:
    return {**STAGED, "experiment_name": name, **changed}


@pytest.fixture(scope="module")
def peaceful(runs) -> Run:
    with pytest.MonkeyPatch.context() as patching:
        patching.setenv("RUNS_PATH", str(runs))
        patching.delenv("ROOT_PATH", raising=False)
        return train(staged("staged"))


def epoch_states(run: Run) -> list[dict[str, torch.Tensor]]:
    "The averaged weights after each epoch; they move exactly when the weights do."
    return [load_plain(path)["model"] for path in sorted((run.folder / "checkpoints").glob("*.pth"))]


def moved(states: list[dict[str, torch.Tensor]], part: str) -> list[bool]:
    "Whether anything of a part changed from each epoch to the next, statistics included."
    names = [name for name in states[0] if name.startswith(part)]
    pairs = zip(states, states[1:], strict=False)
    return [any(not torch.equal(before[name], after[name]) for name in names) for before, after in pairs]


def test_each_stage_moves_from_its_epoch_on_and_not_before(peaceful):
    states = epoch_states(peaceful)
    assert moved(states, LAST) == [True, True, True, True]
    assert moved(states, THIRD) == [False, True, True, True]
    assert moved(states, FIRST) == moved(states, STEM) == [False, False, False, True]


def test_the_average_keeps_what_a_checkpoint_knows_and_forgets_a_random_start(peaceful):
    moved_by = {}
    for name, checkpoint in (("from_run", "staged/model.best.pth"), ("from_random", None)):
        changed = {"n_epochs": 1, "num_iteration_on_epoch": 1, "ema_decay": 0.98, "callbacks": []}
        run = prepare(make_params(staged(name, checkpoint_name=checkpoint, **changed)))
        start = torch.cat([value.detach().flatten().clone() for value in run.model.parameters()])
        fit(run)
        release(run.lock)
        ends = [torch.cat([value.flatten() for value in model.parameters()]) for model in (run.ema.module, run.model)]
        averaged, last = ((end - start).norm() for end in ends)
        moved_by[name] = (averaged / last).item()
    assert moved_by == pytest.approx({"from_run": 0.02, "from_random": 1.0}, rel=1e-3)


def test_the_average_forgets_the_random_row_of_a_new_genre():
    train(staged("fewer", n_epochs=1, callbacks=[], drop_genres=["Drama"]))
    for name, checkpoint, complete in (("more", "fewer", False), ("same", "more", True)):
        changed = {"n_epochs": 1, "callbacks": [], "checkpoint_name": f"{checkpoint}/model.best.pth"}
        run = train(staged(name, allow_other_split=True, **changed))
        assert run.start["complete"] is complete and run.ema.use_warmup is not complete


def test_the_optimizer_counts_the_steps_of_what_learns_later(peaceful):
    names = {id(value): name for name, value in peaceful.model.named_parameters()}
    optimizer = peaceful.optimizer.optimizer
    steps = {names[id(value)]: int(state["step"]) for value, state in optimizer.state.items()}
    assert {steps[name] for name in steps if name.startswith(("head", LAST))} == {5 * STEPS}
    assert {steps[name] for name in steps if name.startswith(THIRD)} == {3 * STEPS}
    assert {steps[name] for name in steps if name.startswith((FIRST, STEM))} == {STEPS}
    assert len(steps) == len(names)
    still = train(staged("still", callbacks=[{"freeze": {"stages": 3}}], n_epochs=1))
    held = {id(value) for group in still.optimizer.param_groups for value in group["params"]}
    assert held == {id(value) for value in still.model.parameters() if value.requires_grad}


def test_the_groups_keep_their_ratio_to_the_schedule(peaceful):
    groups = peaceful.optimizer.param_groups
    rate = peaceful.schedule.lr(peaceful.step - 1)
    scales = {group["name"].split(",")[0]: group["lr"] / rate for group in groups}
    layers = [f"backbone layer {number}" for number in range(6)]
    assert scales == pytest.approx({"head": 1.0, **{layer: 0.5 * 0.8 ** (6 - n) for n, layer in enumerate(layers)}})


@pytest.mark.parametrize("lives", [(6,), (9,), (14, 5)], ids=["before", "in the epoch of", "between two and after"])
def test_a_run_killed_around_an_unfreezing_ends_with_the_same_weights(peaceful, lives, exit_code):
    name = f"killed_{'_'.join(map(str, lives))}"
    for steps in lives:
        assert exit_code(train_and_die, staged(name), steps) == -signal.SIGKILL
    killed = train(staged(name))
    assert killed.epoch == 5 and killed.model.frozen == {}
    pairs = (killed.folder / "state.pth", peaceful.folder / "state.pth")
    one, other = (load_plain(path) for path in pairs)
    for part in ("model", "ema"):
        assert not [key for key in one[part] if not torch.equal(one[part][key], other[part][key])]
    assert one["optimizer"]["state"].keys() == other["optimizer"]["state"].keys()
    for key, values in one["optimizer"]["state"].items():
        assert all(torch.equal(values[what], other["optimizer"]["state"][key][what]) for what in values)
    histories = [pd.DataFrame(state["history"]).drop(columns="seconds") for state in (one, other)]
    pd.testing.assert_frame_equal(*histories)
    assert [load_plain(path)["meta"]["frozen"] for path in sorted((killed.folder / "checkpoints").glob("*"))] == [
        load_plain(path)["meta"]["frozen"] for path in sorted((peaceful.folder / "checkpoints").glob("*"))
    ]


def test_features_are_stored_only_if_the_backbone_never_learns(runs):
    plans = {"forever": {"stages": 5}, "at_first": {"stages": 5, "unfreeze_at": {2: 4}}}
    stored = {}
    for name, plan in plans.items():
        run = train(staged(name, callbacks=[{"freeze": plan}], n_epochs=2, layer_decay=None))
        stored[name] = run.feature_cache is not None
    assert stored == {"forever": True, "at_first": False}


def test_an_average_over_an_unfreezing_estimates_what_learnt_in_any_epoch(runs):
    values = staged("averaged", n_epochs=3, keep="averaging", ema_decay=None)
    train_run(make_params(values))
    found = average_run(make_params({**values, "swa_bn_batches": 2}))
    meta = load_plain(runs / "averaged" / "model.swa.pth")["meta"]
    assert meta["frozen"] == ["backbone.conv_stem", "backbone.bn1", "backbone.blocks.0"]
    assert json.loads((runs / "averaged" / "swa.json").read_text())["batch_norms_estimated"] > 0
    first = load_plain(runs / "averaged" / "checkpoints" / "epoch_0001.pth")["model"]
    average = load_plain(runs / "averaged" / "model.swa.pth")["model"]
    same = {name: torch.equal(first[name], average[name]) for name in first if name.endswith("running_mean")}
    assert all(same[name] == name.startswith(("backbone.bn1", FIRST)) for name in same), (same, found)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"callbacks": [{"freeze": {"stages": 99}}]}, ["stages of freeze is 99", "1 to 5", "2: backbone.blocks.1"]),
        ({"callbacks": [{"freeze": {"stages": 2, "unfreeze_at": {3: 4}}}]}, ["unfreeze_at of freeze is {3: 4}"]),
    ],
)
def test_stages_that_do_not_exist_are_refused_before_training(values, words, runs):
    with pytest.raises(ConfigError) as caught:
        prepare(make_params(staged("bad", **values)))
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (runs / "bad").exists()


def test_a_run_with_frozen_stages_is_trained_through_the_runtime_and_another_one_as_a_whole(peaceful):
    frozen = train(staged("apart", callbacks=[{"freeze": {"stages": 3}}], n_epochs=2))
    assert any(isinstance(start, CompiledNetwork) for start in frozen.network.starts.values())
    assert peaceful.network.parts == [] and not peaceful.network.starts  # nothing is frozen in its last epoch
    stored = train(staged("head_alone", callbacks=["freeze"], n_epochs=1, layer_decay=None))
    assert stored.network is stored.model.head
