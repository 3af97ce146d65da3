"""Every error that prelabel raises on purpose, in one tree.

    PrelabelError
    ├── InputError           what the user gave is wrong: a path, an option, a data set
    │   ├── ImageError       one image cannot be used; in bulk work it becomes an error row
    │   ├── BundleError      a model bundle is missing, incomplete or changed
    │   ├── ModelNotFoundError    a server does not serve the model or version that was asked for
    │   └── UnsupportedError      a request wants what the server does not do
    ├── StorageError         an object store does not answer, or lets this caller in nowhere; a disk is gone
    ├── DeviceError          the wanted execution device does not work here
    ├── TrainingError        training cannot go on (NaN, an unusable checkpoint)
    ├── ParityError          the exported model disagrees with the Keras model
    ├── ServerUnavailableError    no server answers, or it holds no model
    ├── OverloadedError           the server's queue is full, or this caller's share of it is used up
    ├── AccessError               the server wants a token, or another one
    ├── RemoteError          the server failed on a valid request
    │   └── ModelChangedError    it has another model than the one that answered the requests before
    └── WorkerError          a process that worked for this one died

Messages name the offending value and the fix, and hold no line breaks, so that a command can print them as one line.
"""


class PrelabelError(Exception):
    """Base of all errors raised on purpose; commands print its message and exit with status 2."""


class InputError(PrelabelError):
    """What the user gave cannot be used: a path, an option, a data set, a request."""


class ImageError(InputError):
    """One image cannot be decoded or does not fit; the rest of its batch is not concerned."""


class BundleError(InputError):
    """A model bundle is missing, incomplete, of another format, or its bytes changed."""


class ModelNotFoundError(InputError):
    """The server has models, but not the one or the version that was asked for."""


class UnsupportedError(InputError):
    """A request wants something of a protocol that the server does not do."""


class StorageError(PrelabelError):
    """A store does not answer or let this caller in, or a disk is gone; trouble with one file is an `OSError`."""


class DeviceError(PrelabelError):
    """The wanted execution device is not available or does not work."""


class TrainingError(PrelabelError):
    """Training cannot go on, for example because a loss is not finite."""


class ParityError(PrelabelError):
    """The exported model and the Keras model disagree beyond the tolerance."""


class ServerUnavailableError(PrelabelError):
    """No server answers at the address, or it has no model to answer with."""


class OverloadedError(PrelabelError):
    """The server refused new work: its queue is full, or the caller is over its rate limit; try again later."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """After so many seconds there is room, as far as the server knows."""


class AccessError(PrelabelError):
    """The server does not let this caller in: it shows no valid token, or one without the role that is needed."""


class RemoteError(PrelabelError):
    """The server failed on a request that was valid."""


class ModelChangedError(RemoteError):
    """Work that one model began cannot be finished by it: the server has another one now."""


class WorkerError(PrelabelError):
    """A process that worked for this one died, for example because the machine ran out of memory."""
