"""The simulation of audits, with few of them."""

from scripts.audit_power import ERRORS, PILES, many_audits, table


def test_more_answers_certify_more_and_what_is_too_bad_stays_out() -> None:
    cases = [many_audits(pile, errors, 100, 0) for pile in PILES for errors in ERRORS]
    few, _, many = (one["share_of_audits_with_a_set"] for one in cases[: len(ERRORS)])
    assert many > few + 0.3
    assert all(one["broken"] <= 12 for one in cases)  # 5 expected at most; more is one chance in a thousand
    assert [one["best_coverage"] for one in cases[-len(ERRORS) :]] == [0.0] * len(ERRORS)
    lines = table({"cases": cases, "audits": 100, "rows": 60_000, "command": "x", "commit": "0" * 40}).splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(PILES)
