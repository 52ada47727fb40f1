"The words on posters: read, and used to judge genres."

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "reading": ["TextReader", "read_posters"],
        "words": ["WordModel", "fit_words", "word_contributions"],
    },
)
