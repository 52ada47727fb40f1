"Sweeps: many variants of a run, planned, trained as jobs of Snakemake, and compared."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "jobs": ["describe_jobs", "gather_predictions"],
        "outcome": ["choose_variant", "outcome_table"],
        "plan": ["make_plan"],
        "runs": ["train_part"],
    },
)
