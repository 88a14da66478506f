"""Several processes that train one drafter together, each on its part of every batch.

The loss is a mean over counted positions, of which the parts have different numbers. So no process averages: each adds
up its part's share of the mean, by counts that are summed before, and the gradients are summed as they are. Every
process then takes the same step, from the same numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from prism_ae.errors import DeviceError


def _nothing(tensor: Tensor) -> None:
    """The sum over one process."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        world: how many there are.
        add_up: replaces a tensor, of the same shape in all processes, by the sum over them; waits for all.
    """

    rank: int = 0
    world: int = 1
    add_up: Callable[[Tensor], None] = _nothing

    def mine(self, rows: Sequence[int]) -> list[int]:
        """This process's part of a batch: neighbours, which are of similar length, go to different processes."""
        return list(rows[self.rank :: self.world])


ALONE = Ranks()

_PATIENCE = datetime.timedelta(minutes=30)


@contextlib.contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """The processes that ``torchrun`` started, or `ALONE`: by NCCL on GPUs, by gloo on CPUs.

    Args:
        device: torch's name of this process's device, which is its own where it is a GPU.

    Raises:
        DeviceError: the others cannot be reached.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    import torch
    from torch import distributed

    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(torch.device(device))
    try:
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise DeviceError(
            f"the other processes of this training cannot be reached: {error}",
            "start all of them by one torchrun; unset RANK and WORLD_SIZE to train in one process",
        ) from error
    try:
        yield Ranks(distributed.get_rank(), distributed.get_world_size(), distributed.all_reduce)
    finally:
        distributed.destroy_process_group()
