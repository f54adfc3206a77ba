import numpy as np
import pytest

from moesim.errors import TraceError
from moesim.traces import check
from moesim.transforms import select_requests


def test_rows_of_the_requests_in_the_given_order(full_trace):
    both = check(select_requests(full_trace, [3, 7]))
    assert both.request.tolist() == [3, 7, 7]
    assert both.card.transforms == ["select_requests(2: 3, 7)"]
    one = check(select_requests(full_trace, [7]))
    for name, array in full_trace.arrays().items():
        assert np.array_equal(one.arrays()[name], array[:2])


@pytest.mark.parametrize(("ids", "message"), [([], "at least one"), ([7, 7], "each once"), ([1], "no request 1")])
def test_requests_that_can_t_be_selected(full_trace, ids, message):
    with pytest.raises(TraceError, match=message):
        select_requests(full_trace, ids)
