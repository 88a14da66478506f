"""Stand-in for soundfile, which SGLang's HTTP server imports for audio."""

from functools import partial

from prism_ae.sglang_prism.stand_ins.absent import placeholder

__version__ = "0+prism.stand.in"

__getattr__ = partial(placeholder, __name__)
