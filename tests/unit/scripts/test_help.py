"""`--help` of a script says what it would do, and does nothing of it."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import demo, host_pip, install_size, render


@pytest.mark.parametrize("main", [demo.main, host_pip.main, install_size.main, render.main])
def test_help_is_all_that_help_does(
    main: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert exit_info.value.code == 0
    assert capsys.readouterr().out.startswith("usage: python ")
    assert not list(tmp_path.iterdir())
