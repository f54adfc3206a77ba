"""What fits where, by arithmetic."""

import pytest

from moesim.errors import ScenarioError
from moesim.setup import plan_memory

GB = 10**9
MACHINE = {
    "gpu_total": 12 * GB,
    "host_total": 32 * GB,
    "dense": 4 * GB,
    "kv": 1 * GB,
    "gpu_reserve": 1 * GB,
    "host_reserve": 6 * GB,
    "all_experts": 40 * GB,
    "gpu_experts": None,
    "host_experts": None,
    "unified": False,
    "has_storage": True,
}


def plan(**changes):
    return plan_memory(**(MACHINE | changes))


def test_what_is_left_holds_experts():
    found = plan()
    assert found.gpu_experts == (12 - 4 - 1 - 1) * GB
    assert found.host_experts == (32 - 6) * GB


def test_experts_that_all_fit_need_no_flash():
    found = plan(all_experts=20 * GB, has_storage=False)
    assert found.host_experts is None
    assert plan(all_experts=5 * GB).gpu_experts == 5 * GB


def test_given_sizes_are_kept():
    found = plan(gpu_experts=2 * GB, host_experts=10 * GB)
    assert (found.gpu_experts, found.host_experts) == (2 * GB, 10 * GB)


def test_unified_memory_has_no_host_tier():
    assert plan(unified=True, has_storage=False).host_experts is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"dense": 11 * GB}, "nothing is left for experts on the GPU"),
        ({"gpu_experts": 7 * GB}, "7.00 GB for experts do not fit: 6.00 GB are left"),
        ({"host_experts": 27 * GB}, "27.0 GB for experts do not fit: 26.0 GB are left"),
        ({"has_storage": False}, "26.0 GB of 40.0 GB of experts, and no storage is below"),
    ],
)
def test_what_does_not_fit_is_told_with_the_sum(changes, told):
    with pytest.raises(ScenarioError, match=told):
        plan(**changes)


def test_all_faults_are_told_together():
    with pytest.raises(ScenarioError) as error:
        plan(gpu_experts=7 * GB, host_experts=27 * GB)
    assert len(error.value.faults) == 2
