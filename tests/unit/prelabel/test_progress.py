"""Progress with a clock and a stream of the test."""

import io
import json

import pytest

from prelabel.progress import LINES_INTERVAL_S, Progress, ProgressMode


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def work(stream: io.StringIO, mode: ProgressMode = "auto", seconds: float = 1.0) -> str:
    """Ten times 100 images, `seconds` each."""
    clock = Clock()
    with Progress(1000, "images", "work", mode=mode, stream=stream, clock=clock) as progress:
        for _ in range(10):
            clock.now += seconds
            progress.advance(100)
    return stream.getvalue()


def test_a_log_gets_a_line_every_few_seconds_with_rate_and_time_to_go() -> None:
    assert work(io.StringIO()).splitlines() == [
        "work:  50 %  500 of 1,000 images  100 images/s  5 s to go",
        "work: 100 %  1,000 of 1,000 images  100 images/s  0 s to go",
        "work: 1,000 images in 10 s (100 images/s)",
    ]
    assert LINES_INTERVAL_S == 5


def test_a_terminal_gets_one_line_that_is_written_over() -> None:
    text = work(Terminal())
    assert text.count("\n") == 1
    assert text.count("\r\x1b[K") == 11
    assert text.endswith("\r\x1b[Kwork: 1,000 images in 10 s (100 images/s)\n")


def test_programs_get_json_lines() -> None:
    lines = [json.loads(line) for line in work(io.StringIO(), "json", seconds=0.5).splitlines()]
    assert [line["event"] for line in lines] == ["progress"] * 5 + ["finished"]
    assert lines[0] == {
        "event": "progress",
        "done": 200,
        "total": 1000,
        "per_s": 200.0,
        "eta_s": 4.0,
        "elapsed_s": 1.0,
        "label": "work",
        "unit": "images",
    }
    assert lines[-1]["done"] == 1000


def test_nothing_is_nothing() -> None:
    assert work(io.StringIO(), "none") == ""


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(10_000, "steps", "training", stream=stream, clock=clock) as progress:
        clock.now += 300  # compiling
        progress.advance(1)
        for _ in range(60):
            clock.now += 1
            progress.advance(10)
    assert "10 steps/s" in stream.getvalue().splitlines()[-2]


def test_what_was_done_before_does_not_count_into_the_rate() -> None:
    stream, clock = io.StringIO(), Clock()
    with Progress(1000, "images", "work", done=900, stream=stream, clock=clock) as progress:
        clock.now += 5
        progress.advance(50)
    assert stream.getvalue().splitlines() == [
        "work:  95 %  950 of 1,000 images  10 images/s  5 s to go",
        "work: 50 images in 5 s (10 images/s)",
    ]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_an_error_shows_where_the_work_stopped(clock: Clock) -> None:
    stream = io.StringIO()

    def fail() -> None:
        with Progress(1000, "images", "work", stream=stream, clock=clock) as progress:
            progress.advance(10)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert stream.getvalue() == "work: stopped at 10 of 1,000 images in 0 s\n"


@pytest.mark.parametrize("mode", ["auto", "json", "none"])
def test_notes_stay(clock: Clock, mode: ProgressMode) -> None:
    stream = io.StringIO()
    with Progress(10, "steps", "training", mode=mode, stream=stream, clock=clock) as progress:
        progress.note("accuracy 0.9")
    first = stream.getvalue().split("\n")[0]
    note = {"event": "note", "text": "accuracy 0.9", "label": "training", "unit": "steps"}
    assert first == {"auto": "training: accuracy 0.9", "json": json.dumps(note), "none": ""}[mode]


def test_a_note_on_a_terminal_does_not_eat_the_line(clock: Clock) -> None:
    stream = Terminal()
    with Progress(10, "steps", "training", stream=stream, clock=clock) as progress:
        progress.note("accuracy 0.9")
    assert stream.getvalue().startswith("\r\x1b[Ktraining: accuracy 0.9\n\r\x1b[Ktraining:   0 %  0 of 10 steps")


@pytest.mark.parametrize(("seconds", "shown"), [(5.0, "1 min 00 s"), (45.4, "10 h 00 min"), (0.0005, "0 s")])
def test_times_are_readable(seconds: float, shown: str) -> None:
    total = {5.0: 60.0, 45.4: 36_000.0, 0.0005: 0.005}[seconds]
    assert f"1,000 images in {shown}" in work(io.StringIO(), seconds=total / 10)


def test_no_work_at_all_is_no_error(clock: Clock) -> None:
    stream = Terminal()
    with Progress(0, "images", "work", stream=stream, clock=clock) as progress:
        progress.note("nothing to do")
    assert "100 %  0 of 0 images" in stream.getvalue()
