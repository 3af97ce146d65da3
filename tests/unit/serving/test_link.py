import asyncio
import socket
from typing import Any

import pytest

from serving.link import Link, LinkClosedError


async def pair(answer: Any) -> tuple[Link, Link, list[asyncio.Task[None]]]:
    """Two ends, of which the second answers, and the tasks that attend to them."""

    async def nobody(what: str, about: Any) -> Any:
        raise AssertionError("the first end is asked nothing")

    ends = socket.socketpair()
    links = [await Link.over(end, own) for end, own in zip(ends, (nobody, answer), strict=True)]
    return links[0], links[1], [asyncio.create_task(link.attend()) for link in links]


async def test_answers_belong_to_their_questions_whatever_their_order() -> None:
    released = asyncio.Event()

    async def answer(what: str, about: Any) -> Any:
        if what == "slow":
            await released.wait()
        return [what, about]

    asking, _, tasks = await pair(answer)
    slow = asyncio.create_task(asking.ask("slow", {"a": 1}))
    assert await asking.ask("quick", "x" * (1 << 20)) == ["quick", "x" * (1 << 20)]
    released.set()
    assert await slow == ["slow", {"a": 1}]
    tasks[1].cancel()
    await asyncio.wait(tasks)


async def test_who_asks_somebody_who_goes_is_told() -> None:
    asked = asyncio.Event()

    async def answer(what: str, about: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    asking, _, tasks = await pair(answer)
    waiting = asyncio.create_task(asking.ask("never"))
    await asked.wait()
    tasks[1].cancel()
    with pytest.raises(LinkClosedError):
        await waiting
    with pytest.raises(LinkClosedError):
        await asking.ask("anything")
    await asyncio.wait(tasks)


async def test_an_end_in_the_middle_of_a_line_is_an_end() -> None:
    async def answer(what: str, about: Any) -> Any:
        raise AssertionError("nothing whole was asked")

    ours, theirs = socket.socketpair()
    link = await Link.over(ours, answer)
    with theirs:
        theirs.sendall(b'{"question": 1, "wh')
    await link.attend()
    with pytest.raises(LinkClosedError):
        await link.ask("anything")
