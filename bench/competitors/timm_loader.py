"""timm's loader, optimizer and freezing, in the loop of timm's train.py.

`create_loader` makes bytes in the workers and normalises on the device; `create_optimizer_v2` does not decay biases and
norms; the loss is read every 50 batches.
"""

from typing import Any

import numpy as np
import torch
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.utils import freeze
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from bench.competitors.clock import Clock
from bench.competitors.network import create_model, set_up
from bench.competitors.torch_loop import Posters, score, train_epoch
from bench.competitors.work import Plan, Work, one_cycle, worker_count


def poster_loader(
    work: Work,
    part: str,  # train, valid or folder
) -> Any:
    "Return timm's loader; its transforms have the strength of the others'."
    amount = work.augmentation
    return create_loader(
        Posters(work, part),
        input_size=(3, *work.img_size),
        batch_size=work.batch_size,
        is_training=part == "train",
        scale=amount["scale"],
        ratio=work.ratio,
        hflip=amount["flip"],
        color_jitter=tuple(amount[name] for name in ("brightness", "contrast", "saturation", "hue")),
        color_jitter_prob=amount["jitter_p"],
        interpolation="bilinear",
        mean=tuple(work.mean),
        std=tuple(work.std),
        num_workers=worker_count(work, "timm"),
        crop_pct=1.0,
        device=torch.device(work.device),
    )


def fit(work: Work, plan: Plan, clock: Clock) -> tuple[nn.Module, np.ndarray | None]:
    "Return the trained network, and its scores of the validation posters if the plan validates."
    device = set_up(work)
    model, classifier = create_model(work)
    if plan.frozen:  # batch-norm's statistics included
        freeze(model, [name for name, part in model.named_children() if part is not classifier])
    model.to(device)
    loader = poster_loader(work, "train")
    valid = poster_loader(work, "valid") if plan.validate else None
    optimizer = create_optimizer_v2(model, opt="adamw", lr=plan.max_lr, weight_decay=work.weight_decay)
    schedule = OneCycleLR(optimizer, **one_cycle(plan.max_lr, plan.epochs * len(loader)))
    scores = None
    clock.begin()
    for _ in range(plan.epochs):
        model.train()
        train_epoch(model, loader, optimizer, schedule, work, clock, log_every=50)
        if plan.validate:
            scores = score(model, valid, work)
        clock.end_epoch(work.device)
    return model, scores


def predict(work: Work, clock: Clock) -> tuple[nn.Module, np.ndarray]:
    "Return the network, and its scores of the folder."
    device = set_up(work)
    model, _ = create_model(work)
    model.to(device)
    clock.begin()
    return model, score(model, poster_loader(work, "folder"), work)
