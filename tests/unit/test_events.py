"""Events: the original's shapes, and every line a script could print without meaning one."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backprop.worker.segments.events import (
    MAX_LINE,
    BadEvent,
    CheckpointEvent,
    ProgressEvent,
    may_hold_any,
    parse,
)

relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (b'{"event":"checkpoint_saved","path":"out/1.pt"}', CheckpointEvent("out/1.pt")),
        (b'{"event": "train step", "step": 3, "loss": 0.5, "level": "info"}', ProgressEvent(3, 0.5)),
        (b'{"event":"checkpoint_saved","path":"/a b/1.pt","step":7}', CheckpointEvent("/a b/1.pt", 7)),
        (b'{"event":"checkpoint_saved","path":"x","seconds":3.5}', CheckpointEvent("x", None, 3.5)),
        (b'{"event":"checkpoint_saved","path":"x","seconds":-1}', CheckpointEvent("x")),
        (b'{"event":"checkpoint_saved","path":"x","seconds":1e300}', CheckpointEvent("x")),
        (b'{"event":"checkpoint_saved","path":"x","seconds":"3 s"}', CheckpointEvent("x")),
        (b'{"event":"checkpoint_saved","path":"x","seconds":true}', CheckpointEvent("x")),
        (b'{"step":3,"loss":0.5}', ProgressEvent(3, 0.5)),
        (b'{"step":3.0}', ProgressEvent(3)),
        (b'{"loss":1}', ProgressEvent(None, 1.0)),
        (b'{"step":null,"loss":2e-3}', ProgressEvent(None, 0.002)),
        (b'  \t{"step":3}\r', ProgressEvent(3)),
        (b'{"event":"progress","step":1,"loss":null,"nonfinite":true}', ProgressEvent(1, nonfinite=True)),
        (b'{"event":"progress"}', ProgressEvent()),
        (b'{"step": 1, "loss": Infinity}', ProgressEvent(1, nonfinite=True)),
        (
            b'{"step": 1, "loss": NaN, "metrics": {"a": -Infinity, "b": 2}}',
            ProgressEvent(1, None, {"b": 2}, True),
        ),
        (b'{"step": 1, "loss": 0.5, "lr": NaN}', ProgressEvent(1, 0.5)),
        (b"{'loss': nan, 'grad_norm': 3.1}", ProgressEvent(nonfinite=True)),
        (b"epoch 3  loss: NaN  acc: 0.1", ProgressEvent(nonfinite=True)),
        (b"loss=tensor(nan, device='cuda:0')", ProgressEvent(nonfinite=True)),
        (b"iter 100: loss nan, time 23.10ms, mfu 2.0%", ProgressEvent(nonfinite=True)),
        (b"Loss is nan, stopping training", ProgressEvent(nonfinite=True)),
        (b"train_loss: nan", ProgressEvent(nonfinite=True)),
        (b"step 0: train loss nan, val loss 4.2", ProgressEvent(nonfinite=True)),
        (b'{"step":1,"epoch":[{"deep":{}}],"lr":"x"}', ProgressEvent(1)),
        (
            b'{"step":1,"metrics":{"acc":0.5,"n":3,"s":"x","t":true,"l":[1]}}',
            ProgressEvent(1, None, {"acc": 0.5, "n": 3}),
        ),
        (b'{"step":1,"metrics":[1]}', ProgressEvent(1)),
        ('{"event":"checkpoint_saved","path":"ö/✓.pt"}'.encode(), CheckpointEvent("ö/✓.pt")),
        (b'{"event":"checkpoint_saved","path":"\\ud83d\\ude00"}', CheckpointEvent("😀")),
        (b'{"step":9223372036854775807}', ProgressEvent(2**63 - 1)),
    ],
)
def test_the_shapes_of_the_protocol(line: bytes, event: object) -> None:
    assert parse(line) == event
    assert may_hold_any(b"before\n" + line + b"\nafter\n") or event is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"   ",
        b"Epoch 3: loss 0.5",
        b"best_loss=nan",
        b"best loss nan",
        b"step 0: train loss 4.1, val loss nan",
        b"val_loss: nan",
        b"loss nanometres",
        b"loss: nanometres",
        b"no nan in the loss",
        b"[1, 2]",
        b"{}",
        b'{"epoch": 3}',
        b'{"event": "other", "path": "x"}',
        b'{"event": "other", "step": "three"}',
        b'{"event": "other", "step": -3}',
        b'{"event": 5}',
        b"{'loss': 0.31, 'learning_rate': 5e-05}",
        b"{not json at all",
        b'{"accuracy": NaN}',
        b'{"a":' * 20_000,
        b'{"metrics": {"a": 1}}',
        b'{"step": null, "loss": null}',
        b"\x00\x01\x02\xff",
        b'tqdm\r 50%|##  | {"',
        b'"step": 3',
    ],
)
def test_ordinary_output_is_none(line: bytes) -> None:
    assert parse(line) is None


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"step": 3', "truncated"),
        (b'{"step": 3} {"step": 4}', "trailing"),
        (b'{"step": NaN}', "malformed"),
        (b'{"loss": 1e999}', "out of range"),
        (b'{"loss": "0.5"}', "loss: expected a finite number"),
        (b'{"loss": true}', "loss: expected a finite number"),
        (b'{"loss": ' + b"9" * 400 + b"}", "loss: expected a finite number"),
        (b'{"step": true}', "step: expected a whole number"),
        (b'{"step": -1}', "step: expected a whole number"),
        (b'{"step": 1.5}', "step: expected a whole number"),
        (b'{"step": 9223372036854775808}', "step: expected a whole number"),
        (b'{"step": 1e300}', "step: expected a whole number"),
        (b'{"step": "3"}', "step: expected a whole number"),
        (b'{"step": ' + b"9" * 5000 + b"}", "out of range"),
        (b'{"event":"checkpoint_saved"}', "path: expected text"),
        (b'{"event":"checkpoint_saved","path":""}', "path: expected text"),
        (b'{"event":"checkpoint_saved","path":["x"]}', "path: expected text"),
        (b'{"event":"checkpoint_saved","path":"a\\u0000b"}', "path: holds a NUL"),
        (b'{"event":"checkpoint_saved","path":"' + b"a" * 4097 + b'"}', "path: longer than 4096 bytes"),
        ('{"event":"checkpoint_saved","path":"' + "ö" * 2049 + '"}', "path: longer than 4096 bytes"),
        (b'{"event":"checkpoint_saved","path":"\\ud800 half"}', "surrogate"),
        (b'{"event":"checkpoint_saved","path":"\xff"}', "utf-8"),
        (b'{"event":"checkpoint_saved","path":"x","step":-1}', "step: expected"),
        (b'{"step":1,"x":' + b"[" * 60_000, "recursion"),
        (b'{"step":1,"x":"' + b"a" * MAX_LINE + b'"}', "longer than"),
    ],
)
def test_a_bad_event_says_why(line: bytes | str, why: str) -> None:
    found = parse(line if isinstance(line, bytes) else line.encode())
    assert isinstance(found, BadEvent)
    assert why in found.why


def test_a_line_at_the_limit_is_still_read() -> None:
    head, tail = b'{"step":1,"x":"', b'"}'
    line = head + b"a" * (MAX_LINE - len(head) - len(tail)) + tail
    assert parse(line) == ProgressEvent(1)


def test_an_event_behind_a_progress_bar_is_not_lost() -> None:
    """tqdm's last state has no newline, so what the script prints next is on the same line of the log."""
    bar = "\r 40%|████      | 2/5 [00:01<00:02]\r 60%|██████    | 3/5 [00:01<00:01,  1.9it/s]"
    said = '{"event":"checkpoint_saved","path":"out/3.pt","step":3}'
    assert parse((bar + said).encode()) == CheckpointEvent("out/3.pt", 3)
    assert parse((bar + said + "\r").encode()) == CheckpointEvent("out/3.pt", 3)
    assert parse(("said: " + said).encode()) is None, "prose about an event is not one"


def test_metrics_are_bounded() -> None:
    many = {f"m{n}": n for n in range(1000)} | {"x" * 500: 1}
    found = parse(json.dumps({"step": 1, "metrics": many}).encode())
    assert isinstance(found, ProgressEvent)
    assert len(found.metrics) == 64


def storable(found: object) -> None:
    """What SQLite and a terminal may be given: finite, in range, encodable."""
    match found:
        case CheckpointEvent(path, step):
            assert 0 < len(path.encode()) <= 4096
            assert "\0" not in path
            assert step is None or 0 <= step < 2**63
        case ProgressEvent(step, loss, metrics, _):
            assert step is None or (type(step) is int and 0 <= step < 2**63)
            assert all(math.isfinite(number) for number in (loss or 0.0, *metrics.values()))
        case BadEvent(why):
            assert why.encode()
        case _:
            assert found is None


@relaxed
@given(st.binary(max_size=300))
def test_any_bytes(line: bytes) -> None:
    for text in (line, b'{"step":' + line, b"loss: n" + line, b"loss: nan" + line):
        storable(parse(text))
        # What is passed over in blocks would have been nothing by itself.
        assert may_hold_any(text) or parse(text) is None


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_keys = st.sampled_from(["event", "path", "step", "loss", "metrics", "nonfinite"]) | st.text(max_size=5)
_objects = st.dictionaries(_keys, _values | st.sampled_from(["checkpoint_saved", "progress"]), max_size=6)


@relaxed
@given(_objects)
def test_any_json_object(value: dict[str, object]) -> None:
    storable(parse(json.dumps(value).encode()))
    storable(parse(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")))


@relaxed
@given(
    st.sampled_from(
        [
            b'{"event":"checkpoint_saved","path":"out/1.pt","step":7}',
            b'{"step":3,"loss":0.5,"metrics":{"a":1}}',
        ]
    ),
    st.lists(st.tuples(st.integers(0, 60), st.binary(max_size=3)), min_size=1, max_size=4),
)
def test_any_damage_to_a_good_line(line: bytes, edits: list[tuple[int, bytes]]) -> None:
    for at, piece in edits:
        line = line[:at] + piece + line[at + 1 :]
    storable(parse(line))
