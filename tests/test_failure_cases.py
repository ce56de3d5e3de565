"""Every case of tests/data/failures, and the page that is made from the tables."""

from __future__ import annotations

import pytest
from support import failures_page
from support.failure_cases import FOLDER, Case, cases, outcome


@pytest.mark.parametrize("case", cases(), ids=[case.name for case in cases()])
def test_each_case_is_diagnosed_rightly(case: Case) -> None:
    found = outcome(case)
    assert not found.cause_wrong, found.text
    assert not found.fix_wrong, found.text


def test_every_file_is_a_case() -> None:
    used = {case.expected.get("input") for case in cases()}
    assert {path.name for path in FOLDER.iterdir()} - used == {"cases.yaml"}


def test_the_page_is_up_to_date() -> None:
    assert failures_page.PAGE.read_text() == failures_page.page(), "run python tests/support/failures_page.py"
