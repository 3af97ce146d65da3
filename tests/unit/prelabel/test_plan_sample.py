"""What `prelabel plan` looks at: a random sample, bounded in images and in time."""

from prelabel.planning.sample import SampleFacts, look_at
from prelabel.planning.text import duration, size
from prelabel.progress import Progress
from prelabel.sources import Source
from support.samples import ListSource


def look(source: Source, count: int, seed: int = 0, **options: float) -> SampleFacts:
    with Progress(count, "images", "", mode="none") as report:
        return look_at(source, count, seed, 2, report, **options)


def test_a_sample_is_random_and_the_same_for_the_same_seed() -> None:
    source = ListSource(1000, broken=frozenset(range(0, 1000, 4)))
    first, again, other = look(source, 200), look(source, 200), look(source, 200, seed=1)
    assert first == again
    assert first.unreadable != other.unreadable
    positions = [int(one.id) for one in first.unreadable]
    assert len(set(positions)) == len(positions)
    assert max(positions) > 800
    assert min(positions) < 200
    assert first.unreadable_at_least <= 250 <= first.unreadable_at_most < 400


def test_a_huge_pile_is_looked_at_and_not_read() -> None:
    source = ListSource(2**16 - 1)
    facts = look(source, 50)
    assert source.read_count == facts.images == 50
    assert (facts.unreadable_at_least, facts.modes) == (0, {"L": 50})
    assert 2**16 * 0.06 < facts.unreadable_at_most < 2**16 * 0.08


def test_what_is_slow_to_read_is_looked_at_less() -> None:
    facts = look(ListSource(1000), 200, limit_s=0)
    assert facts.images == 1


def test_what_was_seen_is_certain_whatever_the_interval_says() -> None:
    facts = look(ListSource(10, broken=frozenset(range(10))), 9)
    assert (len(facts.unreadable), facts.unreadable_at_least, facts.unreadable_at_most) == (9, 9, 10)
    facts = look(ListSource(10), 9)
    assert (facts.unreadable_at_least, facts.unreadable_at_most) == (0, 1)


def test_numbers_are_short_and_have_a_unit() -> None:
    assert [size(count) for count in (0, 999, 999_600, 1_234_567, 10**13)] == [
        "0 bytes", "999 bytes", "1 MB", "1.23 MB", "10 TB",
    ]  # fmt: skip
    assert [duration(seconds) for seconds in (0.123, 59.6, 600, 36_000)] == ["0.12 s", "60 s", "10 min", "10.0 h"]
