"Pages of widgets, shown in a notebook or served as an app."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compare": ["RunsPage"],
        "evaluate": ["EvaluationPage"],
        "explore": ["ExplorePage"],
        "pick_lr": ["RangePicker"],
        "try_it": ["TryPage"],
    },
)
