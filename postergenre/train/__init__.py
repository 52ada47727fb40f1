"Training a run: losses, schedules, checkpoints, callbacks, the loop, range test, averaging."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "averaging": ["average_run", "combine_run"],
        "callbacks": ["Callback", "Run"],
        "checkpoints": ["load_checkpoint", "save_checkpoint"],
        "finder": ["find_lr"],
        "loop": ["fit"],
        "losses": ["create_loss"],
        "schedules": ["create_optimizer", "create_schedule"],
        "setup": ["prepare"],
        "training": ["finalize", "train_run"],
    },
)
