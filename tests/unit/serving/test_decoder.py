import asyncio
import io
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from prelabel.errors import ImageError
from prelabel.images import ImageSpec, Pixels
from serving import decoder as module
from serving.decoder import Decoder
from support.batchers import settle


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


async def test_good_images_keep_their_order_and_bad_ones_their_position() -> None:
    decoder = Decoder(ImageSpec(4, 4, 1), threads=3)
    bad = {0: b"", 17: png(17)[:40], 49: b"no image"}
    images, errors = await decoder.decode([bad.get(i, png(i)) for i in range(50)])
    await decoder.close()
    assert images[:, 0, 0, 0].tolist() == [i for i in range(50) if i not in bad]
    assert images.shape[1:] == (4, 4, 1)
    assert list(errors) == sorted(bad)
    assert "empty" in errors[0]


class Held:
    """Stands in for the decoding: a file is its own pixel. Notes the order; waits while the gate is closed."""

    def __init__(self) -> None:
        self.begun, self.gate = threading.Semaphore(0), threading.Event()
        self.order: list[bytes] = []

    def __call__(self, data: bytes, spec: ImageSpec, max_pixels: int) -> Pixels:
        self.order.append(data)
        self.begun.release()
        assert self.gate.wait(30), "the test never opened the gate"
        if data.startswith(b"bad"):
            raise ImageError("bad")
        return np.full(spec.shape, data[0], np.uint8)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held()
    monkeypatch.setattr(module, "decode_image", held)
    return held


def small(first: int, count: int) -> list[bytes]:
    return [bytes([first + i]) for i in range(count)]


async def test_a_persons_file_waits_for_what_is_being_decoded_and_not_for_the_pile(held: Held) -> None:
    decoder = Decoder(ImageSpec(1, 1, 1), threads=1)
    pile = asyncio.create_task(decoder.decode(small(0, 64), "bulk"))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    person = asyncio.create_task(decoder.decode([b"p"]))
    await settle()
    held.gate.set()
    await asyncio.gather(pile, person)
    assert held.order == [*small(0, 16), b"p", *small(16, 48)]
    await decoder.close()


async def test_a_large_file_is_waited_for_alone(held: Held) -> None:
    decoder = Decoder(ImageSpec(1, 1, 1), threads=1)
    large = [bytes([n]) * (200 << 10) for n in range(3)]
    pile = asyncio.create_task(decoder.decode(large, "bulk"))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    person = asyncio.create_task(decoder.decode([b"p"]))
    await settle()
    held.gate.set()
    await asyncio.gather(pile, person)
    assert held.order == [large[0], b"p", *large[1:]]
    await decoder.close()


async def test_a_pile_keeps_a_quarter_of_the_turns_while_people_wait(held: Held) -> None:
    decoder = Decoder(ImageSpec(1, 1, 1), threads=1)
    plug = asyncio.create_task(decoder.decode([b"-"]))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    pile = asyncio.create_task(decoder.decode([b"b" * (200 << 10)] * 3, "bulk"))
    people = [asyncio.create_task(decoder.decode([b"p"])) for _ in range(9)]
    await settle()
    held.gate.set()
    await asyncio.gather(plug, pile, *people)
    assert b"".join(data[:1] for data in held.order) == b"-pppbpppbpppb"
    await decoder.close()


async def test_files_whose_caller_has_left_are_not_decoded(held: Held) -> None:
    decoder = Decoder(ImageSpec(1, 1, 1), threads=1)
    gone = asyncio.create_task(decoder.decode(small(0, 64), "bulk"))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    stays = asyncio.create_task(decoder.decode([b"p"], "bulk"))
    await settle()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    held.gate.set()
    await stays
    assert held.order == [*small(0, 1), b"p"]
    await decoder.close()


async def test_files_whose_caller_has_left_are_not_kept(held: Held) -> None:
    decoder = Decoder(ImageSpec(1, 1, 1), threads=1)
    plug = asyncio.create_task(decoder.decode([b"-"]))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    waits = asyncio.create_task(decoder.decode([b"p"]))
    await settle()
    large = bytes(range(256)) * 2000
    others = sys.getrefcount(large)
    gone = asyncio.create_task(decoder.decode([large]))
    await settle()
    assert sys.getrefcount(large) > others
    gone.cancel()
    await asyncio.wait([gone])
    del gone
    assert sys.getrefcount(large) == others
    held.gate.set()
    await asyncio.gather(plug, waits)
    await decoder.close()


async def test_a_chunk_that_takes_long_lets_others_go_first(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TURN_S", 0.0)
    decoder = Decoder(ImageSpec(1, 1, 1), threads=1)
    pile = asyncio.create_task(decoder.decode(small(0, 3), "bulk"))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    person, other = asyncio.create_task(decoder.decode([b"p", b"q"])), asyncio.create_task(decoder.decode([b"r"]))
    await settle()
    held.gate.set()
    images, _ = await pile
    await asyncio.gather(person, other)
    assert images.ravel().tolist() == [0, 1, 2]
    assert held.order == [b"\0", b"p", b"r", b"q", b"\1", b"\2"]
    await decoder.close()


async def test_a_decoder_that_closes_ends_the_file_that_is_being_decoded_and_cancels_the_rest(held: Held) -> None:
    decoder = Decoder(ImageSpec(1, 1, 1), threads=1)
    waiting = asyncio.create_task(decoder.decode(small(0, 64), "bulk"))
    assert await asyncio.to_thread(held.begun.acquire, timeout=30)
    closing = asyncio.create_task(decoder.close())
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await settle()
    assert not closing.done()
    held.gate.set()
    await closing
    assert held.order == small(0, 1)


async def test_a_failure_of_the_decoding_itself_is_the_requests_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(data: bytes, spec: ImageSpec, max_pixels: int) -> Pixels:
        if data == b"!":
            raise MemoryError
        return np.full(spec.shape, data[0], np.uint8)

    monkeypatch.setattr(module, "decode_image", failing)
    decoder = Decoder(ImageSpec(1, 1, 1), threads=2)
    failed, good = await asyncio.gather(decoder.decode([b"a", b"!"]), decoder.decode([b"b"]), return_exceptions=True)
    assert isinstance(failed, MemoryError)
    assert not isinstance(good, BaseException)
    assert good[0].ravel().tolist() == [ord("b")]
    await decoder.close()


@settings(max_examples=50, deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.sampled_from([b"a", b"b" * 1000, b"c" * (100 << 10), b"bad", b"d"]), max_size=50), st.booleans()
        ),
        min_size=1,
        max_size=6,
    ),
    threads=st.integers(1, 3),
)
def test_each_request_gets_its_own_images_in_their_order(
    requests: list[tuple[list[bytes], bool]], threads: int
) -> None:
    async def scenario() -> None:
        decoder = Decoder(ImageSpec(1, 1, 1), threads)
        calls = [decoder.decode(files, "bulk" if is_bulk else "interactive") for files, is_bulk in requests]
        for (files, _), (images, errors) in zip(requests, await asyncio.gather(*calls), strict=True):
            assert images.ravel().tolist() == [file[0] for file in files if file != b"bad"]
            assert list(errors) == [i for i, file in enumerate(files) if file == b"bad"]
        await decoder.close()

    held = Held()
    held.gate.set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "decode_image", held)
        asyncio.run(scenario())


async def test_nothing_but_bad_images_is_an_empty_tensor() -> None:
    decoder = Decoder(ImageSpec(4, 4, 3), threads=1)
    images, errors = await decoder.decode([b"x", b"y"])
    await decoder.close()
    assert (images.shape, images.dtype, list(errors)) == ((0, 4, 4, 3), np.uint8, [0, 1])
