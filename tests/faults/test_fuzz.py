"""Any bytes at all, as a checkpoint file or as what a GPU tool prints: an answer or a refusal, never an exception.

Events, settings, logs and text for terminals are fuzzed in their own modules' tests.
"""

import io
import json
import struct
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from backprop.scheduler.governor.snapshot import Gpu
from backprop.worker.checkpoints.formats import looks_torn, looks_whole, shows_its_end
from backprop.worker.probes import amd_tools, nvidia_smi
from backprop.worker.probes.vendor_tool import ToolError, ToolResult

relaxed = settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def zipped() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("archive/data.pkl", b"weights" * 20)
    return made.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


def hdf5() -> bytes:
    block = b"\x89HDF\r\n\x1a\n" + bytes([2, 8, 8, 0]) + struct.pack("<QQQQ", 0, 2**64 - 1, 96, 48) + bytes(4)
    return block.ljust(96, b"\0")


WHOLE = {
    ".pt": zipped(),
    ".npz": zipped(),
    ".safetensors": safetensors(),
    ".h5": hdf5(),
    ".pkl": b"\x80\x04K\x01.",
    ".json": b'{"step": 1}',
}


@pytest.mark.parametrize("suffix", WHOLE)
def test_every_sample_below_is_whole(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"saved{suffix}"
    path.write_bytes(WHOLE[suffix])
    assert looks_whole(path) is None


@relaxed
@given(data=st.data(), suffix=st.sampled_from([*WHOLE, ".keras", ".hdf5", ".ckpt", ".bin"]))
def test_any_bytes_as_a_checkpoint(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    """Of its own or as a change to a whole file; told the same way twice."""
    path = tmp_path / f"saved{suffix}"
    path.write_bytes(data.draw(st.binary(max_size=200) | changed(WHOLE.get(suffix, zipped()))))
    torn, whole = looks_torn(path), looks_whole(path)
    assert (torn, whole) == (looks_torn(path), looks_whole(path))
    assert torn is None or whole is not None, "what no whole file can look like does not look whole"
    assert shows_its_end(path) in (True, False)


@relaxed
@given(data=st.data(), suffix=st.sampled_from(sorted(WHOLE)))
def test_a_checkpoint_cut_anywhere_does_not_look_whole(
    tmp_path: Path, data: st.DataObject, suffix: str
) -> None:
    path = tmp_path / f"saved{suffix}"
    # A file of .pt that no longer begins as a zip may be one of the bare pickles of old.
    least = 2 if suffix == ".pt" else 1
    path.write_bytes(WHOLE[suffix][: data.draw(st.integers(least, len(WHOLE[suffix]) - 1))])
    assert looks_whole(path) is not None


@st.composite
def changed(draw: st.DrawFn, whole: bytes) -> bytes:
    """Some bytes of `whole` replaced, a piece of it taken out or put in."""
    text = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        gone = draw(st.integers(0, 8))
        text[at : at + gone] = draw(st.binary(max_size=8))
    return bytes(text)


FIELDS = st.one_of(
    st.sampled_from(
        ["0", "1", "GPU-1", "NVIDIA L4", "[N/A]", "[GPU is lost]", "23034", "Active", "Not Active", "²", ""]
    ),
    st.integers().map(str),
    st.just("9" * 4301),
    st.text(max_size=12),
)
ROWS = st.lists(st.lists(FIELDS, min_size=6, max_size=11).map(", ".join) | st.text(max_size=40), max_size=5)


@relaxed
@given(ROWS, st.sampled_from([0, 1, 9, 15]))
def test_any_text_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch, rows: list[str], code: int) -> None:
    listed = "\n".join(f"GPU {row}: L4 (UUID: GPU-{number})" for number, row in enumerate(rows))
    answers(monkeypatch, nvidia_smi, lambda words: listed if "-L" in words else "\n".join(rows), code)
    plausible(lambda: nvidia_smi.read_nvidia_smi(Path("nvidia-smi"), 5.0).gpus)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("9" * 4301),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_amounts = _values | st.fixed_dictionaries({"value": _values, "unit": st.sampled_from(["MB", "GB", "%"])})
AMD_SMI = st.lists(
    st.fixed_dictionaries(
        {"gpu": _values, "uuid": _values, "bdf": _values},
        optional={
            "mem_usage": _values | st.dictionaries(st.sampled_from(["total_vram", "used_vram"]), _amounts),
            "temperature": _values | st.dictionaries(st.sampled_from(["edge", "hotspot"]), _amounts),
            "usage": _values | st.dictionaries(st.just("gfx_activity"), _amounts),
        },
    ),
    max_size=3,
)
ROCM_SMI = st.dictionaries(
    st.sampled_from(["card0", "card1", "system", "card" + "9" * 4301]),
    _values
    | st.dictionaries(
        st.sampled_from(["VRAM Total Memory (B)", "VRAM Total Used Memory (B)", "Unique ID", "GPU use (%)"]),
        _values,
    ),
    max_size=3,
)


@relaxed
@given(AMD_SMI.map(json.dumps) | ROCM_SMI.map(json.dumps) | st.text(max_size=60))
@example("[{" * 50_000)
def test_any_text_from_amds_tools(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    answers(monkeypatch, amd_tools, lambda _: text, 0)
    end_s = time.monotonic() + 5.0
    plausible(lambda: tuple(amd_tools.read_amd_smi(Path("amd-smi"), end_s)))
    plausible(lambda: tuple(amd_tools.read_rocm_smi(Path("rocm-smi"), end_s)))


def answers(
    monkeypatch: pytest.MonkeyPatch, module: object, said: Callable[[Sequence[str]], str], code: int
) -> None:
    """The tool prints this, whatever its length and its exit code."""
    monkeypatch.setattr(module, "ask_tool", lambda _tool, words, _end_s: ToolResult(code, said(words), ""))


def plausible(read: Callable[[], tuple[Gpu, ...]]) -> None:
    """GPUs whose numbers can be numbers of a GPU, or a refusal."""
    try:
        gpus = read()
    except ToolError:
        return
    for gpu in gpus:
        assert gpu.uuid
        assert gpu.free_mib is None or (gpu.total_mib is not None and 0 <= gpu.free_mib <= gpu.total_mib)
