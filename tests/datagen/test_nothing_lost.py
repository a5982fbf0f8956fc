"""Many calls to a server with faults that heal: nothing is lost, and nothing is there twice."""

import pytest

from benchmarks.lost import measure


@pytest.mark.slow
def test_of_many_calls_none_is_lost() -> None:
    (line,) = measure(quick=True, rows=3000)
    assert line.measured.startswith("0 lost, 0 twice, ")
