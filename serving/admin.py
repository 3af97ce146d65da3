"""prelabel.v1.AdminService: what an operator asks of the models; `serving.access` lets nobody else in."""

from typing import Any

import grpc.aio

from prelabel.errors import BundleError, InputError
from prelabel.v1 import admin_pb2 as pb
from prelabel.v1.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from serving.models import Models, State, Status

ADMIN_SERVICE = "prelabel.v1.AdminService"

_STATES: dict[State, "pb.ModelState.ValueType"] = {
    "serving": pb.MODEL_STATE_SERVING,
    "draining": pb.MODEL_STATE_DRAINING,
    "failed": pb.MODEL_STATE_FAILED,
}


class AdminService(AdminServiceServicer):
    """Lists the models and has them looked for anew."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def add_to(self, server: grpc.aio.Server) -> None:
        """Registers the service with a server that has not started."""
        add_AdminServiceServicer_to_server(self, server)

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        """Returns every version that is served, on its way out, or could not be loaded."""
        return pb.ListModelsResponse(models=map(_message, self._models.statuses()))

    async def Reload(self, request: pb.ReloadRequest, context: Any) -> pb.ReloadResponse:  # noqa: N802
        """Brings what is served in line with the directory."""
        try:
            await self._models.reload()
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
