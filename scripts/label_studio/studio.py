"""A Label Studio of its own: its environment, its process, and what a person would do in it, by its API."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VERSION = "1.23.2"
ENVIRONMENT = Path(".venv-label-studio")
NEEDED_BYTES = 1_500_000_000
START_S = 600.0
"""The first start makes a database: 86 s on two busy cores."""


def install() -> Path:
    """Makes the environment where it is not there yet (1 GB) and returns its `label-studio`."""
    program = ENVIRONMENT / "bin/label-studio"
    done = ENVIRONMENT / f".installed-{VERSION}"
    if done.exists():
        return program
    free_bytes = shutil.disk_usage(".").free
    if free_bytes < NEEDED_BYTES:
        sys.exit(f"Label Studio needs {NEEDED_BYTES / 1e9:.1f} GB of disk, and {free_bytes / 1e9:.1f} GB are free")
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENT], check=True)
    pip = [ENVIRONMENT / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, f"label-studio=={VERSION}"], check=True)
    done.touch()
    return program


@dataclass(frozen=True)
class Studio:
    """A running Label Studio."""

    url: str
    """Its address."""
    legacy_token: str
    """Opens its API."""

    def call(self, method: str, path: str, body: object = None) -> Any:
        """Does a request and returns the JSON."""
        headers = {"Content-Type": "application/json", "Authorization": f"Token {self.legacy_token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.load(answer)

    def make_project(self, title: str, classes: list[str]) -> int:
        """Makes a project that asks for a class, or `none`, and returns its number."""
        choices = "".join(f'<Choice value="{name}"/>' for name in [*classes, "none"])
        config = (
            '<View><Image name="image" value="$image"/><Choices name="label" toName="image" choice="single">'
            f"{choices}</Choices></View>"
        )
        return int(self.call("POST", "/api/projects", {"title": title, "label_config": config})["id"])

    def tasks(self, project: int, size: int, page: int = 1, fields: str = "task_only") -> dict[str, Any]:
        """Lists a page of tasks."""
        query = {"project": project, "page": page, "page_size": size, "fields": fields, "resolve_uri": "false"}
        content: dict[str, Any] = self.call("GET", f"/api/tasks?{urllib.parse.urlencode(query)}")
        return content

    def annotate(self, task: int, choice: str, *, skipped: bool = False) -> None:
        """Answers or skips a task."""
        value = {"choices": [choice]}
        result = [{"from_name": "label", "to_name": "image", "type": "choices", "value": value}]
        self.call("POST", f"/api/tasks/{task}/annotations/", {"result": result, "was_cancelled": skipped})

    def personal_token(self) -> str:
        """Makes a personal access token."""
        return str(self.call("POST", "/api/token/", {})["token"])


@contextmanager
def run(folder: Path, served: Path, port: int) -> Iterator[Studio]:
    """Starts Label Studio with its data in `folder`; it serves the images below `served`. Stops it at the end."""
    token = secrets.token_hex(20)
    environment = {
        **os.environ,
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder.resolve()),
        "LABEL_STUDIO_USERNAME": "a@example.com",
        "LABEL_STUDIO_PASSWORD": secrets.token_hex(8),
        "LABEL_STUDIO_USER_TOKEN": token,
        "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
        "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true",
        "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(served.resolve()),
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        # Both, or a backend on this machine is refused.
        "ML_BLOCK_LOCAL_IP": "false",
        "SSRF_PROTECTION_ENABLED": "false",
    }
    folder.mkdir(parents=True, exist_ok=True)
    command = [install(), "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    log = folder / "label-studio.log"
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment, stdout=file, stderr=file, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        ends_s = time.monotonic() + START_S
        while not _is_up(url):
            if process.poll() is not None or time.monotonic() > ends_s:
                sys.exit(f"Label Studio did not start: see {log}")
            time.sleep(1.0)
        yield Studio(url, token)
    finally:
        # Its server is a child of its own.
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
