"""The part of CVAT's HTTP interface that `cvat_sdk.auto_annotation.annotate_task` talks to: one task of images."""

import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TASK = 1
FIRST_LABEL_ID = 100


@dataclass
class FakeCvat:
    """A task and what is uploaded to it."""

    labels: Sequence[str]
    images: Mapping[str, bytes]
    uploads: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Yields the address."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def answer(self, path: str) -> tuple[str, bytes]:
        """Returns content type and body."""
        if path == f"/api/tasks/{TASK}/data":
            return "application/zip", self._chunk()
        answers = {
            f"/api/tasks/{TASK}": self._task(),
            "/api/labels": self._labels(),
            f"/api/tasks/{TASK}/data/meta": self._meta(),
        }
        return "application/json", json.dumps(answers[path]).encode()

    def _task(self) -> dict[str, Any]:
        return {
            "id": TASK,
            "name": "task",
            "organization": None,
            "size": len(self.images),
            "data_chunk_size": len(self.images),
            "data_original_chunk_type": "imageset",
            "updated_date": "2026-01-01T00:00:00Z",
            "jobs": {"count": 0, "completed": 0, "validation": 0, "url": "http://x"},
            "labels": {"url": "http://x"},
        }

    def _labels(self) -> dict[str, Any]:
        common = {"type": "tag", "attributes": [], "sublabels": [], "color": "#000000"}
        results = [{"id": FIRST_LABEL_ID + k, "name": name, **common} for k, name in enumerate(self.labels)]
        return {"count": len(results), "next": None, "previous": None, "results": results}

    def _meta(self) -> dict[str, Any]:
        frames = [{"name": name, "width": 8, "height": 8, "related_files": 0} for name in self.images]
        return {
            "size": len(frames),
            "frames": frames,
            "deleted_frames": [],
            "chunks_updated_date": "2026-01-01T00:00:00Z",
            "image_quality": 70,
        }

    def _chunk(self) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for i, content in enumerate(self.images.values()):
                archive.writestr(f"{i:06d}.png", content)
        return file.getvalue()

    def _handler(fake) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, body = fake.answer(urlsplit(self.path).path.rstrip("/"))
                self._send(kind, body)

            def do_PATCH(self) -> None:
                fake.uploads.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                nothing = {"version": 0, "tags": [], "shapes": [], "tracks": []}
                self._send("application/json", json.dumps(nothing).encode())

            def _send(self, kind: str, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
