"What runs achieved: plots, comparison, evaluation, documents."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "comparison": ["compare_runs", "results_table", "runs_table"],
        "documents": ["write_evaluation"],
        "evaluation": ["evaluate_run"],
        "plots": ["plot_genre_table", "plot_history", "plot_lr_find", "poster_grid"],
        "predictions": ["open_finished", "scores_of_split"],
    },
)
