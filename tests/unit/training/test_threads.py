import os

import pytest

from prelabel.engine_base import usable_cores
from training.threads import VARIABLE, operation_threads, share_cores


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8)])
def test_an_operation_takes_half_of_the_cores(cores: int, threads: int) -> None:
    assert operation_threads(cores) == threads


def test_who_has_set_the_threads_is_not_overruled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "7")
    share_cores()
    assert os.environ[VARIABLE] == "7"
    monkeypatch.delenv(VARIABLE)
    share_cores()
    assert os.environ[VARIABLE] == str(operation_threads(usable_cores()))
