"""A server of several versions in this process, and what an operator sees of it. Models are real bundles."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import grpc.aio
from conftest import tiny_images

from prelabel.engine import Engine, load_engine
from prelabel.v1 import admin_pb2 as admin_pb
from prelabel.v1 import prelabel_pb2 as pb
from prelabel.v1.admin_pb2_grpc import AdminServiceStub
from prelabel.v1.prelabel_pb2_grpc import PrelabelServiceStub
from serving.config import Config
from serving.models import Models
from serving.server import Server

TENSOR = pb.ImageTensor(shape=(1, 8, 8, 1), dtype=pb.DATA_TYPE_UINT8, data=tiny_images([230]).tobytes())
TOKEN = "the-token-of-operators"
"""Only tokens with the role admin reach the AdminService: tests set PRELABEL_TOKENS."""
SERVING, DRAINING, FAILED = admin_pb.MODEL_STATE_SERVING, admin_pb.MODEL_STATE_DRAINING, admin_pb.MODEL_STATE_FAILED
StubT = TypeVar("StubT")


def load(directory: Path) -> Engine:
    return load_engine(directory, "cpu", threads=1)


class HeldLoad:
    """Loads the version `held` only when the test opens the gate."""

    def __init__(self, held: str) -> None:
        self.held = held
        self.begun, self.gate = threading.Event(), threading.Event()
        self.loads: list[str] = []

    def __call__(self, directory: Path) -> Engine:
        self.loads.append(directory.name)
        if directory.name == self.held:
            self.begun.set()
            assert self.gate.wait(10), "the server waited for the load"
        return load(directory)


@asynccontextmanager
async def serving(
    root: Path, load: Callable[[Path], Engine] = load, **options: object
) -> AsyncIterator[tuple[PrelabelServiceStub, AdminServiceStub]]:
    config = Config(root, port=0, **{"instances": 1, "reload_every_s": 0.0, **options})
    models = Models(root, load, config)
    await models.open()
    server = Server(models, config)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield _authorised(PrelabelServiceStub(channel)), _authorised(AdminServiceStub(channel))
    await server.stop()


def _authorised(stub: StubT) -> StubT:
    """The same stub, whose calls show the token."""
    for name, method in vars(stub).items():
        setattr(stub, name, partial(method, metadata=(("authorization", f"Bearer {TOKEN}"),)))
    return stub


async def listed(admin: AdminServiceStub) -> dict[str, tuple[int, bool]]:
    """Version -> its state, and whether it is the default."""
    answer = await admin.ListModels(admin_pb.ListModelsRequest())
    return {model.version: (model.state, model.is_default) for model in answer.models}
