"The network: backbone, head, weights, inference, Grad-CAM."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "attribution": ["grad_cam"],
        "classifier": ["PosterClassifier", "create_model", "freeze", "unfreeze"],
        "inference": ["compile_network"],
        "weights": ["load_weights"],
    },
)
