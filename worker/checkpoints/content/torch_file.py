"""Tells what a file by `torch.save` holds, from its pickle's opcodes: nothing is loaded, imported or called.

An interrupted `torch.save` still writes the directory of its zip, so that the file looks whole: what is missing are
storages that its `data.pkl` names. The same opcodes tell its keys, by which a checkpoint and a result differ.
"""

import errno
import os
import pickletools
import re
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Final

import msgspec

from backprop.scheduler.home.file_reading import open_regular

PICKLE: Final = "data.pkl"
MAX_PICKLE_BYTES: Final = 1 << 19
"""A quarter of a second of one core. What is longer is not looked into."""
MAX_DEPTH: Final = 100_000
_BYTES_EACH: Final = {
    "Double": 8, "Long": 8, "ComplexFloat": 8, "ComplexDouble": 16, "Float": 4, "Int": 4, "QInt32": 4, "Half": 2,
    "BFloat16": 2, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1, "QInt8": 1, "QUInt8": 1, "Untyped": 1,
}  # fmt: skip
_PLAIN: Final = re.compile(
    r"torch\.\w+|torch\.(_utils|_tensor|storage|serialization|nn\.parameter)\.\w+"
    r"|collections\.(OrderedDict|Counter)|(builtins|__builtin__)\.(set|bytearray|complex)|_codecs\.encode"
)
"""What `torch.load` makes of a file without leave: tensors, their kinds, and Python's own containers."""
_MARK: Final = object()
_NO_VALUE: Final = object()


class TorchContent(msgspec.Struct, frozen=True):
    """`storages`: by name, their bytes, None where the kind is unknown. `keys`: of the outermost dictionary, those with
    a value; empty for anything else. `named`: the classes and functions that make its objects."""

    storages: dict[str, int | None]
    keys: frozenset[str]
    named: frozenset[str] = frozenset()

    @property
    def holds_objects(self) -> bool:
        """Whether `torch.load` refuses it since 2.6 unless it is told that the file is trusted."""
        return not all(_PLAIN.fullmatch(name) for name in self.named)


class _Named(msgspec.Struct, frozen=True):
    """A class or function that the pickle names."""

    name: str


class _Dict:
    def __init__(self) -> None:
        self.items: dict[str, object] = {}

    def put(self, pairs: list[object]) -> None:
        for key, value in zip(pairs[::2], pairs[1::2], strict=False):
            if isinstance(key, str):
                self.items[key] = value


def content_at(path: Path) -> TorchContent | None:
    """Return what a file by `torch.save` holds; None for any other, and where that cannot be told, or read."""
    try:
        with os.fdopen(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
            return content_of(archive)
    except (OSError, ValueError, RuntimeError, NotImplementedError, zipfile.BadZipFile):
        return None


def content_of(archive: zipfile.ZipFile) -> TorchContent | None:
    """Return the same of an open zip. Raises OSError.

    That its checksum is wrong says nothing: torch can leave checksums out.
    """
    entry = _pickle_of(archive)
    if entry is None or entry.file_size > MAX_PICKLE_BYTES:
        return None
    try:
        return _run(archive.read(entry))
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError):
        return None
    except (zipfile.BadZipFile, zlib.error):
        return None
    except OSError as error:
        # An entry that claims to begin before the file does.
        if error.errno != errno.EINVAL:
            raise
        return None


def missing_storage(archive: zipfile.ZipFile) -> str | None:
    """Return which storage the pickle names that is not there, or not with its size; None where all are."""
    content, entry = content_of(archive), _pickle_of(archive)
    if content is None or entry is None:
        return None
    folder = entry.filename.removesuffix(PICKLE)
    sizes = {info.filename: info.file_size for info in archive.infolist()}
    for name, expected in content.storages.items():
        size = sizes.get(f"{folder}data/{name}")
        if size is None or (expected is not None and size < expected):
            return f"{folder}data/{name}"
    return None


def _pickle_of(archive: zipfile.ZipFile) -> zipfile.ZipInfo | None:
    names = (entry for entry in archive.infolist() if entry.filename.count("/") == 1)
    return next((entry for entry in names if entry.filename.endswith(f"/{PICKLE}")), None)


@lru_cache(maxsize=8)
def _run(pickled: bytes) -> TorchContent:
    """Follow the opcodes on a stack of texts, numbers, tuples and stand-ins for all else."""
    stack: list[object] = []
    memo: dict[int, object] = {}
    storages: dict[str, int | None] = {}
    named = set[str]()

    def since_mark() -> list[object]:
        at = len(stack) - 1
        while stack[at] is not _MARK:  # IndexError where there is none
            at -= 1
        taken = stack[at + 1 :]
        del stack[at:]
        return taken

    for opcode, argument, _ in pickletools.genops(pickled):
        name = opcode.name
        if len(stack) > MAX_DEPTH:
            raise ValueError("too deep")
        if name in ("PROTO", "FRAME"):
            continue
        if name == "STOP":
            break
        if name == "MARK":
            stack.append(_MARK)
        elif name in ("GLOBAL", "INST"):
            if name == "INST":
                since_mark()
            named.add(str(argument).replace(" ", "."))
            stack.append(_Named(str(argument).replace(" ", ".")))
        elif name == "STACK_GLOBAL":
            last, module = stack.pop(), stack.pop()
            named.add(f"{module}.{last}")
            stack.append(_Named(f"{module}.{last}"))
        elif name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[len(memo) if name == "MEMOIZE" else int(str(argument))] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[int(str(argument))])
        elif name in ("EMPTY_DICT", "DICT"):
            made = _Dict()
            if name == "DICT":
                made.put(since_mark())
            stack.append(made)
        elif name in ("SETITEMS", "SETITEM"):
            pairs = since_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            if isinstance(stack[-1], _Dict):
                stack[-1].put(pairs)
        elif name in ("APPENDS", "ADDITEMS"):
            since_mark()
        elif name in ("APPEND", "BUILD", "POP"):
            stack.pop()
        elif name == "POP_MARK":
            since_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_TUPLE"):
            count = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}.get(name, 0)
            parts = since_mark() if name == "TUPLE" else stack[len(stack) - count :]
            if count:
                del stack[len(stack) - count :]
            stack.append(tuple(parts))
        elif name in ("LIST", "FROZENSET", "OBJ"):
            since_mark()
            stack.append(_NO_VALUE)
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX"):
            del stack[len(stack) - (2 if name == "NEWOBJ_EX" else 1) :]
            made_by = stack.pop()
            is_dict = isinstance(made_by, _Named) and made_by.name == "collections.OrderedDict"
            stack.append(_Dict() if is_dict else _NO_VALUE)
        elif name in ("BINPERSID", "PERSID"):
            _note_storage(stack.pop() if name == "BINPERSID" else argument, storages)
            stack.append(_NO_VALUE)
        elif name == "NONE":
            stack.append(None)
        elif not opcode.stack_before and len(opcode.stack_after) == 1:
            stack.append(argument if isinstance(argument, str | int) else _NO_VALUE)
        else:
            raise NotImplementedError(name)
    outermost = stack[-1]
    items = outermost.items if isinstance(outermost, _Dict) else {}
    keys = frozenset(key for key, value in items.items() if value is not None)
    return TorchContent(storages, keys, frozenset(named))


def _note_storage(told: object, storages: dict[str, int | None]) -> None:
    """Take a persistent id apart: ("storage", its class, its name, its device, how many elements)."""
    if not isinstance(told, tuple) or len(told) < 5 or told[0] != "storage":  # pyright: ignore[reportUnknownArgumentType]
        return
    kind, name, count = told[1], told[2], told[4]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(name, str):
        each = (
            _BYTES_EACH.get(kind.name.rpartition(".")[2].removesuffix("Storage"))
            if isinstance(kind, _Named)
            else None
        )
        storages[name] = each * count if each is not None and isinstance(count, int) else None
