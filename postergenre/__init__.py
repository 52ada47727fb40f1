"""Movie genres from posters: what users call. Submodules load when they are first used."""

import importlib.abc
import sys

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["make_params", "read_params_file"],
        "data": ["load_run_data"],
        "demo": ["draw_demo_posters"],
        "errors": ["ConfigError"],
        "export": ["export_run"],
        "params": ["EvaluateParams", "Params", "PredictParams"],
        "predict": ["list_images", "load_predictor", "predict_folder", "score_pictures"],
        "report": ["compare_runs", "evaluate_run"],
        "train": ["average_run", "combine_run", "find_lr", "train_run"],
    },
)

_MOVED = {
    "annotations": "data.annotations, data.audit and data.split",
    "cache": "data.cache",
    "callbacks": "train.callbacks",
    "checkpoints": "train.checkpoints",
    "compare": "report.comparison",
    "copies": "data.copies",
    "dataset": "data.dataset and data.augmentation",
    "evaluate": "report.predictions and report.evaluation",
    "explain": "model.attribution",
    "explore": "pages.explore",
    "features": "train.features",
    "images": "data.images",
    "inference": "model.inference",
    "losses": "train.losses",
    "lr_finder": "train.finder",
    "models": "model.classifier",
    "plots": "report.plots",
    "runs": "train.runs",
    "sampler": "data.sampler",
    "schedules": "train.schedules",
    "swa": "train.averaging",
    "torchscript": "export.files and export.job",
    "training": "train.training",
    "try_it": "pages.try_it",
    "widgets": "pages.pick_lr",
}


class _MovedModules(importlib.abc.MetaPathFinder):
    "Say where a module of version 0.1 is now."

    def find_spec(self, fullname, path=None, target=None):
        package, _, name = fullname.partition(".")
        if package == __name__ and name in _MOVED:
            raise ModuleNotFoundError(f"{fullname} is now in {__name__}.{_MOVED[name]}. Import it from there.")


sys.meta_path.insert(0, _MovedModules())
