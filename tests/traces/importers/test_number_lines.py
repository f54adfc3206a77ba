import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moesim.traces.importers._number_lines import Piece, read_table

#: Ways to write a number, and whether the quick way of reading may meet them.
NUMBERS = st.one_of(
    st.integers(0, 10**14).map(str),
    st.decimals(0, 10**6, places=5).map(str),
    st.floats(0, 10**6).map(repr),
    st.floats(allow_infinity=False).map(repr),
    st.just("nan"),
)


@given(st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=8))
def test_every_number_is_read_as_python_reads_it(rows):
    text = "".join(f"{a},[{b}, {c}]\n" for a, b, c in rows).encode()
    table = read_table(Piece(1, text), b",[, ]\n", 3)
    assert table is not None
    assert np.array_equal(table.values, np.array(rows, float), equal_nan=True)


@given(st.lists(st.tuples(st.integers(0, 10**15), st.decimals(0, 99, places=9)), min_size=1, max_size=5))
def test_numbers_written_alike_take_the_quick_way_to_the_same_floats(rows):
    text = "".join(f"{a},{b}\n" for a, b in rows).encode()
    table = read_table(Piece(1, text), b",\n", 2)
    assert table is not None
    assert table.values.tolist() == [[float(a), float(b)] for a, b in rows]


@pytest.mark.parametrize("line", ["3", "3,", ",3", "3,4,5", "3,1.2.3", "3,--1", "3,e", "3,.", "3;4", "3 4", ""])
@pytest.mark.parametrize("first", ["1,2", "1.2.3,.", "1,.5"])
def test_lines_that_are_not_alike_are_not_read(first, line):
    assert read_table(Piece(1, f"{first}\n{line}\n5,6\n".encode()), b",\n", 2) is None
