"""The models that a server answers with: found in a directory, loaded, swapped while requests are in flight.

A new version is loaded, verified and warmed up beside the old one; then new requests go to it in one step, and the old
one goes when the last request that uses it is answered. A stream keeps the model that it began with. A bundle that
cannot be loaded changes nothing: what was served stays served, and `statuses` says why.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prelabel.engine import Engine
from prelabel.errors import BundleError, InputError, ModelNotFoundError, PrelabelError, ServerUnavailableError
from serving.config import Config
from serving.failures import Failure, failed
from serving.model import Model, start_model
from serving.model_status import State, Status
from serving.repository import Found, scan, select
from serving.requests import Requests
from serving.workers import in_a_thread_that_gives_way

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Served:
    model: Model
    signature: str
    users: int = 0
    unused: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.unused.set()


class Models:
    """Holds the served versions. Must be used in one running event loop.

    Args:
        root: A bundle, or a folder of bundles.
        load: Loads, verifies and warms up a bundle; runs in a thread.
        config: The server's options.
        requests: Follows the requests to these models; default: without observers.
    """

    def __init__(
        self, root: Path, load: Callable[[Path], Engine], config: Config, requests: Requests | None = None
    ) -> None:
        self._root, self._load, self._config = root, load, config
        self.requests = requests or Requests()
        self._served: dict[str, _Served] = {}
        """By version, the latest last."""
        self._failed: dict[str, Failure] = {}
        """By version: what could not be loaded."""
        self._retiring: dict[asyncio.Task[None], _Served] = {}
        self._reloading = asyncio.Lock()
        self._reloads: set[asyncio.Task[None]] = set()
        """What was asked for and goes on, whether or not who asked still waits."""
        self._opened = False
        """What is loaded before is told by the line that says that the server serves."""

    @classmethod
    def of(cls, engine: Engine | None, config: Config, requests: Requests | None = None) -> "Models":
        """Returns models with one engine that is loaded already, or with none."""
        models = cls(config.model, _nothing_to_load, config, requests)
        if engine is not None:
            model_id = engine.bundle.model_id
            models._served[model_id] = _Served(start_model(engine, config, model_id, models.requests), "")
        return models

    async def open(self) -> None:
        """Loads what is to be served; in the place of a latest version that cannot be loaded, the one before.

        So a server that starts anew serves what one that ran on would.

        Raises:
            PrelabelError: Nothing can be served: why the latest version cannot.
        """
        await self.reload()
        if not self._served:
            version, failure = next(reversed(self._failed.items()))
            if self._config.versions == "latest":
                await self._open_an_older_one()
            if not self._served:
                raise BundleError(failure.error)
            self._failed = {version: failure}
            extra = {"version": version, "serving": next(iter(self._served)), "reason": failure.error}
            logger.error("the latest model was not loaded, an older one serves", extra=extra)
        self._opened = True

    async def _open_an_older_one(self) -> None:
        found = await asyncio.to_thread(scan, self._root)
        for bundle in reversed(found[:-1]):
            await self._load_one(bundle)
            if self._served:
                return

    @property
    def default(self) -> Model | None:
        """The model of requests that name no version: the latest."""
        return next(reversed(self._served.values())).model if self._served else None

    def loaded(self) -> list[Model]:
        """Returns every model in memory, those on their way out included; any thread may ask."""
        return [served.model for served in [*self._served.values(), *self._retiring.values()]]

    @property
    def failed(self) -> int:
        """How many versions could not be loaded; any thread may ask."""
        return len(self._failed)

    @contextlib.contextmanager
    def lease(self, version: str = "") -> Iterator[Model]:
        """Gives a model to a request for as long as it is in flight.

        Args:
            version: A version or a model_id; empty for the latest version.

        Raises:
            ServerUnavailableError: There is no model.
            ModelNotFoundError: That version is not served here.
        """
        served = self._find(version)
        served.users += 1
        served.unused.clear()
        try:
            yield served.model
        finally:
            served.users -= 1
            if not served.users:
                served.unused.set()

    def _find(self, version: str) -> _Served:
        if not self._served:
            raise ServerUnavailableError("the server holds no model: start it with --model BUNDLE_DIRECTORY")
        if not version:
            return next(reversed(self._served.values()))
        for served in reversed(self._served.values()):
            if version in (served.model.version, served.model.engine.bundle.model_id):
                return served
        raise ModelNotFoundError(
            f"model version {version[:80]!r} is not served here, but {', '.join(self._served)} (or their model_ids)"
        )

    async def reload(self) -> None:
        """Looks at the directory and brings what is served in line with it, also where who asks leaves before the end.

        Bundles that could not be loaded are tried again, even if they have not changed since.

        Raises:
            PrelabelError: The directory holds no bundle, or not the wanted versions. What was served stays served.
        """
        task = asyncio.create_task(self._reload(retry_failed=True))
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)
        await asyncio.shield(task)

    async def _reload(self, *, retry_failed: bool) -> None:
        async with self._reloading:
            found = await asyncio.to_thread(scan, self._root)
            wanted, missing = select(found, self._config.versions)
            names = [bundle.version for bundle in wanted]
            if missing and not (wanted and self._opened):
                here = ", ".join(bundle.version for bundle in found)
                raise InputError(f"--versions {self._config.versions}: there is no {', '.join(missing)}, but {here}")
            for name in missing:
                self._note(name, "", "its folder is not there")
            # The latest first: requests that name no version must not get an older one while the rest is loaded.
            for bundle in reversed(wanted):
                served = self._served.get(bundle.version)
                before = self._failed.get(bundle.version)
                if served is not None and served.signature == bundle.signature:
                    self._failed.pop(bundle.version, None)
                elif retry_failed or before is None or before.signature != bundle.signature or before.is_due:
                    await self._load_one(bundle)
                    self._served = {name: self._served[name] for name in self._in_order(names)}
            self._failed = {name: self._failed[name] for name in [*missing, *names] if name in self._failed}
            # A version that is wanted no longer goes when a wanted one is there to answer.
            if any(name in self._served for name in names):
                for name in [name for name in self._served if name not in names]:
                    self._retire(self._served.pop(name))
            self._served = {name: self._served[name] for name in self._in_order(names)}

    def _in_order(self, names: list[str]) -> list[str]:
        """The served versions, the latest last; what is kept for want of a better one comes first."""
        return [name for name in self._served if name not in names] + [name for name in names if name in self._served]

    async def _load_one(self, bundle: Found) -> None:
        try:
            # An engine's own threads inherit the priority of the thread that starts them.
            engine = await in_a_thread_that_gives_way(lambda: self._load(bundle.directory))
            model = start_model(engine, self._config, bundle.version, self.requests)
        except Exception as error:  # a runtime raises what it likes over a graph that it cannot run
            known = isinstance(error, PrelabelError | OSError)
            message = (
                " ".join(str(error).split()) if known else f"{type(error).__name__}: {' '.join(str(error).split())}"
            )
            self._note(bundle.version, bundle.signature, message)
            return
        self._failed.pop(bundle.version, None)
        old = self._served.pop(bundle.version, None)
        self._served[bundle.version] = _Served(model, bundle.signature)
        if self._opened:
            logger.info(
                "model loaded",
                extra={
                    "version": bundle.version,
                    "model_id": engine.bundle.model_id,
                    "execution_provider": engine.execution_provider,
                },
            )
        if old is not None:
            self._retire(old)

    def _note(self, version: str, signature: str, error: str) -> None:
        """Keeps why a version is not loaded, and logs it, but not twice in a row."""
        before = self._failed.get(version)
        self._failed[version] = failed(before, signature, error)
        said = before is not None and before.error == error
        if (self._opened or self._served) and not said:
            logger.error("a model was not loaded", extra={"version": version, "reason": error})

    def _retire(self, served: _Served) -> None:
        async def close() -> None:
            await served.unused.wait()
            await served.model.close()
            extra = {"version": served.model.version, "model_id": served.model.engine.bundle.model_id}
            logger.info("model unloaded", extra=extra)

        task = asyncio.create_task(close())
        self._retiring[task] = served
        task.add_done_callback(self._retiring.pop)

    async def watch(self, every_s: float) -> None:
        """Reloads when the directory changes, until it is cancelled; what goes wrong is logged once."""
        said = ""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self._reload(retry_failed=False)
                said = ""
            except PrelabelError as error:
                if str(error) != said:
                    said = str(error)
                    logger.error("the models' directory cannot be read; serving goes on", extra={"reason": said})

    def statuses(self) -> list[Status]:
        """Returns every version that is served, on its way out, or could not be loaded."""
        states: list[tuple[_Served, State]] = [(served, "serving") for served in self._served.values()]
        states += [(served, "draining") for served in self._retiring.values()]
        default = self.default
        return [
            Status(
                served.model.version,
                state,
                served.model.engine.bundle.model_id,
                served.model.engine.execution_provider,
                served.model is default,
                served.users,
            )
            for served, state in states
        ] + [Status(version, "failed", error=failure.error) for version, failure in self._failed.items()]

    def hurry(self) -> None:
        """Lets no batch wait for company any more."""
        for served in [*self._served.values(), *self._retiring.values()]:
            served.model.batcher.hurry()

    async def close(self) -> None:
        """Answers what was accepted and lets go of every model; a model that is being loaded comes too late."""
        for task in self._reloads:
            task.cancel()
        await asyncio.gather(*self._reloads, return_exceptions=True)
        for served in self._served.values():
            await served.model.close()
        self._served = {}
        for served in self._retiring.values():
            served.unused.set()  # the calls were ended by the server
        await asyncio.gather(*self._retiring)


def _nothing_to_load(directory: Path) -> Engine:
    raise BundleError(f"{directory} is not loaded by this server")
