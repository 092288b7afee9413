"""Connections of the reward server: heads that never end, bodies in bounded memory, and lines of its log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Held", "Memory", "Protocol", "printable", "printable_record"]

_HEAD = 20.0
"""Seconds that the head of a request may take."""


class Protocol(H11Protocol):
    """HTTP of uvicorn, for which a connection may take for ever to send the head of a request."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Go on waiting, or stop."""
        super().data_received(data)
        self._wait()

    def connection_lost(self, error: Exception | None) -> None:
        """Stop waiting."""
        super().connection_lost(error)
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        """Let `_HEAD` seconds pass from the first part of a head to the last."""
        if self.cycle is not None and not self.cycle.response_complete:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        elif self._timer is None:
            self._timer = self.loop.call_later(_HEAD, self._close)

    def _close(self) -> None:
        self._timer = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()


class Memory:
    """The bytes of requests that may be held. What does not fit waits, except for the oldest request that is
    not complete: so one of them always gets on.
    """

    def __init__(self, size: int) -> None:
        """Hold up to `size` bytes."""
        self._free, self._reading = size, list[object]()
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[Held]:
        """Room for one request, until the end of the context."""
        held = Held(self)
        self._reading.append(held)
        try:
            yield held
        finally:
            self._free += held.size
            await held.complete()

    async def leave(self, held: Held) -> None:
        """Reckon no more with a request that is complete, or gone."""
        with suppress(ValueError):
            self._reading.remove(held)
        async with self._changed:
            self._changed.notify_all()

    async def take(self, held: Held, size: int) -> None:
        """Wait until there is room for `size` bytes more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= size or self._reading[0] is held)
        self._free -= size
        held.size += size


class Held:
    """What one request holds."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self.size = memory, 0

    async def take(self, size: int) -> None:
        """Hold `size` bytes more."""
        await self._memory.take(self, size)

    async def complete(self) -> None:
        """All is there: the next one is the oldest."""
        await self._memory.leave(self)


def printable(text: str) -> str:
    """A text whose characters all can be shown and sent; the others as Python writes them."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def printable_record(record: logging.LogRecord) -> bool:
    """Let no line of the log hold what a terminal obeys: parts of it come from the network."""
    record.msg = printable(record.msg) if isinstance(record.msg, str) else record.msg
    if isinstance(record.args, tuple):
        record.args = tuple(printable(one) if isinstance(one, str) else one for one in record.args)
    return True
