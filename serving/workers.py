"""Threads that work off jobs for an event loop.

What a ThreadPoolExecutor with futures does, at a third of its price for a job: one queue there, one callback back.
"""

import asyncio
import contextlib
import os
import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

NICENESS = 5
"""Of the threads, on Linux: a third of the event loop's share of a core that both want."""

JobT = TypeVar("JobT")
ResultT = TypeVar("ResultT")


def give_way() -> None:
    """Lowers the priority of this thread, and of those that it will start, where the system can do that.

    The event loop feeds these threads and answers people: where cores are short, it goes first.
    """
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not allowed
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, max(NICENESS, os.getpriority(os.PRIO_PROCESS, thread)))


async def in_a_thread_that_gives_way(work: Callable[[], ResultT]) -> ResultT:
    """Returns what `work` returns, or raises what it raises, from a thread of its own.

    Whoever is cancelled leaves at once: the work goes on to its end, which nobody hears of.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[ResultT] = loop.create_future()

    def settle(how: Callable[[Any], None], outcome: object) -> None:
        if not result.done():  # cancelled, else
            how(outcome)

    def run() -> None:
        give_way()
        with contextlib.suppress(RuntimeError):  # the event loop may end before the work
            try:
                value = work()
            except Exception as error:
                loop.call_soon_threadsafe(settle, result.set_exception, error)
            else:
                loop.call_soon_threadsafe(settle, result.set_result, value)

    # No daemon: a process that ends waits for it, since a runtime that is at work then may crash.
    threading.Thread(target=run, name="load").start()
    return await result


class Workers(Generic[JobT, ResultT]):
    """Made, used and closed in one running event loop.

    Args:
        count: Number of threads.
        work: Does a job, in one of the threads.
        done: Gets the job and its result, or what `work` raised, in the event loop.
        name: Of the threads, for debuggers.
        gives_way: See `give_way`.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[JobT], ResultT],
        done: Callable[[JobT, ResultT | Exception], None],
        name: str,
        gives_way: bool = True,
    ) -> None:
        self._work, self._done, self._gives_way = work, done, gives_way
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[JobT | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(count)
        ]
        self.free = count
        """Threads without a job; a job that is given while it is 0 waits."""
        for thread in self._threads:
            thread.start()

    def give(self, job: JobT) -> None:
        """Hands a job to the next free thread."""
        self.free -= 1
        self._jobs.put(job)

    async def close(self) -> None:
        """Ends the threads, each after the job that it has; none may wait. The event loop goes on meanwhile."""

        def end() -> None:
            for _ in self._threads:
                self._jobs.put(None)
            for thread in self._threads:
                thread.join()

        await asyncio.to_thread(end)

    def _run(self) -> None:
        if self._gives_way:
            give_way()
        while (job := self._jobs.get()) is not None:
            result: ResultT | Exception
            try:
                result = self._work(job)
            except Exception as error:  # whatever the work raises is the job's result
                result = error
            self._loop.call_soon_threadsafe(self._finish, job, result)
            del job, result  # a thread that waits for the next job keeps nothing of the last one alive

    def _finish(self, job: JobT, result: ResultT | Exception) -> None:
        self.free += 1
        self._done(job, result)
