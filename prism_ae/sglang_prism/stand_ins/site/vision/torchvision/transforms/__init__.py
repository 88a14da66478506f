import enum
from functools import partial

from prism_ae.sglang_prism.stand_ins.absent import placeholder

from . import functional, v2

__all__ = ["InterpolationMode", "functional", "v2"]

__getattr__ = partial(placeholder, __name__)


class InterpolationMode(enum.Enum):
    """transformers builds tables of these when it is imported."""

    NEAREST = "nearest"
    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"
