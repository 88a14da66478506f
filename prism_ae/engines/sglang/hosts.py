"""The hosts that an engine keeps started.

What is compared is measured in turns: each method's cell after the other's, and all of them again. A host serves one
method or a few, and its start takes longer than a short cell; so hosts wait for their next turn, as far as the device's
memory allows. One that waits sleeps (`options.engine_options`): it takes no time from the one that is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from prism_ae.engines.sglang.options import EngineSetup
from prism_ae.engines.sglang.process import Host

Room = Callable[[Sequence[int]], bool]
"""Whether one more host has room beside the hosts with these process ids."""


class Hosts:
    """Started hosts of one target.

    Args:
        room: ``memory.room_for_one`` or ``memory.room_by_memory``, by the device.
    """

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held: list[tuple[EngineSetup, Host]] = []
        """The one that was used last at the end."""

    @property
    def setups(self) -> tuple[EngineSetup, ...]:
        """What the hosts were started for, the one that was used last at the end."""
        return tuple(setup for setup, _ in self._held)

    def take(self, wanted: EngineSetup, start: Callable[[], Host]) -> Host:
        """A host that serves ``wanted``: one that is held, or a new one; raises what ``start`` raises.

        Before a start those end that nobody will ask for again, which are another target's and those that the new one
        can replace, and then as many as must make room, from the one that was not used for the longest time.
        """
        for number in reversed(range(len(self._held))):
            setup, host = self._held[number]
            if setup.serves(wanted):
                self._held.append(self._held.pop(number))
                return host
        for held in [*self._held]:
            if held[0].target != wanted.target or wanted.serves(held[0]):
                self._end(held)
        while self._held and not self._room([host.pid for _, host in self._held]):
            self._end(self._held[0])
        host = start()
        self._held.append((wanted, host))
        return host

    def close(self) -> None:
        """End all."""
        while self._held:
            self._end(self._held[0])

    def _end(self, held: tuple[EngineSetup, Host]) -> None:
        self._held.remove(held)
        held[1].discard()
