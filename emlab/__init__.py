"""emlab: cause emergent misalignment, find the latent that carries it, prove that it does, watch for it, remove it.

What a first hour needs is here (`emlab.LanguageModel`, `emlab.latent_shift`) and is imported when it is first used, so
that `import emlab` costs nothing. The rest is in its room: `emlab.discovery`, `emlab.saes`. Which names are here stands
in `__init__.pyi`.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
