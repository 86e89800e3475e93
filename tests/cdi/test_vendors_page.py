"""The page about the vendors says what the code says."""

from pathlib import Path

import pytest

from cdi.inventory import Vendor
from cdi.vendors import MODULES

PAGE = (Path(__file__).parents[2] / "docs" / "cdi-vendors.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines()]


@pytest.mark.parametrize("vendor", Vendor)
def test_each_vendor_has_a_row_with_its_kinds_and_grounds(vendor):
    support = MODULES[vendor].support
    (row,) = [row for row in ROWS if row[0] == vendor and len(row) == 5]
    assert row[1] == ", ".join(f"`{kind}`" for kind in support.kinds.values())
    assert row[2] == support.basis
    assert bool(row[4]) or not support.uncertain
