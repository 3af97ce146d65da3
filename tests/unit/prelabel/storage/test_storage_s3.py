"""An S3-compatible server: what only a real store does, from pages of a listing to what it refuses."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prelabel.bulk import BulkConfig, run_bulk
from prelabel.errors import InputError, StorageError
from prelabel.sources import open_source
from prelabel.storage import open_storage
from prelabel.storage_remote import READ_AT_ONCE, RemoteStorage
from prelabel.table import read_predictions
from support.buckets import bulk, png
from support.object_store import BUCKET, KEY, SECRET, ObjectStore, deny, environment
from support.samples import ListPredictor


def test_a_listing_of_several_pages_is_whole(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "10")  # of a real store it is a thousand
    s3.put(**{f"{i:04d}.png": b"" for i in range(25)})
    assert len(s3.names()) == 10
    assert [name for name, _ in open_storage(f"s3://{BUCKET}").walk()] == [f"{i:04d}.png" for i in range(25)]
    monkeypatch.delenv("MOTO_S3_DEFAULT_MAX_KEYS")


def test_folders_that_a_console_made_are_no_files(s3: ObjectStore) -> None:
    s3.put(**{"a/": b"", "a/b.png": b"1"})
    assert open_storage(f"s3://{BUCKET}/a").names() == ["b.png"]
    assert list(open_storage(f"s3://{BUCKET}").walk()) == [("a/b.png", 1)]


@pytest.mark.parametrize(
    "ask",
    [
        lambda url: open_source(url),
        lambda url: open_storage(url).names(),
        lambda url: list(open_storage(url).walk()),
        lambda url: open_storage(url).read("x"),
        lambda url: list(open_storage(url).read_many(["x"])),
        lambda url: open_storage(url).write("x", lambda file: file.write(b"")),
        lambda url: open_storage(url).lock().__enter__(),
    ],
)
def test_a_bucket_that_does_not_exist_is_named(s3: ObjectStore, ask: Any) -> None:
    with pytest.raises(StorageError, match=r"s3://elsewhere/x: there is no bucket 'elsewhere'"):
        ask("s3://elsewhere/x")


def test_missing_credentials_say_where_they_come_from(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match=r"Unable to locate credentials \(set AWS_ACCESS_KEY_ID"):
        open_source(f"s3://{BUCKET}/x")


def test_a_server_that_is_away_ends_the_run_and_what_is_done_is_kept(
    s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    s3.put(**{f"{i:03d}.png": png(i) for i in range(100)})
    source = open_source(f"s3://{BUCKET}")
    predictor = ListPredictor()
    read_many = RemoteStorage.read_many

    def then_away(self: RemoteStorage, names: Any) -> Iterator[bytes | OSError]:
        yield from read_many(self, names[:READ_AT_ONCE])
        environment(monkeypatch, "http://127.0.0.1:9")
        yield from read_many(RemoteStorage("s3", BUCKET), names[READ_AT_ONCE:])

    monkeypatch.setattr(RemoteStorage, "read_many", then_away)
    config = BulkConfig(tmp_path / "out", shard_size=10, batch_size=5, window=1, decode_threads=1)
    with pytest.raises(
        StorageError, match=r"Could not connect .* images are done and kept in .*: run the same command"
    ):
        run_bulk(config, source, "pile", predictor, progress="none")
    monkeypatch.setattr(RemoteStorage, "read_many", read_many)
    environment(monkeypatch, s3.url)
    summary = run_bulk(config, source, "pile", ListPredictor(), progress="none")
    assert (summary.images, summary.errors) == (100, 0)
    assert summary.shards_skipped > 0
    assert read_predictions(tmp_path / "out")["id"].to_pylist() == [f"{i:03d}.png" for i in range(100)]


def test_access_denied_to_one_object_is_an_error_row_and_to_all_ends_the_run(s3: ObjectStore) -> None:
    s3.put(**{f"{i:03d}.png": png(i) for i in range(READ_AT_ONCE + 1)})
    deny(s3, "s3:GetObject", f"{BUCKET}/003.png")
    found = list(open_source(f"s3://{BUCKET}").read(0, 6))
    assert [one.error is not None for one in found] == [i == 3 for i in range(6)]
    deny(s3, "s3:GetObject", f"{BUCKET}/*")
    with pytest.raises(StorageError, match="access denied to 64 objects in a row"):
        list(open_source(f"s3://{BUCKET}").read(0, READ_AT_ONCE + 1))


def test_an_output_that_may_not_be_written_is_named(s3: ObjectStore) -> None:
    deny(s3, "s3:PutObject", f"{BUCKET}/*")
    with (
        pytest.raises(InputError, match=rf"--output s3://{BUCKET}/out cannot be written"),
        open_storage(f"s3://{BUCKET}/out").lock(),
    ):
        pass


def test_keys_that_the_store_does_not_know_end_the_run() -> None:
    class ClientError(Exception):
        def __init__(self) -> None:
            self.response = {"Error": {"Code": "InvalidAccessKeyId", "Message": "no such key"}}

    refused = PermissionError("The key does not exist in our records")
    refused.__cause__ = ClientError()
    with pytest.raises(StorageError, match="does not exist in our records"):
        RemoteStorage("memory", "x")._checked(refused)


def test_credentials_are_in_no_log_row_or_error(s3: ObjectStore, caplog: pytest.LogCaptureFixture) -> None:
    s3.put(**{"pile/a.png": png(0), "pile/b.png": b"broken"})
    deny(s3, "s3:GetObject", f"{BUCKET}/pile/c.png")
    s3.put(**{"pile/c.png": png(1)})
    with caplog.at_level(logging.INFO):
        bulk(f"s3://{BUCKET}/pile", f"s3://{BUCKET}/out")
    texts = [caplog.text]
    with pytest.raises(StorageError) as caught:
        open_source("s3://elsewhere/x")
    texts.append(str(caught.value))
    texts += [s3.client.get_object(Bucket=BUCKET, Key=key)["Body"].read().decode("latin-1")
              for key in s3.names() if key.startswith("out/")]  # fmt: skip
    assert all(KEY not in text and SECRET not in text for text in texts)
