from __future__ import annotations

from decimal import Decimal

import pytest

from aksgpu.common import quantities


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (1, "1"),
        ("0", "0"),
        ("0.5", "500m"),
        (0.5, "500m"),
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("2.5Gi", "2560Mi"),
        ("512", "512"),
        ("1000", "1k"),
        ("1.5k", "1500"),
        ("1e3", "1e3"),
        ("0.1Gi", "107374182400m"),
        ("100u", "100u"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("-1500m", "-1500m"),
        ("24684092Ki", "24684092Ki"),
        ("267847642337", "267847642337"),
    ],
)
def test_canonical(given: str | int | float, canonical: str) -> None:
    assert quantities.canonical(given) == canonical
    assert quantities.canonical(canonical) == canonical
    assert quantities.parse(canonical) == quantities.parse(given)


def test_parse() -> None:
    assert quantities.parse("1Ki") == 1024
    assert quantities.parse("250m") == Decimal("0.25")
    assert quantities.parse("2E") == 2 * 10**18


@pytest.mark.parametrize("bad", ["", "x", "1 Gi", "1gi", "--1", "1Gii", "1e999", "\uff19"])
def test_invalid_quantities(bad: str) -> None:
    with pytest.raises(ValueError, match="quantities must match the regular expression"):
        quantities.parse(bad)
