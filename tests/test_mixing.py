"""Mixed posters, smaller inputs, and losses for missing genres: what the network sees, and bits after a kill."""

import signal
from unittest.mock import patch

import pandas as pd
import pytest
import torch
from conftest import SMALL
from dying import train, train_and_die

from postergenre.config import make_params
from postergenre.errors import ConfigError
from postergenre.train import setup
from postergenre.train.callbacks import Freeze
from postergenre.train.checkpoints import load_plain
from postergenre.train.finder import find_lr
from postergenre.train.loop import fit
from postergenre.train.losses import SPLCLoss
from postergenre.train.runs import release
from postergenre.train.setup import prepare

STEPS = SMALL["num_iteration_on_epoch"]
SIZES = {1: [32, 32], 2: [48, 32]}
PLAIN = {
    **SMALL,
    "n_epochs": 4,
    "model_name": "test_efficientnet",
    "model_kwargs": {"drop_path_rate": 0.2, "drop_rate": 0.1},
    "pretrained": False,
    "mixed_precision": "no",
    "optimizer_kwargs": {"lr": 0.01, "weight_decay": 0.1},
    "ema_decay": 0.9,
    "keep": "all",
}
BOTH = {"mixup": 0.5, "cutmix": 1.0, "probability": 0.7, "last_epochs_off": 1}
CHANGED = {
    "mixing": {"mixing": BOTH, "progressive_size": SIZES, "loss": "asymmetric", "augmentations": "randaugment"},
    "frozen": {
        "mixing": BOTH,
        "progressive_size": SIZES,
        "callbacks": [{"freeze": {"stages": 3, "unfreeze_at": {3: 1}}}, {"checkpoints": {"top_k": 9}}],
    },
    "splc": {"loss": "splc", "loss_kwargs": {"genre_limit": 3, "tau": 0.1, "correct_from": 3}},
}


pytestmark = pytest.mark.usefixtures("own_runs")


def recipe(name: str, **changed) -> dict:
    return {**PLAIN, "experiment_name": name, **changed}


@pytest.mark.parametrize("kind", CHANGED)
def test_a_killed_run_ends_with_the_same_weights(kind, exit_code):
    changed = CHANGED[kind]
    peaceful = train(recipe(f"{kind}_peaceful", **changed))
    # in the third epoch, in which the input grows, stages are unfrozen, and SPLC starts to correct
    assert exit_code(train_and_die, recipe(kind, **changed), 2 * STEPS + 1) == -signal.SIGKILL
    killed = train(recipe(kind, **changed))
    one, other = (load_plain(run.folder / "state.pth") for run in (killed, peaceful))
    for part in ("model", "ema"):
        assert not [key for key in one[part] if not torch.equal(one[part][key], other[part][key])]
    histories = [pd.DataFrame(state["history"]).drop(columns="seconds") for state in (one, other)]
    pd.testing.assert_frame_equal(*histories)


def seen_by_the_network(name: str, **changed) -> list[tuple[int, bool, torch.Tensor]]:
    "Train a run; return epoch, whether it was a step of the training, and images, for each call of the network."
    run = prepare(make_params(recipe(name, **changed)))
    calls = []
    for model in (run.model, run.ema.module):
        model.register_forward_pre_hook(
            lambda model, given: calls.append((run.epoch, model.training, given[0].clone()))
        )
    fit(run)
    release(run.lock)
    return calls


def test_training_sees_the_planned_sizes_and_validation_only_posters_as_they_are():
    changed, plain = (
        seen_by_the_network("seen_changed", mixing=BOTH, progressive_size=SIZES),
        seen_by_the_network("seen_plain"),
    )
    sizes = [tuple(images.shape[-2:]) for _, training, images in changed if training]
    assert sizes == [(32, 32)] * STEPS + [(48, 32)] * STEPS + [(64, 48)] * 2 * STEPS
    validated = [[images for _, training, images in calls if not training] for calls in (changed, plain)]
    assert len(validated[0]) >= 4 and all(torch.equal(one, other) for one, other in zip(*validated, strict=True))
    trained = [[(epoch, images) for epoch, training, images in calls if training] for calls in (changed, plain)]
    pairs = [(epoch, one, other) for (epoch, one), (_, other) in zip(*trained, strict=True) if epoch >= 2]
    same = [torch.equal(one, other) for epoch, one, other in pairs]
    assert False in same[:STEPS] and same[STEPS:] == [True] * STEPS  # the last epoch sees posters as they are


def test_each_epoch_trains_with_its_loss_and_validates_with_the_same_one():
    late = {"genre_limit": 3, "tau": 0.1, "correct_from": 3}
    runs = {
        name: train(recipe(f"loss_{name}", loss="splc", loss_kwargs=kwargs))
        for name, kwargs in {"late": late, "never": {**late, "correct_from": 9}}.items()
    }
    corrected, plain = (pd.DataFrame(run.history)[["train_loss", "valid_loss"]] for run in runs.values())
    assert corrected[:2].equals(plain[:2]) and (corrected != plain)[2:].all(axis=None)
    last = runs["late"].validation
    by_hand = SPLCLoss(3)(torch.logit(torch.from_numpy(last.scores).double()), torch.from_numpy(last.targets))
    assert corrected["valid_loss"].iloc[-1] == pytest.approx(by_hand.item(), rel=1e-4)


def test_the_range_test_changes_batches_too():
    values = {**PLAIN, "lrf_iterations": 12}
    kinds = {"plain": {}, "mixed": {"mixing": {"mixup": 1.0}}, "small": {"progressive_size": SIZES}}
    last = {
        name: find_lr(make_params({**values, "experiment_name": f"lrf_{name}", **changed})).table["loss"].iloc[-1]
        for name, changed in kinds.items()
    }
    assert len(set(last.values())) == 3


HEAD = {"callbacks": ["freeze"]}
REFUSED = {
    "features": ({**HEAD, "mixing": BOTH}, ["`mixing`: not possible on stored features", "feature_views: 0"]),
    "sizes of features": ({**HEAD, "progressive_size": SIZES}, ["`progressive_size`: not possible on stored features"]),
    "fixed network": (
        {"progressive_size": SIZES, "model_name": "vit_tiny_patch16_224"},
        ["vit_tiny_patch16_224, created for [64, 48], does not take posters of [32, 32]", "dynamic_img_size"],
    ),
    "genre limit": (
        {"loss": "hill", "loss_kwargs": {"genre_limit": 2}},
        ["genre_limit is 2, but 32 of 119 training posters have more than 2", "Give `genre_limit: 3`"],
    ),
    "hard targets": ({"loss": "ignore", "mixing": BOTH}, ["the loss ignore needs targets of 0 and 1"]),
    "misspelt": ({"mixing": {"mixupp": 1}}, ["`mixing`: Mixing has no argument `mixupp`", "Did you mean `mixup`?"]),
    "no epoch left": ({"progressive_size": {4: [32, 32]}}, ["`progressive_size`: given {4: [32, 32]}", "from 1 to 3"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_before_training(case, runs):
    values, words = REFUSED[case]
    with pytest.raises(ConfigError) as caught:
        prepare(make_params(recipe("unfit", **values)))
    assert all(word in str(caught.value) for word in words), caught.value
    assert not (runs / "unfit").exists()


def test_a_typo_in_a_begun_run_is_not_reported_as_a_conflict(runs):
    train(recipe("begun", n_epochs=1))
    with pytest.raises(ConfigError, match="Did you mean `mixup`?"):
        prepare(make_params(recipe("begun", mixing={"mixupp": 1})))


def test_pictures_or_a_network_of_any_size_are_the_way_out(runs):
    head = {**HEAD, "mixing": BOTH, "progressive_size": SIZES, "feature_views": 0}
    assert train(recipe("on_pictures", **head)).feature_cache is None
    dynamic = {"model_name": "test_vit", "model_kwargs": {"dynamic_img_size": True}, "progressive_size": SIZES}
    assert train(recipe("dynamic", **dynamic)).epoch == 4


def test_the_precision_is_one_that_suits_the_smallest_input():
    seen = []
    values = {**PLAIN, "progressive_size": {1: [64, 32], 2: [48, 48]}}
    with patch.object(setup, "best_precision", lambda wanted, size: seen.append(size) or "no"):
        setup.create_accelerator(make_params(values))
    assert seen == [[64, 32]]


def test_epochs_are_numbers_also_through_papermill():
    "Papermill makes the names of a mapping text."
    values = {"progressive_size": {"1": [32, 32]}, "callbacks": [{"freeze": {"stages": 3, "unfreeze_at": {"2": 0}}}]}
    params = make_params(values)
    assert params.progressive_size == {1: [32, 32]}
    assert params.callbacks[0]["freeze"]["unfreeze_at"] == {2: 0}
    Freeze(**params.callbacks[0]["freeze"])
