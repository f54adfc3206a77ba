"""``moesim check`` knows the four kinds of file by their keys, and says what is wrong with each."""

from __future__ import annotations

from pathlib import Path

import pytest

SCENARIOS = Path(__file__).parents[2] / "scenarios"
SHIPPED = {
    "quickstart.yaml": "gpt-oss-20b on desktop-rtx3060-ddr4-32g-nvme3",
    "compare/phone.yaml": "a comparison of 6 policies, 24 runs",
    "sweeps/phone-memory-and-flash.yaml": "a sweep of 3 keys, 12 runs",
    "capacity/desktop-upgrade.yaml": "a plan of 5 choices, 48 configurations for each load of 1",
    "serving/qwen3-30b-chat.yaml": "qwen3-30b-a3b on 1 x 1 NVIDIA H100 SXM5",
    "ep/one-node-mixtral.yaml": "mixtral-8x7b on 8 GPUs of hgx-h100-x1",
}


@pytest.mark.parametrize("name", SHIPPED)
def test_what_a_file_is(moesim, name):
    path = SCENARIOS / name
    code, out, err = moesim("check", str(path))
    assert (code, err) == (0, "")
    assert out.startswith(f"{path}: ok: {SHIPPED[name]}")


@pytest.mark.parametrize(
    ("name", "sound", "wrong", "told"),
    [
        ("compare/phone.yaml", "policies:", "polices:", "did you mean 'policies'?"),
        ("sweeps/phone-memory-and-flash.yaml", "samples: 2", "samples: 0", ":8: samples: "),
        ("sweeps/phone-memory-and-flash.yaml", "../offload/phone.yaml", "nowhere.yaml", "nowhere.yaml"),
        ("capacity/desktop-upgrade.yaml", "hours_per_day: 4", "hours_per_day: 40", "hours_per_day: "),
    ],
)
def test_a_fault_in_each_kind(moesim, name, sound, wrong, told):
    text = (SCENARIOS / name).read_text()
    assert sound in text
    (moesim.folder / "file.yaml").write_text(text.replace(sound, wrong))
    assert told in moesim.refused("check", "file.yaml")
