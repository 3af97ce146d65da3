"""Starting what answers for an engine."""

import dataclasses
import threading
from pathlib import Path

import pytest

from prelabel.errors import InputError
from prelabel.images import ImageSpec
from serving.config import Config
from serving.model import start_model
from support.engines import ECHO_BUNDLE, EchoEngine


async def test_a_model_that_does_not_fit_the_limits_leaves_no_threads_behind() -> None:
    """A watched folder tries it again for as long as the server runs."""
    large = EchoEngine(bundle=dataclasses.replace(ECHO_BUNDLE, input=ImageSpec(800, 800, 3)))
    config = Config(Path("bundle"), max_message_mib=2)
    before = set(threading.enumerate())
    for _ in range(3):
        with pytest.raises(InputError, match=r"one image .* does not fit a message of 2097152 bytes"):
            start_model(large, config)
    assert set(threading.enumerate()) <= before
