"""Questions and answers between a supervisor and one of its worker processes, in both directions.

JSON objects, one a line, over a pair of sockets that nobody else holds: when one process is gone, however it went, the
other one knows at once.
"""

import asyncio
import contextlib
import itertools
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

Answer = Callable[[str, Any], Awaitable[Any]]
"""Takes what is asked and what the question is about; returns what goes back. Must not raise."""

_MAX_LINE_BYTES = 64 << 20
"""The longest line is a worker's metrics: about 100 KB."""


class LinkClosedError(Exception):
    """The process at the other end is gone."""


class Link:
    """One end. `attend` must run for as long as anything is asked."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer) -> None:
        self._reader, self._writer, self._answer = reader, writer, answer
        self._numbers = itertools.count()
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._closed = False

    @classmethod
    async def over(cls, end: socket.socket, answer: Answer) -> "Link":
        """Returns the link over one end of a pair of sockets, which it closes."""
        return cls(*await asyncio.open_connection(sock=end, limit=_MAX_LINE_BYTES), answer)

    async def ask(self, what: str, about: Any = None) -> Any:
        """Returns the other end's answer.

        Raises:
            LinkClosedError: The other end went before it answered.
        """
        if self._closed:
            raise LinkClosedError
        number = next(self._numbers)
        self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._send({"question": number, "what": what, "about": about})
            return await self._asked[number]
        finally:
            del self._asked[number]

    async def attend(self) -> None:
        """Answers what the other end asks, until it is gone."""
        try:
            # A process that dies with unread lines resets the connection; or it leaves half a line.
            with contextlib.suppress(ConnectionError):
                while (line := await self._reader.readline()).endswith(b"\n"):
                    self._receive(json.loads(line))
        finally:
            self._closed = True
            for waiting in self._asked.values():
                if not waiting.done():
                    waiting.set_exception(LinkClosedError())
            for task in self._answering:
                task.cancel()
            self._writer.close()

    def _receive(self, message: dict[str, Any]) -> None:
        if "question" in message:
            task = asyncio.create_task(self._reply(message))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif (waiting := self._asked.get(message["answers"])) is not None and not waiting.done():
            waiting.set_result(message["value"])

    async def _reply(self, message: dict[str, Any]) -> None:
        value = await self._answer(message["what"], message["about"])
        self._send({"answers": message["question"], "value": value})

    def _send(self, message: dict[str, Any]) -> None:
        # Not drained: what is unread is bounded by the questions that are open.
        self._writer.write(json.dumps(message).encode() + b"\n")
