"Metrics with their no-skill baselines and confidence intervals."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "intervals": ["confidence_interval", "paired_difference"],
        "metrics": ["average_precision", "genre_table", "summary_metrics", "tune_thresholds"],
    },
)
