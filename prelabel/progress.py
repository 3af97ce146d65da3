"""Progress of long work, with rate and time to go: for people on a terminal, for log files, for programs.

    with Progress(60_000, "images", "pre-labelling") as progress:
        for batch in batches:
            ...
            progress.advance(len(batch))

On a terminal one line is written over and over; elsewhere a new line appears every few seconds; `mode="json"` writes
one JSON object a line. Everything goes to the error stream, so that a command's output stays clean.
"""

import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import IO, Literal

ProgressMode = Literal["auto", "json", "none"]

TERMINAL_INTERVAL_S = 0.2
"""On a terminal: fast enough to look alive, too slow to cost anything."""
LINES_INTERVAL_S = 5.0
"""In a log: ten minutes of work are 120 lines."""
JSON_INTERVAL_S = 1.0
RATE_WINDOW_S = 30.0
"""The rate is that of the last half minute: a slow start, such as compiling a graph, is forgotten after that."""


class Progress:
    """Counts done units and reports them; a context manager, used by one thread."""

    def __init__(
        self,
        total: int,
        unit: str,
        label: str,
        *,
        mode: ProgressMode = "auto",
        done: int = 0,
        stream: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Starts counting.

        Args:
            total: Units of the whole work.
            unit: What is counted, in the plural: `images`, `steps`.
            label: What is going on, at the start of each line.
            mode: `auto`: text for people; `json`: one object a line; `none`: nothing.
            done: Units that an earlier run has done; they do not count into the rate.
            stream: Where to write; the error stream by default.
            clock: Seconds that never go back.
        """
        self._total, self._unit, self._label, self._mode, self._done = total, unit, label, mode, done
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._terminal = mode == "auto" and self._stream.isatty()
        self._interval_s = JSON_INTERVAL_S if mode == "json" else LINES_INTERVAL_S
        if self._terminal:
            self._interval_s = TERMINAL_INTERVAL_S
        self._started = self._last_report = clock()
        self._done_before = done
        self._marks = deque([(self._started, done)])

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish(stopped=kind is not None)

    def advance(self, count: int) -> None:
        """Counts `count` more units as done."""
        self._done += count
        now = self._clock()
        if now - self._last_report < self._interval_s:
            return
        self._last_report = now
        self._marks.append((now, self._done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - RATE_WINDOW_S:
            self._marks.popleft()
        self._report(now)

    def expect(self, total: int) -> None:
        """Changes the units of the whole work."""
        self._total = total

    def note(self, text: str) -> None:
        """Writes a line that stays, such as a result on the way."""
        if self._mode == "json":
            self._write_json({"event": "note", "text": text})
        elif self._mode == "auto":
            self._write_line(f"{self._label}: {text}")
            if self._terminal:
                self._report(self._clock())

    def _report(self, now: float) -> None:
        (first, done_then), elapsed_s = self._marks[0], now - self._started
        per_s = (self._done - done_then) / (now - first) if now > first else None
        eta_s = (self._total - self._done) / per_s if per_s else None
        if self._mode == "json":
            figures = {"per_s": _rounded(per_s), "eta_s": _rounded(eta_s), "elapsed_s": _rounded(elapsed_s)}
            self._write_json({"event": "progress", "done": self._done, "total": self._total, **figures})
        elif self._mode == "auto":
            share = f"{100 * self._done / self._total:3.0f} %" if self._total else "100 %"
            line = f"{self._label}: {share}  {self._done:,} of {self._total:,} {self._unit}"
            line += f"  {_rate(per_s)} {self._unit}/s" if per_s else ""
            line += f"  {_duration(eta_s)} to go" if eta_s is not None else ""
            if self._terminal:
                self._stream.write(f"\r\x1b[K{line}")
                self._stream.flush()
            else:
                self._write_line(line)

    def _finish(self, *, stopped: bool) -> None:
        elapsed_s = self._clock() - self._started
        count = self._done - self._done_before
        per_s = count / elapsed_s if elapsed_s > 0 else None
        if self._mode == "json":
            figures = {"per_s": _rounded(per_s), "elapsed_s": _rounded(elapsed_s)}
            event = "stopped" if stopped else "finished"
            self._write_json({"event": event, "done": self._done, "total": self._total, **figures})
        elif self._mode == "auto":
            what = f"stopped at {self._done:,} of {self._total:,}" if stopped else f"{count:,}"
            rate = f" ({_rate(per_s)} {self._unit}/s)" if per_s else ""
            self._write_line(f"{self._label}: {what} {self._unit} in {_duration(elapsed_s)}{rate}")

    def _write_line(self, line: str) -> None:
        self._stream.write(f"\r\x1b[K{line}\n" if self._terminal else f"{line}\n")
        self._stream.flush()

    def _write_json(self, fields: dict[str, object]) -> None:
        self._stream.write(json.dumps({**fields, "label": self._label, "unit": self._unit}) + "\n")
        self._stream.flush()


def write_summary(fields: Mapping[str, object], mode: ProgressMode, stream: IO[str] | None = None) -> None:
    """Writes what a program wants to know at the end as the last line, with the event `summary`; `mode="json"` only."""
    if mode == "json":
        print(json.dumps({"event": "summary", **fields}), file=sys.stderr if stream is None else stream, flush=True)


def write_end(event: str, text: str, *, as_json: bool) -> None:
    """Writes why a command did not finish, to the error stream: `error: ...`, or an object with that event."""
    print(json.dumps({"event": event, "text": text}) if as_json else f"{event}: {text}", file=sys.stderr)


class JsonLines(logging.Formatter):
    """Makes objects of log messages, so that every line of an error stream of JSON is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line."""
        return json.dumps({"event": "log", "level": record.levelname.lower(), "text": record.getMessage()})


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:.3g}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
