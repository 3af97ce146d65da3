import asyncio
import os
import sys
import threading
import weakref

import pytest

from serving.workers import NICENESS, Workers, in_a_thread_that_gives_way
from support.batchers import settle


async def finished(workers: Workers[int, int], done: list[object], count: int) -> None:
    while len(done) < count:
        await asyncio.sleep(0)
    await workers.close()


async def test_jobs_come_back_in_the_event_loop_with_their_results_or_errors() -> None:
    done: list[tuple[int, object]] = []
    threads: set[str] = set()

    def work(job: int) -> int:
        threads.add(threading.current_thread().name)
        if job == 3:
            raise ValueError("three")
        return 10 * job

    def deliver(job: int, result: int | Exception) -> None:
        assert threading.current_thread() is threading.main_thread()
        done.append((job, result))

    workers = Workers(2, work, deliver, "test")
    for job in range(5):
        workers.give(job)
    assert workers.free == -3
    await finished(workers, done, 5)  # type: ignore[arg-type]
    assert workers.free == 2
    results = dict(done)
    assert isinstance(results.pop(3), ValueError)
    assert results == {0: 0, 1: 10, 2: 20, 4: 40}
    assert threads <= {"test-0", "test-1"}


async def test_an_idle_thread_keeps_neither_its_last_job_nor_the_result() -> None:
    class Thing:
        def __init__(self) -> None:
            self.freed = threading.Event()
            weakref.finalize(self, self.freed.set)

    freed: list[threading.Event] = []

    def work(job: Thing) -> Thing:
        result = Thing()
        freed.extend([job.freed, result.freed])
        return result

    done = asyncio.Event()
    workers = Workers(1, work, lambda job, result: done.set(), "test")
    workers.give(Thing())
    await done.wait()
    for event in freed:
        assert await asyncio.to_thread(event.wait, 10)
    await workers.close()


async def test_the_event_loop_goes_on_while_threads_end() -> None:
    begun, gate = threading.Event(), threading.Event()

    def work(job: int) -> None:
        begun.set()
        assert gate.wait(10), "the event loop waited for the thread"

    workers = Workers(1, work, lambda job, result: None, "test")
    workers.give(1)
    assert await asyncio.to_thread(begun.wait, 10)
    closing = asyncio.create_task(workers.close())
    await settle()
    assert not closing.done()
    gate.set()
    await closing


async def test_work_in_a_thread_of_its_own_returns_or_raises() -> None:
    assert await in_a_thread_that_gives_way(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_a_thread_that_gives_way(lambda: 1 // 0)


@pytest.mark.parametrize("failing", [False, True])
async def test_who_is_cancelled_does_not_wait_for_the_work_and_hears_nothing_more_of_it(failing: bool) -> None:
    begun, gate, errors = threading.Event(), threading.Event(), []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))

    def work() -> None:
        begun.set()
        assert gate.wait(10), "the event loop waited for the work"
        if failing:
            raise ValueError("too late")

    waiting = asyncio.create_task(in_a_thread_that_gives_way(work))
    assert await asyncio.to_thread(begun.wait, 10)
    (thread,) = [one for one in threading.enumerate() if one.name == "load"]
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not gate.is_set()
    gate.set()
    await asyncio.to_thread(thread.join)
    await asyncio.sleep(0)
    assert errors == []


def test_work_may_end_after_the_event_loop() -> None:
    """An exception in the thread would fail the test."""
    begun, gate = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def work() -> None:
        threads.append(threading.current_thread())
        begun.set()
        assert gate.wait(10), "the end of the event loop waited for the work"

    async def leave() -> None:
        waiting = asyncio.create_task(in_a_thread_that_gives_way(work))
        assert await asyncio.to_thread(begun.wait, 10)
        waiting.cancel()

    asyncio.run(leave())
    gate.set()
    threads[0].join()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has priorities of threads")
async def test_threads_give_way_to_the_event_loop_and_so_do_those_that_they_start() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def started_inside() -> int:
        seen: list[int] = []
        inner = threading.Thread(target=lambda: seen.append(niceness()))
        inner.start()
        inner.join()
        return seen[0]

    before = niceness()
    assert await in_a_thread_that_gives_way(started_inside) == max(before, NICENESS)
    assert niceness() == before
