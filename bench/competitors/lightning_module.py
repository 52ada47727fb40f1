"""Lightning, after its guide to transfer learning.

A module with the network in it, torchvision's transforms and torch's loader; everything else is the Trainer's.
"""

import logging
from typing import Any

import lightning
import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from bench.competitors.clock import Clock
from bench.competitors.network import create_model, set_up
from bench.competitors.torch_loop import create_loader, freeze, set_mode
from bench.competitors.work import Plan, Work, one_cycle


class PosterClassifier(lightning.LightningModule):
    "Train and score the network; `scores` are those of the last validation."

    def __init__(
        self,
        work: Work,
        plan: Plan | None = None,  # none: only predict
        clock: Clock | None = None,  # of the training
    ):
        super().__init__()
        self.work, self.plan, self.clock = work, plan, clock
        self.model, self.classifier = create_model(work)
        self.loss, self.scores = nn.BCEWithLogitsLoss(), []
        if plan and plan.frozen:
            freeze(self.model, self.classifier)

    def forward(self, images):
        return self.model(images)

    def on_train_epoch_start(self):
        set_mode(self.model, self.classifier, self.plan.frozen)

    def on_train_batch_start(self, batch, batch_idx):
        self.clock.batch(len(batch[0]))

    def training_step(self, batch, batch_idx):
        images, targets = batch
        loss = self.loss(self(images), targets)
        self.log("train_loss", loss)
        return loss

    def on_train_epoch_end(self):
        self.clock.end_epoch(self.work.device)

    def on_validation_epoch_start(self):
        self.scores = []

    def validation_step(self, batch, batch_idx):
        images, targets = batch
        logits = self(images)
        self.log("valid_loss", self.loss(logits, targets))
        self.scores.append(logits.float().sigmoid().cpu())

    def predict_step(self, batch, batch_idx):
        return self(batch[0]).float().sigmoid()

    def configure_optimizers(self):
        learning = [value for value in self.parameters() if value.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=self.plan.max_lr, weight_decay=self.work.weight_decay)
        schedule = OneCycleLR(optimizer, **one_cycle(self.plan.max_lr, self.trainer.estimated_stepping_batches))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def create_trainer(work: Work, epochs: int = 1) -> Any:
    "Return a Trainer that writes nothing and does not try validation before the first epoch."
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="gpu" if work.device == "cuda" else "cpu",
        devices=1,
        precision="bf16-mixed" if work.amp == "bf16" else "32-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def fit(work: Work, plan: Plan, clock: Clock) -> tuple[nn.Module, np.ndarray | None]:
    "Return the trained network, and its scores of the validation posters if the plan validates."
    set_up(work)
    module, trainer = PosterClassifier(work, plan, clock), create_trainer(work, plan.epochs)
    train = create_loader(work, "train", "lightning")
    valid = create_loader(work, "valid", "lightning") if plan.validate else None
    clock.begin()
    trainer.fit(module, train, valid)
    return module.model, torch.cat(module.scores).numpy() if plan.validate else None


def predict(work: Work, clock: Clock) -> tuple[nn.Module, np.ndarray]:
    "Return the network, and its scores of the folder."
    set_up(work)
    module, trainer = PosterClassifier(work), create_trainer(work)
    clock.begin()
    scores = trainer.predict(module, create_loader(work, "folder", "lightning"))
    return module.model, torch.cat(scores).cpu().numpy()
