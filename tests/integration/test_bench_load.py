"""The load generator of `make bench-serving` against a real server."""

from scripts.bench_load import Options, load
from support.servers import RunningServer


async def test_the_load_generator_counts_what_a_real_server_answers(server: RunningServer) -> None:
    for kind in ("unary", "stream"):
        options = Options(server.address, kind, images=3, shape=(8, 8, 1), in_flight=4, streams=2, total_images=60)
        result = await load(options)
        assert result["answers"] >= 20
        assert result["images_per_s"] > 0
        assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99.9"]
