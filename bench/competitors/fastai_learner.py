"""fastai: a DataBlock and `vision_learner`, which puts fastai's own head on the backbone.

That head, and training batch-norm in the frozen backbone, are fastai's defaults, so they are kept. Two other defaults
would be wrong here and are replaced: ImageNet's mean and std, and squashed validation posters (`RandomResizedCrop`).
"""

from typing import Any

import numpy as np
from fastai.vision.all import (
    Callback,
    CancelValidException,
    DataBlock,
    ImageBlock,
    IndexSplitter,
    ItemGetter,
    MultiCategoryBlock,
    Normalize,
    RandomResizedCrop,
    Resize,
    aug_transforms,
    default_device,
    vision_learner,
)
from fastai.vision.augment import Hue, Saturation

from bench.competitors.clock import Clock
from bench.competitors.network import load_backbone, set_up
from bench.competitors.work import ONE_CYCLE, Plan, Work, WorkError, worker_count


def create_loaders(work: Work) -> Any:
    "Return fastai's DataLoaders of the training and validation posters; they augment by batch, on the device."
    amount, size = work.augmentation, tuple(work.img_size)
    if amount["brightness"] != amount["contrast"] or amount["flip"] != 0.5:
        raise WorkError("fastai's aug_transforms flips half of the posters, and has one strength of light: set these.")
    p = amount["jitter_p"]
    colours = [Saturation(amount["saturation"], p=p), Hue(amount["hue"], p=p)]
    light = {"max_lighting": amount["brightness"], "p_lighting": p, "xtra_tfms": colours}
    still = {"max_rotate": 0.0, "max_zoom": 1.0, "max_warp": 0.0}
    low, high = amount["scale"]
    rows = [row for part in ("train", "valid") for row in zip(work.paths(part), work.targets(part), strict=True)]
    block = DataBlock(
        blocks=(ImageBlock, MultiCategoryBlock(encoded=True, vocab=[f"genre {n}" for n in range(work.n_genres)])),
        get_x=ItemGetter(0),
        get_y=ItemGetter(1),
        splitter=IndexSplitter(range(len(work.paths("train")), len(rows))),
        item_tfms=[
            RandomResizedCrop(size, min_scale=low, max_scale=high, ratio=work.ratio, split_idx=0),
            Resize(size, split_idx=1),
        ],
        batch_tfms=[*aug_transforms(**still, **light), Normalize.from_stats(work.mean, work.std)],
    )
    return block.dataloaders(rows, bs=work.batch_size, num_workers=worker_count(work, "fastai"), device=work.device)


def create_learner(work: Work) -> Any:
    "Return a `vision_learner` whose body has the given weights."
    set_up(work)
    default_device(work.device == "cuda")
    learner = vision_learner(
        create_loaders(work), work.model_name, pretrained=False, normalize=False, wd=work.weight_decay
    )
    load_backbone(work, learner.model[0].model)  # timm's network without its classifier
    if work.amp == "bf16":
        learner = learner.to_bf16() if hasattr(learner, "to_bf16") else learner.to_fp16()
    return learner


class ClockCallback(Callback):
    "Mark the moments of the training, and cancel validation if the plan has none."

    def __init__(self, work: Work, plan: Plan, clock: Clock):
        self.work, self.plan, self.clock = work, plan, clock

    def before_batch(self):
        if self.training:
            self.clock.batch(len(self.xb[0]))

    def before_validate(self):
        if not self.plan.validate:
            raise CancelValidException()

    def after_epoch(self):
        self.clock.end_epoch(self.work.device)


def fit(work: Work, plan: Plan, clock: Clock) -> tuple[Any, np.ndarray | None]:
    "Return the trained network, and its scores of the validation posters, taken after the clock has stopped."
    learner = create_learner(work)
    if plan.frozen:
        learner.freeze()
    with learner.no_bar(), learner.no_logging():
        clock.begin()
        learner.fit_one_cycle(plan.epochs, plan.max_lr, **ONE_CYCLE, cbs=ClockCallback(work, plan, clock))
        scores = learner.get_preds(ds_idx=1)[0].cpu().float().numpy() if plan.validate else None
    return learner.model[0].model, scores


class KeepScores(Callback):
    "Keep the scores of the validation posters of every epoch."

    def __init__(self):
        self.epochs: list[np.ndarray] = []  # each (posters, genres)
        self.batches: list[np.ndarray] = []

    def after_pred(self):
        if not self.training:
            self.batches.append(self.pred.sigmoid().cpu().float().numpy())

    def after_validate(self):
        self.epochs.append(np.concatenate(self.batches))
        self.batches = []


def tune(work: Work, clock: Clock) -> tuple[Any, np.ndarray]:
    "Return the network after `fine_tune`, and the (epochs, posters, genres) scores of the validation posters."
    learner, kept = create_learner(work), KeepScores()
    plan = Plan(epochs=5, max_lr=2e-3, frozen=False, validate=True)
    with learner.no_bar(), learner.no_logging():
        clock.begin()
        learner.fine_tune(plan.epochs - 1, plan.max_lr, cbs=[ClockCallback(work, plan, clock), kept])
    return learner.model[0].model, np.stack(kept.epochs)


def predict(work: Work, clock: Clock) -> tuple[Any, np.ndarray]:
    "Return the network, and its scores of the folder."
    learner = create_learner(work)
    with learner.no_bar(), learner.no_logging():
        clock.begin()
        loader = learner.dls.test_dl([(path, None) for path in work.paths("folder")])
        scores = learner.get_preds(dl=loader)[0].cpu().float().numpy()
    return learner.model[0].model, scores
