"""What the algorithms log in their first three updates is what they logged when it was recorded."""

import pytest

from tests.recorded_losses import CASES, differences


@pytest.mark.parametrize("case", CASES)
def test_the_first_three_updates_are_those_recorded(case):
    """To what three updates make of another processor's float32 rounding: 2e-5 was seen, at the same code."""
    assert differences(case, tolerance=1e-4) == []
