"""A version of the model as an operator sees it."""

from dataclasses import dataclass
from typing import Literal

State = Literal["serving", "draining", "failed"]


@dataclass(frozen=True)
class Status:
    """One version as an operator sees it."""

    version: str
    """Name of the version."""
    state: State
    """`draining`: replaced, and still used by requests in flight; `failed`: could not be loaded."""
    model_id: str = ""
    """Identity of the model; empty where it could not be loaded."""
    execution_provider: str = ""
    """What runs it."""
    is_default: bool = False
    """Answers requests that name no version."""
    users: int = 0
    """Requests and streams that use it now."""
    error: str = ""
    """Why it could not be loaded."""
