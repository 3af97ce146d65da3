import re

from hypothesis import given
from hypothesis import strategies as st

from serving.request_ids import REQUEST_ID_KEY, choose_request_id


@given(st.one_of(st.text(), st.binary(), st.from_regex(r"[\w./=:+-]{1,140}")))
def test_an_id_is_harmless_and_the_callers_own_where_that_is(given_id: str | bytes) -> None:
    chosen = choose_request_id({REQUEST_ID_KEY: given_id})
    assert re.fullmatch(r"[!-~]{1,128}", chosen)
    assert not set(chosen) & set("\"\\'<>%{}")
    assert chosen == given_id or re.fullmatch("[0-9a-f]{32}", chosen)


def test_usual_ids_are_kept() -> None:
    for usual in ("7", "a-b_c.d:e/f+g=", "01890a5d-ac96-774b-bcce-b302099a8057", "x" * 128):
        assert choose_request_id({REQUEST_ID_KEY: usual}) == usual


def test_others_are_replaced_each_time_anew() -> None:
    for other in ("", "x" * 129, "a b", "a\n", "é", "٣", "-x", b"bytes"):
        first, second = (choose_request_id({REQUEST_ID_KEY: other}) for _ in range(2))
        assert other not in (first, second)
        assert first != second
    assert choose_request_id({}) != choose_request_id({})
