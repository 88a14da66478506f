from functools import partial

from prism_ae.sglang_prism.stand_ins.absent import placeholder

from . import functional

__all__ = ["functional"]

__getattr__ = partial(placeholder, __name__)
