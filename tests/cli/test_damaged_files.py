"""Traces and results that something has happened to: refused as all bad input is."""

import io
import zipfile

import numpy as np
import pytest


def archive(**arrays):
    data = io.BytesIO()
    np.savez(data, **arrays)
    return data.getvalue()


def damaged(case, sound):
    """The bytes of a trace that something has happened to."""
    with np.load(io.BytesIO(sound)) as file:
        arrays = dict(file)
    if case == "truncated":
        return sound[: len(sound) // 2]
    if case == "pickled":
        return archive(experts=np.array([{}], dtype=object))
    if case == "no experts":
        return archive(**{name: array for name, array in arrays.items() if name != "experts"})
    if case == "a bomb":
        data = io.BytesIO()
        with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file, file.open("experts.npy", "w") as stream:
            for _ in range(300):
                stream.write(bytes(2**20))
        return data.getvalue()
    changed = {
        "wrong dtype": {"experts": arrays["experts"].astype(np.float64)},
        "id out of range": {"experts": np.full_like(arrays["experts"], 200)},
        "wrong length": {"request": arrays["request"][1:]},
        "newer format": {"format": np.array("moesim-trace/9")},
        "card is no JSON": {"card": np.array("[" * 100_000)},
    }
    return archive(**arrays | changed[case])


TRACES = {
    "truncated": "is not a sound .npz archive",
    "pickled": "never loaded",
    "no experts": "experts",
    "a bomb": "archive bomb",
    "wrong dtype": "experts: must be uint8",
    "id out of range": "200 is no expert",
    "wrong length": "request: must have the shape",
    "newer format": "newer moesim",
    "card is no JSON": "card: is not JSON",
}


@pytest.mark.parametrize("case", TRACES)
def test_a_damaged_trace(moesim, case):
    moesim.write("trace.npz", damaged(case, (moesim.folder / "trace.npz").read_bytes()))
    for arguments in (
        ["run", "scenario.yaml"],
        ["replay", "trace.npz", "--capacity", "1GiB"],
        ["trace", "info", "trace.npz"],
    ):
        assert TRACES[case] in moesim.refused(*arguments)


RESULTS = {
    "truncated": (lambda text: text[:3000], "is not JSON"),
    "empty": (lambda _: "", "is not JSON"),
    "a list": (lambda _: "[1]", "is not a moesim result"),
    "newer": (lambda text: text.replace('"schema_version": "', '"schema_version": "9'), "run the scenario again"),
    "text for a number": (lambda text: text.replace('\n "seed": 0', '\n "seed": "a"'), "is damaged at seed"),
    "unknown key": (lambda text: text.replace('\n "seed": 0', '\n "seed": 0, "x": 1'), "is damaged at x"),
    "5000 digits": (lambda text: text.replace('"seed": 0', f'"seed": {"9" * 5000}', 1), "is not JSON"),
}


@pytest.mark.parametrize("case", RESULTS)
def test_a_damaged_result(moesim, case):
    assert moesim("run", "scenario.yaml", "--no-report", "--no-study", "--out", "done")[0] == 0
    change, part = RESULTS[case]
    path = moesim.folder / "done" / "result.json"
    path.write_text(change(path.read_text()))
    assert part in moesim.refused("report", "done")
