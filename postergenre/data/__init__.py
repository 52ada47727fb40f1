"The posters of an experiment: images, tables, audit, split, augmentation, cache."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "annotations": ["read_annotations"],
        "augmentation": ["build_augmentation"],
        "cache": ["cached_posters"],
        "dataset": ["PosterDataset", "make_loader"],
        "experiment": ["audit_folder", "load_run_data"],
        "images": ["decode_poster", "fit_poster"],
        "sampler": ["IterationSampler"],
        "split": ["load_data", "split_posters"],
    },
)
