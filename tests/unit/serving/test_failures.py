"""When a bundle that could not be loaded is tried again."""

from serving.failures import LONGEST_RETRY_S, RETRY_S, failed


async def test_the_same_bundle_waits_twice_as_long_each_time_and_another_one_starts_anew() -> None:
    waits, failure = [], None
    for _ in range(9):
        failure = failed(failure, "a", "damaged")
        waits.append(failure.wait_s)
    assert waits[:3] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S]
    assert waits[-1] == LONGEST_RETRY_S
    assert failed(failure, "b", "damaged").wait_s == RETRY_S, "a folder that comes back, or is written anew"
