"""Stand-in for torchvision, which SGLang and transformers import and text models do not use."""

from functools import partial

from prism_ae.sglang_prism.stand_ins.absent import placeholder

from . import io, transforms

__all__ = ["io", "transforms"]

__version__ = "0+prism.stand.in"
__getattr__ = partial(placeholder, __name__)
