"""Reading ``.npz`` and ``.npy`` files that may be damaged, or made to do damage.

Nothing is ever unpickled, and no memory is taken on a header's word: an array is read only after its header, the size
that the archive declares and the bytes that are there have been found to agree.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy

from moesim.errors import FileError, nearest

Array = np.ndarray[Any, Any]

#: An archive is unpacked into memory, so what it unpacks to is limited; a folder of .npy files is not.
MAX_UNPACKED_BYTES = 64 * 2**30
#: Routing packs at most about 20 to 1. Archives that unpack to more than this and pack better than that are refused.
SUSPECT_BYTES = 2**28
SUSPECT_RATIO = 200
_MAX_HEADER_BYTES = 10_000
_DAMAGED = "copy it again, or make it anew"


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype[Any]
    length: int

    @property
    def data_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def read_npz(path: Path) -> dict[str, Array]:
    """Every array of an ``.npz`` file, in memory, by name.

    Raises:
        FileError: missing, not an archive, truncated, damaged, holding objects or anything but arrays, or unpacking
            to more than its size can honestly hold.
    """
    path = existing_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(path, archive)
            return {name.removesuffix(".npy"): _read_member(path, archive, name) for name in archive.namelist()}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        hint = "a trace is an .npz file" if not zipfile.is_zipfile(path) else _DAMAGED
        raise FileError.of(str(path), f"is not a sound .npz archive: {_sentence(error)}", hint) from None
    except (OSError, NotImplementedError, RuntimeError, ValueError, MemoryError) as error:
        raise FileError.of(str(path), f"can't be read: {_sentence(error)}") from None


def read_npy(path: Path) -> Array:
    """One ``.npy`` file as a read-only memory map (in memory where it has no elements or no dimensions).

    Raises:
        FileError: missing, not an ``.npy`` file, truncated, or holding objects.
    """
    path = existing_file(path)
    try:
        with path.open("rb") as stream:
            header = _read_header(str(path), stream)
        _check_size(str(path), header, path.stat().st_size)
        if header.shape == () or header.data_bytes == 0:
            return np.asarray(np.load(path, allow_pickle=False))
        order: Literal["F", "C"] = "F" if header.fortran_order else "C"
        mapped: Array = np.memmap(path, header.dtype, "r", header.length, header.shape, order)
        return mapped
    except OSError as error:
        raise FileError.of(str(path), f"can't be read: {_sentence(error)}") from None


def npy_of(data: bytes, place: str) -> Array:
    """The array in the bytes of an ``.npy`` file.

    Raises:
        FileError: no ``.npy`` file, truncated, or holding objects.
    """
    header = _read_header(place, io.BytesIO(data))
    _check_size(place, header, len(data))
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    return np.frombuffer(data, header.dtype, offset=header.length).reshape(header.shape, order=order)


def read_folder(path: Path) -> dict[str, Array]:
    """Every ``.npy`` file of a folder, memory-mapped, by name.

    Raises:
        FileError: as :func:`read_npy`, or the folder holds none.
    """
    files = sorted(existing(path).glob("*.npy"))
    if not files:
        raise FileError.of(str(path), "is a folder without .npy files", "name an .npz file, or a folder of arrays")
    return {file.stem: read_npy(file) for file in files}


def existing(path: Path) -> Path:
    """The path itself, when there is something.

    Raises:
        FileError: there is nothing; the hint names the nearest sibling.
    """
    try:
        if path.exists():
            return path
        siblings = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    except (OSError, ValueError) as error:
        raise FileError.of(str(path), f"can't be read: {_sentence(error)}") from None
    raise FileError.of(str(path), "no such file", nearest(path.name, siblings) if siblings else "check the path")


def existing_file(path: Path) -> Path:
    """As :func:`existing`, and it is a regular file.

    Raises:
        FileError: there is nothing, or a directory, a device or the like.
    """
    path = existing(path)
    if not path.is_file():
        raise FileError.of(str(path), f"is {'a directory' if path.is_dir() else 'a special file'}, not a file")
    return path


def text_of(arrays: Mapping[str, Array], name: str, place: str) -> str:
    """The string in a 0-d array of text.

    Raises:
        FileError: missing, or not one string.
    """
    array = arrays.get(name)
    if array is None:
        raise FileError.of(place, f"has no {name!r}")
    if array.shape != () or array.dtype.kind != "U":
        raise FileError.of(f"{place}: {name}", f"must be one string (got {array.dtype} of shape {list(array.shape)})")
    return str(array)


def _refuse_bomb(path: Path, archive: zipfile.ZipFile) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    if len(set(names)) != len(names):
        raise FileError.of(str(path), "holds two members of the same name", _DAMAGED)
    unpacked, packed = sum(member.file_size for member in members), max(1, path.stat().st_size)
    if unpacked > MAX_UNPACKED_BYTES:
        told = f"unpacks to {unpacked / 2**30:.1f} GiB, more than {MAX_UNPACKED_BYTES >> 30} GiB"
        raise FileError.of(str(path), told, "keep traces of this size as a folder of .npy files")
    if unpacked > SUSPECT_BYTES and unpacked > SUSPECT_RATIO * packed:
        told = f"unpacks to {unpacked} bytes, {unpacked // packed} times its size: refused as an archive bomb"
        raise FileError.of(str(path), told, "no routing packs that well; a folder of .npy files has no such limit")


def _read_member(path: Path, archive: zipfile.ZipFile, name: str) -> Array:
    place = f"{path}: {name.removesuffix('.npy')}"
    if not name.endswith(".npy") or "/" in name:
        raise FileError.of(place, "is not an array; an .npz archive holds .npy members only")
    with archive.open(name) as stream:
        _check_size(place, _read_header(place, stream), archive.getinfo(name).file_size)
    with archive.open(name) as stream:
        array = npy.read_array(stream, allow_pickle=False, max_header_size=_MAX_HEADER_BYTES)
        if stream.read(1):
            raise FileError.of(place, "goes on after its last element", _DAMAGED)
    return np.asarray(array)


def _read_header(place: str, stream: IO[bytes]) -> _Header:
    try:
        version = npy.read_magic(stream)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version[0]}.{version[1]} of .npy")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran_order, dtype = read(stream, max_header_size=_MAX_HEADER_BYTES)
    except Exception as error:  # numpy evaluates and tokenizes the header's text; what it raises on nonsense is open
        raise FileError.of(place, f"has no sound .npy header: {_sentence(error)}", _DAMAGED) from None
    if dtype.hasobject:
        raise FileError.of(place, "holds pickled Python objects, which are never loaded", "save plain arrays")
    if any(length < 0 for length in shape):
        raise FileError.of(place, f"has an impossible shape {list(shape)}", _DAMAGED)
    return _Header(shape, fortran_order, dtype, stream.tell())


def _check_size(place: str, header: _Header, stored_bytes: int) -> None:
    needed = header.length + header.data_bytes
    if needed != stored_bytes:
        told = f"holds {stored_bytes} bytes where its header announces {needed}"
        raise FileError.of(place, told, _DAMAGED)


def _sentence(error: BaseException) -> str:
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return text.splitlines()[0][:200]
