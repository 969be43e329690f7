"""Events of a followed run become one line that is drawn in place; all else passes as it was printed."""

import io
import re

from backprop.cli.live.folded_events import FoldedEvents

EVENTS = (
    b'{"step": 10, "loss": 2.042468}\n'
    b'{"event": "checkpoint_saved", "path": "out/a.pt", "step": 10}\n'
    b'{"step": 1320, "loss": 0.25, "metrics": {"accuracy": 0.966555}}\n'
)


def seen(*parts: bytes, columns: int = 80) -> list[str]:
    """Return the lines that a terminal shows in the end."""
    out = io.BytesIO()
    folded = FoldedEvents(out, columns)
    for part in parts:
        folded.write(part)
    folded.end()
    shown: list[str] = []
    for line in out.getvalue().decode().split("\n"):
        shown.append(re.split(r"\r\x1b\[K", line)[-1])
    return shown[:-1]


def test_events_are_one_line_and_other_lines_scroll_above_it() -> None:
    assert seen(b"begin\n", EVENTS, b"middle\n", b'{"step": 1330}\n', b"end\n") == [
        "begin", "middle", "end", "  step 1,330  saved at step 10",
    ]  # fmt: skip
    assert seen(EVENTS) == ["  step 1,320  loss 0.25  accuracy 0.9666  saved at step 10"]


def test_however_the_bytes_arrive() -> None:
    whole = b"begin\n" + EVENTS + b"middle\n" + EVENTS
    assert seen(*(whole[at : at + 1] for at in range(len(whole)))) == seen(whole)


def test_an_unfinished_line_is_shown_at_once_and_nothing_is_drawn_into_it() -> None:
    out = io.BytesIO()
    folded = FoldedEvents(out, 80)
    folded.write(EVENTS)
    folded.write(b"epoch 1: 10%")
    assert out.getvalue().endswith(b"\r\x1b[Kepoch 1: 10%")
    folded.write(b"\repoch 1: 20%")
    assert out.getvalue().endswith(b"\repoch 1: 20%")
    folded.write(b'{"step": 1}\n')
    assert b'20%{"step": 1}\n' in out.getvalue(), "it goes on, and is no event"


def test_what_is_not_an_event_passes_unchanged() -> None:
    assert seen(b'{"event": 3', b"}\n", b"{broken\n", b"\n", b'{"other": 1}\n') == [
        '{"event": 3}', "{broken", "", '{"other": 1}',
    ]  # fmt: skip


def test_the_line_fits_and_holds_no_escapes() -> None:
    name = "x" * 50
    (line,) = seen(b'{"step": 1, "metrics": {"' + name.encode() + b'\\u001b[2J": 1.0}}\n', columns=30)
    assert len(line) <= 29
    assert "\x1b" not in line
