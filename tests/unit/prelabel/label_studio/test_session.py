"""A session with Label Studio: its tokens, and listing a project's tasks."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from prelabel.adapters.label_studio.project import list_tasks, open_project
from prelabel.adapters.label_studio.session import Session
from prelabel.adapters.label_studio.token import TOKEN_VARIABLE, Token
from prelabel.errors import AccessError, InputError
from support.label_studio import PERSONAL_TOKEN, LabelStudioDouble
from support.label_studio_push import session


def test_a_personal_token_buys_access_tokens_and_renews_them(studio: LabelStudioDouble, predictions: Path) -> None:
    now = itertools.count(0, 40)
    project = open_project(Session(studio.url, Token(PERSONAL_TOKEN, lambda: float(next(now)))), 7)
    list(list_tasks(project, ["data"]))
    for _ in range(10):
        open_project(project.session, 7)
    assert 2 <= len(studio.access_tokens) < 10
    studio.access_tokens.append("another")  # the one in use is refused from now on
    assert open_project(project.session, 7).title == "cats"


def test_tokens_do_not_show(studio: LabelStudioDouble, caplog: pytest.LogCaptureFixture) -> None:
    token = Token(PERSONAL_TOKEN)
    assert PERSONAL_TOKEN not in repr(token) + repr(vars(session(studio, PERSONAL_TOKEN)))
    with pytest.raises(AccessError) as error:
        open_project(session(studio, "wrong-token-1"), 7)
    assert "wrong-token-1" not in str(error.value) + caplog.text
    assert TOKEN_VARIABLE in str(error.value)


@pytest.mark.parametrize("token", ["", "two words", "new\nline", "ümlaut"])
def test_what_cannot_be_a_token_is_said_without_it(token: str) -> None:
    with pytest.raises(InputError, match=TOKEN_VARIABLE) as error:
        Token(token)
    assert not token or token not in str(error.value)


@pytest.mark.parametrize("spread", [60, 90, 400, 40_000])
def test_ids_with_gaps_and_many_tasks_are_all_listed(
    studio: LabelStudioDouble, monkeypatch: pytest.MonkeyPatch, spread: int
) -> None:
    monkeypatch.setattr("prelabel.adapters.label_studio.project.PAGE_TASKS", 7)
    made = sorted(np.random.default_rng(0).choice(spread, 60, replace=False).tolist())
    for number in made:
        studio.add_task({"image": "x"})["id"] = 1 + number
    project = open_project(session(studio), 7)
    assert [task["id"] - 1 for task in list_tasks(project, ["data"])] == made
    middle = list_tasks(project, [], after=1 + made[10], until=1 + made[40])
    assert [task["id"] - 1 for task in middle] == made[11:41]
    studio.tasks.clear()
    assert list(list_tasks(project, ["data"])) == []
