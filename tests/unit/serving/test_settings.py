import dataclasses
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError
from serving.__main__ import main
from serving.config import Config
from serving.settings import NAMES, from_flags, read_config, to_flags, to_toml


def test_flags_go_before_the_environment_and_the_environment_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "server.toml"
    file.write_text('model = "models/mine"\nmax_batch_size = 64\nport = 1\nhost = "::"\nmax_queue_delay_ms = 0.5\n')
    environment = {
        "PRELABEL_OPTION_PORT": "2",
        "PRELABEL_OPTION_HOST": "0.0.0.0",
        "PRELABEL_PORT": "tcp://10.0.0.1:50051",
    }
    arguments = ["--config", str(file), "--host", "localhost"]
    config = read_config(arguments, environment)
    assert (config.host, config.port, config.max_batch_size) == ("localhost", 2, 64)
    assert (config.model, config.max_queue_delay_ms) == (Path("models/mine"), 0.5)
    lines = to_toml(config, arguments, environment).splitlines()
    assert 'host = "localhost"  # command line' in lines
    assert "port = 2  # PRELABEL_OPTION_PORT" in lines
    assert f"max_batch_size = 64  # {file}" in lines
    assert "instances = 0  # default" in lines


def test_the_file_can_be_named_in_the_environment(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("port = 7")
    environment = {"PRELABEL_OPTION_CONFIG": str(tmp_path / "server.toml"), "PRELABEL_OPTION_MODEL": "bundle"}
    assert read_config([], environment).port == 7


@given(
    st.builds(
        Config,
        model=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).map(Path),
        port=st.integers(0, 65535),
        max_queue_delay_ms=st.floats(0, 1e6),
        versions=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        tensorrt=st.booleans(),
        metrics_port=st.none() | st.integers(0, 65535),
        rate_limit_images_per_s=st.sampled_from([float("inf"), 0.5]),
        log_level=st.sampled_from(["debug", "error"]),
    )
)
def test_what_is_printed_is_a_file_with_the_same_options(config: Config) -> None:
    content = tomllib.loads(to_toml(config, [], {}))
    assert Config(**{**content, "model": Path(content["model"])}) == config
    assert set(content) == {name for name in NAMES if getattr(config, name) is not None}
    config = dataclasses.replace(config, token_file=Path("tokens"))
    assert from_flags(to_flags(config)) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_sise = 3", "sets max_batch_sise, which is no option of the server: did you mean max_batch_size"),
        ("zzz = 3", "the options are model, versions"),
        ("port = ", "is no TOML file"),
        ('print_config = "yes"', "which is no option"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "server.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_config(["--config", str(tmp_path / "server.toml")], {})


def test_a_missing_file_and_a_misspelt_variable_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml cannot be read"):
        read_config(["--config", str(tmp_path / "nowhere.toml")], {})
    with pytest.raises(InputError, match=r"PRELABEL_OPTION_PROT sets prot.*did you mean port"):
        read_config(["--model", "bundle"], {"PRELABEL_OPTION_PROT": "1"})


def test_a_wrong_value_is_refused_with_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        read_config(["--model", "bundle"], {"PRELABEL_OPTION_PORT": "tcp://x"})
    assert caught.value.code == 2
    assert "set by the environment or by --config: --port=tcp://x" in capsys.readouterr().err


def test_the_command_prints_its_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRELABEL_OPTION_RELOAD_EVERY_S", "0")
    assert main(["--model", "bundle", "--print-config"]) == 0
    content = tomllib.loads(capsys.readouterr().out)
    assert (content["model"], content["reload_every_s"], content["port"]) == ("bundle", 0.0, 50051)
