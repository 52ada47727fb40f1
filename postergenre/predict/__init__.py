"Scores of new images."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "job": ["predict_folder"],
        "scorer": ["load_predictor", "score_pictures"],
        "sources": ["list_images"],
    },
)
