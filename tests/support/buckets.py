"""Object stores with images in them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from prelabel.bulk import BulkConfig, BulkSummary, run_bulk
from prelabel.sources import open_source
from prelabel.storage import Storage, open_storage
from support.samples import ListPredictor


def fill(root: str, **objects: bytes) -> Storage:
    storage = open_storage(root)
    for name, content in objects.items():
        storage.write(name, lambda file, content=content: file.write(content))
    return storage


def png(value: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.array([[value, 0], [0, 0]], np.uint8)).save(file, "PNG")
    return file.getvalue()


def bulk(source: str, output: str | Path, **options: Any) -> BulkSummary:
    options = {"shard_size": 10, "batch_size": 4, "decode_threads": 1, **options}
    return run_bulk(BulkConfig(output, **options), open_source(source), source, ListPredictor(), progress="none")
