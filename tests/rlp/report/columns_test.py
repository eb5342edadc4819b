"""Which row of a column is marked as the best."""

from hypothesis import given, settings
from hypothesis import strategies as st

from rlp.report import columns


@given(st.lists(st.lists(st.floats(-9, 9), min_size=3, max_size=4), min_size=2, max_size=4))
@settings(deadline=None)
def test_a_row_is_best_only_if_all_its_seeds_beat_all_other_seeds(rows: list[list[float]]):
    best = columns.clearly_best(rows, False)
    separated = [
        n
        for n, row in enumerate(rows)
        if all(v > w for v in row for m, other in enumerate(rows) if m != n for w in other)
    ]
    assert ([] if best is None else [best]) == separated
    assert columns.clearly_best([[-v for v in row] for row in rows], True) == best


def test_nothing_is_called_best_on_fewer_than_three_seeds_or_an_unknown_figure():
    assert columns.clearly_best([[1.0, 1.0], [0.0, 0.0]], False) is None
    assert columns.clearly_best([[1.0] * 3, [0.0, 0.0, None]], False) is None
    assert columns.clearly_best([[1.0] * 3, [0.0] * 3], None) is None
