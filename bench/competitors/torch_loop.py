"""torch and torchvision, after torchvision's references/classification.

Pillow transforms, images normalised in the workers, the loss read after every step.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from bench.competitors.clock import Clock
from bench.competitors.network import create_model, set_up
from bench.competitors.work import Plan, Work, one_cycle, worker_count


class Posters(Dataset):
    "The transformed posters of a part with their targets, or with their numbers if there are none."

    def __init__(
        self,
        work: Work,
        part: str,  # train, valid or folder
        transform: Callable | None = None,  # of a PIL image
    ):
        self.paths, self.transform = work.paths(part), transform
        self.targets = range(len(self.paths)) if part == "folder" else work.targets(part)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        with Image.open(self.paths[index]) as opened:
            image = opened.convert("RGB")
        return self.transform(image), self.targets[index]


def create_transform(
    work: Work,
    training: bool,  # augment
) -> Callable:
    "Return the transform of a PIL image to a normalised (3, height, width) float32 tensor."
    height, width = work.img_size
    amount = work.augmentation
    if training:
        jitter = transforms.ColorJitter(
            **{name: amount[name] for name in ("brightness", "contrast", "saturation", "hue")}
        )
        first = [
            transforms.RandomResizedCrop((height, width), scale=amount["scale"], ratio=work.ratio),
            transforms.RandomHorizontalFlip(amount["flip"]),
            transforms.RandomApply([jitter], p=amount["jitter_p"]),
        ]
    else:  # crop the little by which a poster is wider or narrower than the input
        first = [partial(ImageOps.fit, size=(width, height), method=Image.Resampling.BILINEAR)]
    last = [
        transforms.PILToTensor(),
        transforms.ConvertImageDtype(torch.float),
        transforms.Normalize(work.mean, work.std),
    ]
    return transforms.Compose([*first, *last])


def create_loader(
    work: Work,
    part: str,  # train, valid or folder
    competitor: str = "torch",  # or lightning
) -> DataLoader:
    "Return a DataLoader as in the reference script."
    training = part == "train"
    return DataLoader(
        Posters(work, part, create_transform(work, training)),
        batch_size=work.batch_size,
        shuffle=training,
        num_workers=worker_count(work, competitor),
        pin_memory=work.device == "cuda",
    )


def train_epoch(
    model: nn.Module,  # in training mode
    loader: Any,  # batches of images and targets
    optimizer: torch.optim.Optimizer,
    schedule: OneCycleLR,  # stepped after every batch
    work: Work,
    clock: Clock,
    log_every: int = 1,  # number of batches between two readings of the loss, each of which waits for the device
) -> None:
    "Train for one epoch, as the reference scripts of torchvision and timm do."
    loss_function = nn.BCEWithLogitsLoss()
    losses = []
    for number, (images, targets) in enumerate(loader):
        clock.batch(len(images))
        images = images.to(work.device, non_blocking=True)
        targets = targets.to(work.device, torch.float32, non_blocking=True)  # timm's collate changes the type
        with torch.autocast(work.device, dtype=torch.bfloat16, enabled=work.amp == "bf16"):
            loss = loss_function(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if number % log_every == 0:
            losses.append(loss.item())


@torch.inference_mode()
def score(
    model: nn.Module,
    loader: Any,  # batches of images and anything
    work: Work,
) -> np.ndarray:
    "Return the (posters, genres) float32 scores from 0 to 1."
    model.eval()
    scores = []
    for images, _ in loader:
        images = images.to(work.device, non_blocking=True)
        with torch.autocast(work.device, dtype=torch.bfloat16, enabled=work.amp == "bf16"):
            logits = model(images)
        scores.append(logits.float().sigmoid().cpu())
    return torch.cat(scores).numpy()


def freeze(
    model: nn.Module,
    classifier: nn.Module,  # the last layer of the model, which still learns
) -> None:
    "Let only the classifier require a gradient."
    model.requires_grad_(False)
    classifier.requires_grad_(True)


def set_mode(
    model: nn.Module,
    classifier: nn.Module,
    frozen: bool,  # keep all but the classifier in evaluation mode, so that batch-norm's statistics stay
) -> None:
    "Set training mode for the parts that learn."
    model.train(not frozen)
    classifier.train()


def fit(work: Work, plan: Plan, clock: Clock) -> tuple[nn.Module, np.ndarray | None]:
    "Return the trained network, and its scores of the validation posters if the plan validates."
    device = set_up(work)
    model, classifier = create_model(work)
    model.to(device)
    if plan.frozen:
        freeze(model, classifier)
    loader = create_loader(work, "train")
    valid = create_loader(work, "valid") if plan.validate else None
    learning = [value for value in model.parameters() if value.requires_grad]
    optimizer = AdamW(learning, lr=plan.max_lr, weight_decay=work.weight_decay)
    schedule = OneCycleLR(optimizer, **one_cycle(plan.max_lr, plan.epochs * len(loader)))
    scores = None
    clock.begin()
    for _ in range(plan.epochs):
        set_mode(model, classifier, plan.frozen)
        train_epoch(model, loader, optimizer, schedule, work, clock)
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
    return model, score(model, create_loader(work, "folder"), work)
