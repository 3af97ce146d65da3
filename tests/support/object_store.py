"""A real S3-compatible server in this process, on a port of its own; needs the dependency group `object-store`."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

BUCKET = "pile"
KEY, SECRET = "AKIDEXAMPLE0000", "hunter2-secret"


@dataclass
class ObjectStore:
    """The server."""

    url: str
    client: Any
    """A boto3 client."""

    def put(self, **objects: bytes) -> None:
        for key, content in objects.items():
            self.client.put_object(Bucket=BUCKET, Key=key, Body=content)

    def names(self) -> list[str]:
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket=BUCKET).get("Contents", ())]


@contextlib.contextmanager
def object_store(patch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """Starts the server with one empty bucket, and sets the environment so that S3 means it."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        environment(patch, f"http://{host}:{port}")
        import boto3

        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
        client.create_bucket(Bucket=BUCKET)
        yield ObjectStore(f"http://{host}:{port}", client)
    finally:
        server.stop()


def environment(patch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Points S3 clients that are made from now on to an endpoint."""
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }.items():
        patch.setenv(name, value)


def deny(store: ObjectStore, action: str, resource: str) -> None:
    """Lets nobody do something."""
    statement = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{resource}"}
    store.client.put_bucket_policy(
        Bucket=BUCKET, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    )
