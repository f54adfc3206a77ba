import io
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moesim.errors import FileError, MoesimError, TraceError
from moesim.traces import FORMAT, load_trace, save_trace
from moesim.traces.storage import card_json


@pytest.fixture
def saved(full_trace, tmp_path):
    """The trace with every column, as a file."""
    path = tmp_path / "tiny.npz"
    save_trace(full_trace, path)
    return path


def rewritten(path, **changes):
    """The same archive with members changed, added, or (None) left out; arrays may be given as raw bytes."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in (arrays | changes).items():
            if isinstance(array, bytes):
                archive.writestr(f"{name}.npy", array)
            elif array is not None:
                stream = io.BytesIO()
                np.save(stream, array)
                archive.writestr(f"{name}.npy", stream.getvalue())
    return path


def header(shape, descr="|u1"):
    """The header of an .npy file that announces an array, without its data."""
    text = repr({"descr": descr, "fortran_order": False, "shape": shape}) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def fault(path):
    """The one fault with which loading the file fails."""
    with pytest.raises(MoesimError) as error:
        load_trace(path)
    assert len(error.value.faults) == 1
    assert "Traceback" not in str(error.value)
    return error.value.faults[0]


@pytest.mark.parametrize("name", ["trace.npz", "folder"])
def test_what_is_saved_is_loaded(full_trace, tmp_path, name):
    save_trace(full_trace, tmp_path / name)
    loaded = load_trace(tmp_path / name)
    assert loaded.sha256 == full_trace.sha256 == loaded.card.sha256
    assert loaded.card.model_copy(update={"sha256": None}) == full_trace.card
    assert set(loaded.arrays()) == set(full_trace.arrays())
    for column, array in full_trace.arrays().items():
        assert np.array_equal(loaded.arrays()[column], array)
        assert loaded.arrays()[column].dtype == array.dtype
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_folder_is_an_unzipped_file_and_is_memory_mapped(saved, tmp_path):
    with zipfile.ZipFile(saved) as archive:
        archive.extractall(tmp_path / "unzipped")
    trace = load_trace(tmp_path / "unzipped")
    assert isinstance(trace.experts, np.memmap)
    assert trace.sha256 == load_trace(saved).sha256


def test_same_trace_same_bytes(full_trace, saved, tmp_path):
    save_trace(full_trace, tmp_path / "again.npz")
    assert saved.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_nothing_is_written_when_writing_fails(full_trace, make_trace, saved, tmp_path, monkeypatch):
    before = saved.read_bytes()
    with pytest.raises(TraceError):
        save_trace(make_trace([[[0, 0]]]), saved)

    def out_of_space(path, **arrays):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numpy.savez_compressed", out_of_space)
    with pytest.raises(FileError, match="can't be written: No space left"):
        save_trace(full_trace, saved)
    assert saved.read_bytes() == before
    assert list(tmp_path.iterdir()) == [saved]


def test_places_that_can_t_be_written(full_trace, tmp_path):
    with pytest.raises(FileError, match="can't be written"):
        save_trace(full_trace, tmp_path / "missing" / "x.npz")
    with pytest.raises(FileError, match=r"unknown kind of trace '\.csv'"):
        save_trace(full_trace, tmp_path / "x.csv")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(FileError, match="can't be written"):
        save_trace(full_trace, tmp_path / "full")
    (tmp_path / "dir.npz").mkdir()
    with pytest.raises(FileError, match="can't be written"):
        save_trace(full_trace, tmp_path / "dir.npz")


def test_missing_file_names_the_nearest(saved):
    assert fault(saved.parent / "tinny.npz").hint == "did you mean 'tiny.npz'?"
    assert fault(saved.parent / "no" / "x.npz").hint == "check the path"


def test_folder_without_a_trace(tmp_path):
    assert "folder without .npy files" in fault(tmp_path).message
    np.save(tmp_path / "a.npy", np.zeros(3))
    assert "has no 'format'" in fault(tmp_path).message


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip at all", b"\x93NUMPY\x01\x00v\x00{"])
def test_not_an_archive(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    assert "is not a sound .npz archive" in fault(tmp_path / "x.npz").message


def test_special_files_are_not_read():
    assert "special file" in fault(Path("/dev/null")).message


def test_format_of_another_version(saved):
    assert "newer moesim" in fault(rewritten(saved, format=np.array("moesim-trace/2"))).hint
    assert "must be 'moesim-trace/1'" in fault(rewritten(saved, format=np.array("other"))).message
    assert "must be one string" in fault(rewritten(saved, format=np.zeros(3))).message
    assert fault(rewritten(saved, format=None, meta=np.array("{}"))).hint.startswith("it looks like the neutral format")


@pytest.mark.parametrize("card", ["", "{", "[" * 100_000, "[]", "{}", "3", '{"name": NaN}'])
def test_cards_that_are_none(saved, card):
    with pytest.raises(TraceError, match=r"tiny.npz: card"):
        load_trace(rewritten(saved, card=np.array(card)))


def test_unknown_keys_of_a_card_suggest_the_nearest(saved, full_trace):
    card = json.loads(card_json(full_trace.card)) | {"licence": 3, "expert_byte": [1, 2]}
    with pytest.raises(TraceError) as error:
        load_trace(rewritten(saved, card=np.array(json.dumps(card))))
    assert {f.place.rpartition(": ")[2]: f.hint for f in error.value.faults} == {
        "licence": "",
        "expert_byte": "did you mean 'expert_bytes'?",
    }


def test_changed_arrays_don_t_have_the_card_s_checksum(saved, full_trace):
    changed = full_trace.position + np.int32(1)
    assert "the card says" in fault(rewritten(saved, position=changed)).message


def test_missing_and_unknown_arrays(saved):
    path = rewritten(saved, request=None, weigths=np.zeros(3))
    with pytest.raises(TraceError) as error:
        load_trace(path)
    told = [(f.place.removeprefix(f"{path}: "), f.message, f.hint) for f in error.value.faults]
    assert told == [("request", "is missing", ""), ("weigths", "unknown array", "did you mean 'weights'?")]


def test_pickled_objects_are_never_loaded(saved, tmp_path):
    objects = np.array([print, None], object)
    assert "pickled Python objects" in fault(rewritten(saved, request=objects)).message
    np.save(tmp_path / "format.npy", np.array(FORMAT, object), allow_pickle=True)
    assert "pickled Python objects" in fault(tmp_path).message


@pytest.mark.parametrize(
    "raw",
    [
        header((2**62, 4, 2)),
        header((2**40,)) + b"1234",
        header((-5, 4)),
        header((3,), "<i4") + b"12345678901234",
        header((3,))[:9],
        b"\x93NUMPY\x09\x00\x10\x00" + b"{" * 16,
        b"\x93NUMPY\x01\x00\x10\x00" + b"{" * 16,
        b"",
    ],
)
def test_headers_that_lie(saved, raw):
    place = fault(rewritten(saved, request=raw)).place
    assert place == f"{saved}: request"


def test_headers_that_lie_in_a_folder(saved, tmp_path):
    save_trace(load_trace(saved), tmp_path / "folder")
    file = tmp_path / "folder" / "experts.npy"
    file.write_bytes(file.read_bytes()[:-1])
    assert "where its header announces" in fault(tmp_path / "folder").message


def test_archives_that_unpack_to_too_much(saved, tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("experts.npy", "w") as member,
    ):
        member.write(header((2**28,)))
        for _ in range(2**8):
            member.write(bytes(2**20))
    assert "archive bomb" in fault(path).message
    monkeypatch.setattr("moesim.traces.array_files.MAX_UNPACKED_BYTES", 2**20)
    assert "more than 0 GiB" in fault(path).message


@pytest.mark.parametrize(("elements", "message"), [(2**28, "archive bomb"), (2**24, "can't be read: EOF")])
def test_size_that_the_archive_claims_is_not_believed(saved, elements, message):
    """Both the array's header and the archive's directory announce what isn't there."""
    lie = header((elements,))
    data = bytearray(rewritten(saved, request=lie).read_bytes())
    entry = data.rfind(b"request.npy") - 46
    data[entry + 24 : entry + 28] = struct.pack("<I", elements + len(lie))
    saved.write_bytes(data)
    assert message in fault(saved).message


def test_members_that_are_no_arrays(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("readme.txt", "hello")
    assert "is not an array" in fault(saved).message


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_one_clear_error_or_the_same_trace(saved, data):
    """Whatever byte is changed and wherever the file is cut: an error of ours, or what was saved."""
    good = saved.read_bytes()
    expected = load_trace(saved).sha256
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    bad = bad[: data.draw(st.sampled_from([len(bad), len(bad) // 2, len(bad) - 1]))]
    path = saved.parent / "bad.npz"
    path.write_bytes(bad)
    try:
        loaded = load_trace(path)
    except MoesimError as error:
        place = error.faults[0].place
    else:
        place = str(path)
        assert loaded.sha256 == expected
    assert place.startswith(str(path))
