"""The command line's options for how to reach a project of Label Studio."""

import os
from dataclasses import dataclass

from prelabel.adapters.label_studio.interface import Interface, parse_interface
from prelabel.adapters.label_studio.project import Project, open_project
from prelabel.adapters.label_studio.session import Session
from prelabel.adapters.label_studio.token import TOKEN_VARIABLE, Token
from prelabel.errors import InputError


@dataclass(frozen=True)
class LabelStudio:
    """A project of a Label Studio. The token comes from the environment (LABEL_STUDIO_API_KEY), never from here."""

    url: str
    """Address of Label Studio, such as http://localhost:8080."""
    project: int
    """Number of the project, as in the address of its page."""
    choices: str = ""
    """Name of the <Choices> that asks for the class, where the labelling interface has several about an image."""
    timeout_s: float = 120.0
    """Longest wait for one answer."""
    retry_for_s: float = 60.0
    """For how many seconds a Label Studio that is away or overloaded is tried again."""

    def __post_init__(self) -> None:
        if self.project < 1:
            raise InputError(f"--project {self.project} is not usable: a number from 1 is wanted")

    def open(self) -> tuple[Project, Interface]:
        """Reads the project and what it asks.

        Raises:
            PrelabelError: See `open_project` and `parse_interface`.
        """
        token = Token(os.environ.get(TOKEN_VARIABLE, ""))
        session = Session(self.url, token, timeout_s=self.timeout_s, retry_for_s=self.retry_for_s)
        project = open_project(session, self.project)
        return project, parse_interface(project.label_config, self.choices)
