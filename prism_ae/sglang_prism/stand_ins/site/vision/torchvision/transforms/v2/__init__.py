from functools import partial

from prism_ae.sglang_prism.stand_ins.absent import placeholder

__getattr__ = partial(placeholder, __name__)
