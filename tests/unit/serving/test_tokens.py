from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel.errors import InputError
from serving.tokens import MAX_TOKENS, Principal, Tokens, parse_bearer, parse_tokens, watch_tokens

ALICE, ALICE_NEW, OPS, UNNAMED = "alices-first-token", "alices-second-token", "token+of/ops._~-==", "nobody-knows-whose"

token = st.from_regex(r"[A-Za-z0-9._~+/-]{16,64}={0,2}", fullmatch=True)
name = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
entry = st.tuples(st.none() | name, token, st.booleans())


def test_names_roles_comments_and_rotation() -> None:
    tokens = parse_tokens(
        ["# callers", "", f"alice:{ALICE}", f"  alice:{ALICE_NEW}  # from May on", f"ops:{OPS}:admin", UNNAMED], "x"
    )
    assert tokens.find(ALICE) == tokens.find(ALICE_NEW) == Principal("alice")
    assert tokens.find(OPS) == Principal("ops", admin=True)
    assert tokens.find(UNNAMED) == Principal("line 6")
    for wrong in ("", ALICE[:-1], ALICE + "x", ALICE.upper(), f"alice:{ALICE}", "alice", "ü"):
        assert tokens.find(wrong) is None


@given(st.lists(entry, min_size=1, max_size=8, unique_by=lambda one: one[1]))
def test_what_is_written_is_found(entries: list[tuple[str | None, str, bool]]) -> None:
    lines = [":".join([n or "x", t, "admin"]) if admin else f"{n}:{t}" if n else t for n, t, admin in entries]
    tokens = parse_tokens(lines, "file")
    for number, (n, t, admin) in enumerate(entries, 1):
        assert tokens.find(t) == Principal(n or ("x" if admin else f"line {number}"), admin)
        assert t not in repr(tokens)


@given(st.lists(st.text(max_size=60), max_size=5))
def test_any_lines_parse_or_are_refused_without_showing_a_token(lines: list[str]) -> None:
    try:
        assert isinstance(parse_tokens(lines, "tokens.txt"), Tokens)
    except InputError as error:
        message = str(error)
        assert message.startswith("tokens.txt")
        assert not [part for line in lines for part in line.split(":") if len(part.strip()) >= 8 and part in message]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("short", "token is not usable"),
        ("alice:short", "token is not usable"),
        (f"{ALICE}:admin", "token is not usable"),
        (f"alice:{ALICE}:root", "`name:token:admin` wanted"),
        (f"alice:{ALICE}:", "`name:token:admin` wanted"),
        (f"alice:{ALICE}:admin:more", "`name:token:admin` wanted"),
        (f":{ALICE}", "name is not usable"),
        (f"al ice:{ALICE}", "name is not usable"),
        (f"Bearer {ALICE}", "token is not usable"),
    ],
)
def test_entries_that_are_none_are_named_by_their_line(line: str, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as caught:
        parse_tokens([UNNAMED, "", line], "tokens.txt")
    assert "tokens.txt, line 3" in str(caught.value)
    assert ALICE not in str(caught.value)


def test_no_tokens_too_many_and_the_same_one_twice_are_refused() -> None:
    with pytest.raises(InputError, match="holds 0 tokens"):
        parse_tokens(["# nothing"], "x")
    with pytest.raises(InputError, match=f"1 to {MAX_TOKENS}"):
        parse_tokens([f"token-number-{i:08}" for i in range(MAX_TOKENS + 1)], "x")
    with pytest.raises(InputError, match=r"line 2: this token is there twice") as caught:
        parse_tokens([f"alice:{ALICE}", f"bob:{ALICE}:admin"], "x")
    assert ALICE not in str(caught.value)


@given(token, st.sampled_from(["Bearer", "bearer", "BEARER"]), st.integers(1, 3))
def test_a_bearer_header_gives_its_token(text: str, scheme: str, blanks: int) -> None:
    assert parse_bearer([scheme + " " * blanks + text]) == text


@given(st.lists(st.text(max_size=40) | st.binary(max_size=40), max_size=3))
def test_other_headers_give_none_or_a_well_formed_token(values: list[str | bytes]) -> None:
    found = parse_bearer(values)
    assert found is None or (len(values) == 1 and found in str(values[0]) and len(found) >= 16)


@pytest.mark.parametrize(
    "values", [[], ["Bearer"], ["Bearer "], [ALICE], [f"Basic {ALICE}"], [f"Bearer {ALICE}"] * 2, [f"Bearer {ALICE} x"]]
)
def test_headers_without_one_bearer_token(values: list[str]) -> None:
    assert parse_bearer(values) is None


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_file_is_read_again_when_it_changes_and_a_bad_change_is_logged_without_its_tokens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = write(tmp_path / "tokens", ALICE)
    watched = watch_tokens(file, {})
    assert watched is not None
    before = watched.get()
    assert watched.get() is before
    write(tmp_path / "next", f"{ALICE}\n{OPS}").replace(file)
    assert watched.get().find(OPS)
    for bad in (f"{UNNAMED}\n{UNNAMED}", "", f"{UNNAMED}:"):
        write(file, bad)
        assert watched.get().find(ALICE)
    file.unlink()
    assert watched.get().find(ALICE)
    write(file, f"{UNNAMED}", 0o644)
    assert watched.get().find(ALICE)
    assert "may be read by every user" in str(vars(caplog.records[-1])["error"])
    assert len(caplog.records) == 5
    assert UNNAMED not in str([vars(record) for record in caplog.records])
    file.chmod(0o640)
    assert watched.get().find(ALICE) is None
    assert watched.get().find(UNNAMED)


def test_tokens_come_from_the_file_or_the_environment(tmp_path: Path) -> None:
    assert watch_tokens(None, {}) is None
    watched = watch_tokens(None, {"PRELABEL_TOKENS": f"{ALICE},ops:{OPS}:admin\n"})
    assert watched is not None
    assert watched.get().find(OPS) == Principal("ops", admin=True)
    with pytest.raises(InputError, match="PRELABEL_TOKENS holds 0 tokens"):
        watch_tokens(None, {"PRELABEL_TOKENS": ""})
    file = write(tmp_path / "tokens", ALICE)
    with pytest.raises(InputError, match="not from both"):
        watch_tokens(file, {"PRELABEL_TOKENS": ALICE})
    with pytest.raises(InputError, match="chmod o-rw"):
        watch_tokens(write(file, ALICE, 0o604), {})
    with pytest.raises(InputError, match="No such file"):
        watch_tokens(tmp_path / "none", {})
    file.chmod(0o600)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="UTF-8"):
        watch_tokens(file, {})
