"""Cards of fitted constants: complete, sane, and what the lookup falls back to."""

import re

import pytest

from moesim.errors import CardError
from moesim.hardware import available
from moesim.hardware.fits import ANY, CARDS, CLASS, any_stack, find, read_fit_card, shipped_fits
from moesim.studies.hardware_fit import fit_card_text
from moesim.studies.measured.catalogue import FORMS

NAMES = sorted(path.stem for path in CARDS.glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_of_a_known_gpu_and_writes_back_to_the_same_bytes(name):
    path = CARDS / f"{name}.yaml"
    card = read_fit_card(path)
    assert card.name == name
    assert name == CLASS or name in available()["gpu"]
    assert fit_card_text(card, FORMS) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_every_fit_has_all_constants_inside_their_bounds_and_says_what_it_rests_on(name):
    for fit in read_fit_card(CARDS / f"{name}.yaml").fits:
        bounds = {constant.name: constant for constant in FORMS[fit.operation].constants}
        assert fit.constants.keys() == bounds.keys()
        for constant, value in fit.constants.items():
            assert bounds[constant].low * 0.999 <= value <= bounds[constant].high * 1.001, (fit.stack, constant)
        assert set(fit.assumed) <= fit.constants.keys()
        assert fit.kind == "measured"
        assert fit.rows > 0
        assert "fitted by moesim to the table" in fit.source


def test_every_operation_has_constants_for_a_gpu_without_measurements():
    stacks = {operation: {stack for _, op, stack in shipped_fits() if op == operation} for operation in FORMS}
    for operation, known in stacks.items():
        for stack in known:
            assert (CLASS, operation, any_stack(operation, stack)) in shipped_fits()


def test_what_was_never_measured_takes_what_is_most_like_it():
    known = {(CLASS, "moe_layer", stack): stack for stack in ("sglang triton", "any", "any fp8_block")}
    known |= {(CLASS, "collective", stack): stack for stack in ("any all_reduce", "any all_reduce, bridge")}
    assert find(known, "moe_layer", "b", "vllm triton 0.14") == ("sglang triton", "class")
    assert find(known, "moe_layer", "b", "vllm marlin") == ("any", "class")
    assert find(known, "moe_layer", "b", "vllm marlin fp8_block") == ("any fp8_block", "class")
    assert find(known, "collective", "b", "rccl all_reduce, bridge") == ("any all_reduce, bridge", "class")
    assert find(known, "collective", "b", "rccl all_to_all") is None


def test_the_lookup_goes_from_the_gpu_to_the_class_to_any_stack():
    known = {("a", "op", "s"): 1, (CLASS, "op", "s"): 2, (CLASS, "op", ANY): 3}
    assert find(known, "op", "a", "s") == (1, "fitted")
    assert find(known, "op", "b", "s") == (2, "class")
    assert find(known, "op", "b", "t") == (3, "class")
    assert find(known, "other", "a", "s") is None


def test_a_card_with_a_wrong_unit_is_refused_with_its_line(tmp_path):
    text = re.sub(r"launch: [\d.]+ us", "launch: 9 parsecs", (CARDS / "h100-sxm.yaml").read_text(encoding="utf-8"))
    path = tmp_path / "h100-sxm.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(CardError, match="parsecs"):
        read_fit_card(path)
