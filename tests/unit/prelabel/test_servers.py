import pytest

from prelabel.errors import InputError
from prelabel.retry import FIRST_DELAY_S
from prelabel.servers import Servers
from support.clients import Time


def test_the_least_busy_server_is_next_and_equally_busy_ones_take_turns() -> None:
    servers = Servers("a:1, b:1,c:1", Time().clock)
    taken = [servers.take(1) for _ in range(6)]
    assert [server.address for server in taken] == ["a:1", "b:1", "c:1"] * 2
    servers.give_back(taken[1], 1)
    assert servers.take(8).address == "b:1"
    assert [servers.take(1).address for _ in range(3)] == ["a:1", "c:1", "a:1"]


def test_a_server_that_failed_is_skipped_for_a_while_longer_each_time_until_it_answers() -> None:
    time = Time()
    servers = Servers(["a:1", "b:1"], time.clock)
    a, b = servers.every()
    for failures in range(1, 4):
        servers.failed(a, 0.0)
        assert not servers.is_one_up([b])
        time.sleep(FIRST_DELAY_S * 2.0 ** (failures - 1))
        assert servers.is_one_up([b])
    servers.failed(a, 7.0)
    time.sleep(6.9)
    assert [servers.take(1) for _ in range(3)] == [b] * 3
    servers.succeeded(a)
    assert servers.take(1) is a


def test_where_no_server_is_up_the_one_that_is_back_first_is_tried() -> None:
    servers = Servers(["a:1", "b:1"], Time().clock)
    a, b = servers.every()
    servers.failed(a, 3.0)
    servers.failed(b, 2.0)
    assert servers.take(1) is b
    assert not servers.is_one_up([])


def test_a_server_that_was_just_tried_comes_after_the_others() -> None:
    servers = Servers(["a:1", "b:1"], Time().clock)
    a, b = servers.every()
    b.load = 100
    assert servers.take(1, avoid=[a]) is b
    assert servers.is_one_up([a])
    assert not servers.is_one_up([a, b])


@pytest.mark.parametrize("addresses", ["a:1,", "a:1,b", "http://a:1", "GRPC://a:1", ["a:1", ""], ["a:1,b:2"]])
def test_every_address_needs_host_and_port(addresses: str | list[str]) -> None:
    with pytest.raises(InputError, match="HOST:PORT"):
        Servers(addresses, Time().clock)


def test_no_address_and_the_same_one_twice_are_refused() -> None:
    with pytest.raises(InputError, match="no server address"):
        Servers([], Time().clock)
    with pytest.raises(InputError, match="a:1 was given twice"):
        Servers("b:1,a:1,a:1", Time().clock)


def test_ipv6_addresses_are_understood() -> None:
    assert [server.address for server in Servers("[::1]:5,[::2]:5", Time().clock).every()] == ["[::1]:5", "[::2]:5"]
