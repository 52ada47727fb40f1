"Drawn posters whose genres can be seen."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "posters": ["draw_demo_posters", "draw_poster"],
        "things": ["DEMO_GENRES"],
    },
)
