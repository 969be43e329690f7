"""Tells from its structure whether a checkpoint on disk was written to its end, without loading it.

Cheap on purpose: a zip's directory, a header's length, a signature. Of an unknown format, all that can be said is that
it is not empty. Two functions, because the second may be wrong about an honest file:

- `looks_torn`: only what no whole file can look like. Zip (what torch.save, numpy and Keras write),
  safetensors, HDF5.
- `looks_whole`: also JSON that does not parse, a pickle without its end, and in a directory leftovers of an interrupted
  save and empty files of a format that is never empty.
"""

import json
import os
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import msgspec

from backprop.scheduler.home.file_reading import open_regular
from backprop.worker.checkpoints.content.torch_file import missing_storage

MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors format itself
MAX_ENTRIES = 10_000

# torch.save wrote bare pickles before 1.6 and still can. timm's .pth.tar and Hugging Face's .bin are its files too.
_MAYBE_ZIP = (".pt", ".pth", ".ckpt", ".tar", ".bin")
_ALWAYS_ZIP = (".npz", ".keras", ".zip")
_HDF5 = (".h5", ".hdf5")
_PICKLE = (".pkl", ".pickle")
_NEVER_EMPTY = (".pt", ".pth", ".ckpt", ".safetensors", *_ALWAYS_ZIP, *_HDF5, *_PICKLE)
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, 512, 1024, 2048)  # a user block of the writer's own may come first
# By version of the superblock: where the address of the end is, and where the width of an address is.
_HDF5_END = {b"\0": (40, 13), b"\1": (44, 13), b"\2": (28, 9), b"\3": (28, 9)}
_LEFTOVERS = (".tmp", ".part", ".partial", "incomplete")
_LOCAL_HEADER_BYTES = 30


class _Tensor(msgspec.Struct):
    data_offsets: tuple[int, int]


def looks_torn(path: Path) -> str | None:
    """Return why this file, or a file in this directory, cannot be whole; else None. Raises OSError."""
    return _first_fault(path, strict=False)


def looks_whole(path: Path) -> str | None:
    """Return None if this file, or every file in this directory, looks complete; else why not. Raises OSError."""
    return _first_fault(path, strict=True)


def is_leftover(name: str) -> bool:
    """Return whether this name says that a save has not finished: ckpt.pt.tmp, checkpoint-is-incomplete.txt."""
    lower = name.lower()
    return lower.endswith(_LEFTOVERS) or lower.partition(".")[0].endswith("incomplete")


def shows_its_end(path: Path) -> bool:
    """Return whether the format of this file would show that it was cut off. Raises OSError."""
    suffix = path.suffix.lower()
    if suffix in (*_ALWAYS_ZIP, *_HDF5, *_PICKLE, ".safetensors", ".json"):
        return True
    with os.fdopen(open_regular(path), "rb") as file:
        return suffix in _MAYBE_ZIP and file.read(2) == b"PK"


def files_in(folder: str) -> Iterator[os.DirEntry[str]]:
    """Yield the regular files below `folder`, in its first 10,000 entries. Follows no link. Raises OSError."""
    folders, visited = [folder], 0
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                visited += 1
                if visited > MAX_ENTRIES:
                    return
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry


def _first_fault(path: Path, *, strict: bool) -> str | None:
    if not path.is_dir():
        return _fault(path, strict=strict) if path.stat().st_size else "it is empty"
    any_file = False
    for entry in files_in(str(path)):
        any_file = True
        if strict and is_leftover(entry.name):
            return f"{entry.name}: left by a save that did not finish"
        # An empty file is ordinary inside a directory: markers, __init__.py.
        if strict and entry.name.lower().endswith(_NEVER_EMPTY) and not entry.stat().st_size:
            return f"{entry.name}: it is empty"
        why = _fault(Path(entry.path), strict=strict) if entry.stat().st_size else None
        if why:
            return f"{entry.name}: {why}"
    return None if any_file else "a directory without any file"


def _fault(path: Path, *, strict: bool) -> str | None:
    suffix = path.suffix.lower()
    with os.fdopen(open_regular(path), "rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        start = file.read(8)
        if suffix in _ALWAYS_ZIP or (suffix in _MAYBE_ZIP and start.startswith(b"PK")):
            return _zip_fault(file)
        if suffix == ".safetensors":
            return _safetensors_fault(start, file, size_bytes)
        if suffix in _HDF5:
            return _hdf5_fault(file, size_bytes)
        if strict and suffix in _PICKLE and start.startswith(b"\x80"):
            return _pickle_fault(file)
        return _json_fault(file, size_bytes) if strict and suffix == ".json" else None


def _zip_fault(file: IO[bytes]) -> str | None:
    """Check the directory of a zip. It is the last part: if it reads and fits, the file was finished, or closed in
    order by a save that was interrupted; then storages are missing.

    Checksums are not computed: that would read all of a checkpoint of many GB.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            ends = [
                each.header_offset + _LOCAL_HEADER_BYTES + each.compress_size for each in archive.infolist()
            ]
            limit = archive.start_dir
            missing = missing_storage(archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, RuntimeError, struct.error):
        return "a zip file cut off or damaged: its directory cannot be read"
    if not ends:
        return "a zip file without an entry"
    if missing is not None:
        return f"{missing} is not whole in it: its save was interrupted"
    return None if max(ends) <= limit else "a zip file whose entries do not fit in it"


def _safetensors_fault(start: bytes, file: IO[bytes], size_bytes: int) -> str | None:
    """Check the size. Layout: header length (8 bytes, little endian), JSON header, then exactly the tensors listed."""
    if len(start) < 8:
        return "shorter than its header"
    (header_bytes,) = struct.unpack("<Q", start)
    if header_bytes > min(MAX_HEADER_BYTES, size_bytes - 8):
        return "shorter than its header, or not a safetensors file"
    try:
        header = msgspec.json.decode(file.read(header_bytes), type=dict[str, msgspec.Raw])
        tensors = [_decode_tensor(raw) for name, raw in header.items() if name != "__metadata__"]
    except (ValueError, RecursionError):
        return "its header cannot be read"
    expected = 8 + header_bytes + max((each.data_offsets[1] for each in tensors), default=0)
    return None if size_bytes == expected else f"{size_bytes} bytes, but its header says {expected}"


def _decode_tensor(raw: msgspec.Raw) -> _Tensor:
    return msgspec.json.decode(raw, type=_Tensor)


def _hdf5_fault(file: IO[bytes], size_bytes: int) -> str | None:
    """Check the end of the file as the superblock names it (HDF5 file format specification, section II.A)."""
    for offset in _HDF5_OFFSETS:
        file.seek(offset)
        block = file.read(64)
        if not block.startswith(_HDF5_SIGNATURE):
            continue
        version = block[8:9]
        at, address_bytes = _HDF5_END.get(version, (0, 0))
        if len(block) < 64 or not at or block[address_bytes] != 8:
            return None if len(block) == 64 else "shorter than its header"
        (end,) = struct.unpack_from("<Q", block, at)
        # Writers count from either start when a block of their own comes first; this holds for both.
        return None if end <= size_bytes else f"{size_bytes} bytes, but its header says {end}"
    return "not an HDF5 file"


def _pickle_fault(file: IO[bytes]) -> str | None:
    """Check for the opcode STOP at the end (pickletools.py). Since protocol 2 a pickle begins with b"\\x80"."""
    file.seek(-1, os.SEEK_END)
    return None if file.read(1) == b"." else "a pickle without its end"


def _json_fault(file: IO[bytes], size_bytes: int) -> str | None:
    if size_bytes > MAX_JSON_BYTES:
        return None
    file.seek(0)
    data = file.read()
    try:
        msgspec.json.decode(data, type=msgspec.Raw)  # checks the syntax and builds nothing
    except (ValueError, RecursionError):
        try:
            json.loads(data)  # Python writes NaN for a loss that diverged, and reads it back
        except (ValueError, RecursionError):
            return "JSON cut off or damaged"
    return None
