"""A model in this process in the place of a server."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from prelabel.embedded import EmbeddedPredictor
from support.engines import EchoEngine, marked, marks_of


def test_batches_run_at_the_same_time_and_answers_come_in_order() -> None:
    engine = EchoEngine()
    engine.gate.clear()
    batches = [marked([i, i + 100]) for i in range(7)]
    with ThreadPoolExecutor(1) as pool:
        answers = pool.submit(lambda: list(EmbeddedPredictor(engine, callers=3).predict_stream(iter(batches))))
        for _ in range(3):
            assert engine.entered.acquire(timeout=30)
        engine.gate.set()
        assert [marks_of(answer) for answer in answers.result(30)] == [[i, i + 100] for i in range(7)]


def test_an_error_of_the_engine_comes_with_its_batch_and_stops_the_stream() -> None:
    engine = EchoEngine(broken=frozenset({1}))
    answers = EmbeddedPredictor(engine, callers=2).predict_stream(marked([i]) for i in range(9))
    assert marks_of(next(answers)) == [0]
    with pytest.raises(RuntimeError, match="secret of the engine"):
        next(answers)
    assert next(answers, None) is None
