"""prelabel.v1.AdminService: what an operator asks of the models; `serving.access` lets nobody else in."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from prelabel.errors import BundleError, InputError
from prelabel.v1 import admin_pb2 as pb
from prelabel.v1.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from serving.model_status import State, Status
from serving.models import Models

ADMIN_SERVICE = "prelabel.v1.AdminService"

_STATES: dict[State, "pb.ModelState.ValueType"] = {
    "serving": pb.MODEL_STATE_SERVING,
    "draining": pb.MODEL_STATE_DRAINING,
    "failed": pb.MODEL_STATE_FAILED,
}


class AdminService(AdminServiceServicer):
    """Lists the models and has them looked for anew.

    Args:
        models: Those of this process.
        reload_others: Has the other processes on this port do the same, and waits for them; None: there are none.
    """

    def __init__(self, models: Models, reload_others: Callable[[], Awaitable[None]] | None = None) -> None:
        self._models, self._reload_others = models, reload_others

    def add_to(self, server: Any) -> None:
        """Registers the service with a server that has not started, or with its routes."""
        add_AdminServiceServicer_to_server(self, server)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        """Returns every version that is served, on its way out, or could not be loaded."""
        return pb.ListModelsResponse(models=map(_message, self._models.statuses()))

    async def Reload(self, request: pb.ReloadRequest, context: Any) -> pb.ReloadResponse:  # noqa: N802
        """Brings what is served in line with the directory, in every process that serves on this port."""
        everywhere: list[Awaitable[None]] = [self._models.reload()]
        if self._reload_others is not None:
            everywhere.append(self._reload_others())
        try:
            await asyncio.gather(*everywhere)
        except BundleError as error:
            # Other callers must not read what it says of the server's files; operators have to.
            raise InputError(str(error)) from error
        return pb.ReloadResponse(models=map(_message, self._models.statuses()))


def _message(status: Status) -> pb.ModelStatus:
    return pb.ModelStatus(
        version=status.version,
        state=_STATES[status.state],
        model_id=status.model_id,
        execution_provider=status.execution_provider,
        is_default=status.is_default,
        users=status.users,
        error=status.error,
    )
