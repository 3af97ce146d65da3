"""An S3-compatible server for the tests of object stores."""

from collections.abc import Iterator

import pytest

from support.object_store import BUCKET, ObjectStore, environment, object_store


@pytest.fixture(scope="package")
def server() -> Iterator[ObjectStore]:
    pytest.importorskip("moto", reason="needs the dependency group object-store")
    with pytest.MonkeyPatch.context() as patch, object_store(patch) as store:
        yield store


@pytest.fixture
def s3(server: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The server with an empty bucket."""
    environment(monkeypatch, server.url)
    yield server
    server.client.delete_bucket_policy(Bucket=BUCKET)
    for key in server.names():
        server.client.delete_object(Bucket=BUCKET, Key=key)
