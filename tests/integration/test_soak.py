"""A few seconds of `make soak`: whatever is done to a server, every request gets its answer or one clear error."""

from scripts.soak.__main__ import Options, soak


def test_a_server_survives_its_clients() -> None:
    report = soak(Options(minutes=0.05, clients=8, crowd=100, results=None))
    assert report["violations"] == []
    assert report["server_starts"] == 3
    outcomes = report["outcomes"]
    for outcome in (
        "predict: right",
        "infer: right",
        "stream: right",
        "not a number: right",
        "raising: INTERNAL",
        "malformed: INVALID_ARGUMENT",
        "random bytes: INVALID_ARGUMENT",
        "oversized: RESOURCE_EXHAUSTED",
        "bomb: RESOURCE_EXHAUSTED",
        "never reads: left",
    ):
        assert outcomes[outcome] > 0, outcome
    assert any(name.startswith("intruder") for name in outcomes)
