"""A Label Studio in memory behind a real socket: the endpoints that prelabel uses, with the quirks of 1.23.2."""

import base64
import json
import threading
import time
import urllib.parse
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

LEGACY_TOKEN = "0123456789abcdef0123456789abcdef01234567"
NOW = "2026-11-25T02:24:36.334574Z"
PAGE = b"\n\n<!doctype html>\n<html lang='en'><title>Label Studio</title></html>"

Fault = Literal["refuse", "drop", "lose", "late", "busy", "proxy"]
"""What happens to a POST: 500 and not done; done and no answer; not done and no answer; done when somebody has looked
a few times, answered with 504 at once; 429; done, and a proxy answers 502 with a page."""


def jwt(**fields: object) -> str:
    return ".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, fields, "s")
    )


PERSONAL_TOKEN = jwt(token_type="refresh", exp=8102773484, iat=1795573484, jti="one")


def config(*choices: str) -> str:
    listed = "".join(f'<Choice value="{choice}"/>' for choice in choices)
    return (
        '<View><Image name="image" value="$image"/><Choices name="label" toName="image" choice="single">'
        f"{listed}</Choices></View>"
    )


class LabelStudioDouble:
    """One project, number 7."""

    def __init__(self, label_config: str) -> None:
        self.label_config = label_config
        self.tasks: list[dict[str, Any]] = []
        self.faults: deque[Fault | None] = deque()
        """What happens to the next POSTs of tasks or predictions."""
        self.most_items = 10_000
        """Larger requests are 413."""
        self.posts: list[tuple[str, int]] = []
        """Path and number of items of each POST that arrived."""
        self.late_looks = 2
        """After so many looks at its tasks it has done what is late."""
        self.access_tokens: list[str] = []
        self.access_lifetime_s = 300
        self.url = ""
        self._waiting: list[tuple[int, Callable[[], object]]] = []
        self._next = 100
        self._lock = threading.RLock()

    def add_task(self, data: dict[str, Any], predictions: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        with self._lock:
            # Other projects have tasks, too: ids have gaps.
            self._next += 1 if self._next % 5 else 700
            task = {
                "id": self._next,
                "data": data,
                "predictions": predictions or [],
                "annotations": [],
                "updated_at": NOW,
            }
            self.tasks.append(task)
            return task

    def annotate(
        self,
        uid: str,
        choice: str | list[str],
        *,
        by: int = 1,
        cancelled: bool = False,
        at: str = NOW,
        truth: bool = False,
    ) -> None:
        (task,) = [task for task in self.tasks if task["data"].get("uid") == uid]
        task["updated_at"] = at
        choices = [choice] if isinstance(choice, str) else choice
        result = [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": choices}}]
        task["annotations"].append(
            {
                "id": 1 + sum(len(one["annotations"]) for one in self.tasks),
                "result": result if choices else [],
                "completed_by": by,
                "was_cancelled": cancelled,
                "ground_truth": truth,
                "updated_at": at,
                "lead_time": None,
            }
        )

    def answer(self, method: str, path: str, query: dict[str, str], body: Any, authorization: str) -> tuple[int, Any]:
        """Returns status and JSON; bytes for a page, None for no answer at all."""
        if path == "/api/token/refresh" and method == "POST":
            if body != {"refresh": PERSONAL_TOKEN}:
                return 401, {"detail": "Token is invalid", "status_code": 401}
            self.access_tokens.append(jwt(iat=1000, exp=1000 + self.access_lifetime_s, n=len(self.access_tokens)))
            return 200, {"access": self.access_tokens[-1]}
        if authorization not in {f"Token {LEGACY_TOKEN}", *(f"Bearer {token}" for token in self.access_tokens[-1:])}:
            return 401, {
                "detail": "Invalid token." if authorization else "Authentication credentials were not provided."
            }
        if path.startswith("/api/projects/") and not path.startswith("/api/projects/7/"):
            return 404, {"detail": "No Project matches the given query.", "status_code": 404}
        match method, path:
            case "GET", "/api/projects/7/":
                return 200, {"id": 7, "title": "cats", "label_config": self.label_config, "model_version": ""}
            case "GET", "/api/tasks":
                return 200, self._list(query)
            case "POST", "/api/projects/7/import":
                return self._post(path, body, self._import)
            case "POST", "/api/projects/7/import/predictions":
                return self._post(path, body, self._import_predictions)
        return 404, PAGE

    def _post(self, path: str, items: list[Any], do: Callable[[list[Any]], tuple[int, Any]]) -> tuple[int, Any]:
        self.posts.append((path, len(items)))
        if len(items) > self.most_items:
            return 413, b"<html>Request Entity Too Large</html>"
        match self.faults.popleft() if self.faults else None:
            case "refuse":
                return 500, {"detail": "database is locked"}
            case "lose":
                return 0, None
            case "busy":
                return 429, {"detail": "Request was throttled."}
            case "late":
                self._waiting.append((self.late_looks, lambda: do(items)))
                return 504, b"<html>Gateway Time-out</html>"
            case "drop":
                do(items)
                return 0, None
            case "proxy":
                do(items)
                return 502, b"<html>Bad Gateway</html>"
        return do(items)

    def _import(self, items: list[Any]) -> tuple[int, Any]:
        for i, item in enumerate(items):
            if "image" not in item["data"]:
                reason = f'Error at item {i}: "image" key is expected in task data'
                return 400, {"detail": "Validation error", "validation_errors": {"non_field_errors": [reason]}}
        made = [self.add_task(item["data"], item.get("predictions")) for item in items]
        count = sum(len(one["predictions"]) for one in made)
        ids = [task["id"] for task in made]
        return 201, {"task_count": len(made), "annotation_count": 0, "prediction_count": count, "task_ids": ids}

    def _import_predictions(self, items: list[Any]) -> tuple[int, Any]:
        by_id = {task["id"]: task for task in self.tasks}
        for item in items:
            by_id[item["task"]]["predictions"].append({key: item[key] for key in item if key != "task"})
        return 201, {"created": len(items)}

    def _list(self, query: dict[str, str]) -> dict[str, Any]:
        with self._lock:
            due = [do for looks, do in self._waiting if looks == 0]
            self._waiting = [(looks - 1, do) for looks, do in self._waiting if looks > 0]
            for do in due:
                do()
        asked = json.loads(query["query"])
        found = [task for task in self.tasks if all(_meets(task, one) for one in asked["filters"]["items"])]
        found.sort(key=lambda task: task["id"], reverse=asked["ordering"] == ["-tasks:id"])
        include = set(query["include"].split(","))
        page = [_pruned(task, include, query) for task in found[: int(query["page_size"])]]
        return {"total_annotations": 0, "total_predictions": 0, "total": len(found), "tasks": page}


def _meets(task: dict[str, Any], condition: dict[str, Any]) -> bool:
    value = condition["value"]
    counted = [one for one in task["annotations"] if not one["was_cancelled"]]
    match condition["filter"].removeprefix("filter:tasks:"), condition["operator"]:
        case "id", "in":
            return bool(value["min"] <= task["id"] <= value["max"])
        case "predictions_model_versions", "contains":
            return any(part in one["model_version"] for one in task["predictions"] for part in value)
        case "total_annotations", "greater":
            return len(counted) > value
        case "cancelled_annotations", "greater":
            return len(task["annotations"]) - len(counted) > value
        case "updated_at", "greater":
            time.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")  # anything else is a 500
            return bool(task["updated_at"] > value)
    raise AssertionError(f"{condition} is not known")


def _pruned(task: dict[str, Any], include: set[str], query: dict[str, str]) -> dict[str, Any]:
    """`include` holds for what is inside of annotations, too, and without fields=all there are none."""
    kept = {key: value for key, value in task.items() if key in include and key != "predictions"}
    if query.get("fields") != "all":
        kept.pop("annotations", None)
    elif "annotations" in kept:
        kept["annotations"] = [
            {key: value for key, value in one.items() if key in include | {"id"}} for one in task["annotations"]
        ]
    return kept


@contextmanager
def run_label_studio(*choices: str) -> Iterator[LabelStudioDouble]:
    """Serves one on a free port."""
    double = LabelStudioDouble(config(*choices))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # headers and body are two writes: the second would wait 40 ms

        def do_GET(self) -> None:
            self._do()

        def do_POST(self) -> None:
            self._do()

        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urllib.parse.urlsplit(self.path)
            query = dict(urllib.parse.parse_qsl(parts.query))
            authorization = self.headers.get("Authorization", "")
            status, content = double.answer(
                self.command, parts.path, query, json.loads(body) if body else None, authorization
            )
            if status == 0:
                self.close_connection = True
                return
            page = isinstance(content, bytes)
            data = content if page else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html; charset=utf-8" if page else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        double.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield double
        finally:
            server.shutdown()
            thread.join()
