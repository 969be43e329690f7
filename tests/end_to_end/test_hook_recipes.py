"""The recipes of docs/hooks.md, run as they stand there by a worker, against servers that listen here."""

import contextlib
import json
import os
import re
import shutil
import socketserver
import threading
from collections.abc import Callable, Iterator
from email import message_from_bytes, policy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backprop.scheduler.home.layout import Home, ensure
from tests.support.harness import COMMAND, ROOT, Bench

PAGE = (ROOT / "docs" / "hooks.md").read_text()
NAME = "grüße 7"
"""A run's name that is neither one word nor ASCII."""
RECIPES = {"ntfy", "Mail", "notify-send", "Slack, Discord, Telegram and others"}


def section(title: str) -> str:
    """Return what stands under a heading of the page."""
    return re.split(r"^#{2,3} ", PAGE.partition(f" {title}\n")[2], maxsplit=1, flags=re.M)[0]


def block(title: str, language: str) -> str:
    """Return the first block of a section in a language."""
    (found, *_) = re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.M | re.S)
    return found


def configure(bench: Bench, title: str, change: Callable[[str], str] = lambda text: text) -> dict[str, str]:
    """Make the recipe's block the home's configuration; return its hooks."""
    text = change(block(title, "json"))
    ensure(Home(bench.home))
    (bench.home / "config.json").write_text(text)
    return json.loads(text)["hooks"]


def fail_one(bench: Bench, **env: str) -> None:
    """Have a run of a group fail, alone in its queue."""
    bench.script("bad.py", "raise SystemExit(3)\n")
    bench.queue("bad.py", "-n", NAME, "--group", "sweep")
    assert bench.worker("--drain", env=env).wait(timeout=60) == 0


def stand_in(bench: Bench, *names: str) -> Callable[[str], list[str]]:
    """Put programs on PATH that note their words, variables and stdin; return what reads the notes of one."""
    folder = bench.project.parent / "bin"
    folder.mkdir()
    for name in names:
        program = folder / name
        note = folder / f"{name}.note"
        program.write_text(
            f'#!/bin/sh\n{{ for word; do echo "$word"; done; echo "bus $DBUS_SESSION_BUS_ADDRESS"; cat; }} > {note}\n'
        )
        program.chmod(0o755)
    bench.environment["PATH"] = f"{folder}:{bench.environment['PATH']}"
    return lambda name: (folder / f"{name}.note").read_text().splitlines()


@pytest.fixture
def web() -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A web server that notes what is posted: its address, and path, headers and body of each."""
    posted: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            posted.append((self.path, dict(self.headers.items()), body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        yield f"127.0.0.1:{port}", posted


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as smtplib speaks."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            word = line.split()[0].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = iter(self.rfile.readline, b".\r\n")
                self.server.received.append(b"".join(lines))  # type: ignore[attr-defined]
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 good\r\n")
            if word == b"QUIT":
                return


@contextlib.contextmanager
def serving(server: socketserver.BaseServer) -> Iterator[int]:
    """Serve in a thread; yield the port."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_every_recipe_of_the_page_has_its_test() -> None:
    recipes = PAGE.partition("\n## Recipes\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^### (.+)$", recipes, re.M)) == RECIPES


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_ntfy(bench: Bench, web: tuple[str, list[tuple[str, dict[str, str], bytes]]]) -> None:
    address, posted = web
    configure(bench, "ntfy", lambda text: text.replace("https://ntfy.sh/", f"http://{address}/"))
    fail_one(bench)
    by_body = {body.decode(): (path, headers) for path, headers, body in posted}
    (failed,) = [body for body in by_body if "exited 3" in body]
    path, headers = by_body[failed]
    assert path == "/MY-TOPIC"
    assert headers["Title"].encode("latin-1").decode() == f"{NAME} failed"
    assert "the queue is empty" in by_body


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_a_server_that_is_away_costs_a_line(bench: Bench) -> None:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)) as port:
        pass
    configure(bench, "ntfy", lambda text: text.replace("https://ntfy.sh/", f"http://127.0.0.1:{port}/"))
    fail_one(bench)
    assert "failed: exited 7, see " in bench.output()
    assert "Failed to connect" in (bench.home / "hooks.log").read_text()


def test_mail(bench: Bench) -> None:
    hooks = configure(bench, "Mail")
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox)
    server.received = []  # type: ignore[attr-defined]
    with serving(server) as port:
        program = block("Mail", "python")
        assert '"localhost", 25' in program
        (bench.home / "mail.py").write_text(program.replace('"localhost", 25', f'"127.0.0.1", {port}'))
        fail_one(bench)
    mails = [message_from_bytes(one, policy=policy.default) for one in server.received]  # type: ignore[attr-defined]
    assert {mail["Subject"] for mail in mails} == {
        f"backprop: {NAME}: failed", "backprop: sweep: group_finished",
    }  # fmt: skip
    assert {mail["To"] for mail in mails} == {"me@example.org"}
    assert {json.loads(mail.get_content())["event"] for mail in mails} == set(hooks)


def test_notify_send(bench: Bench) -> None:
    noted = stand_in(bench, "notify-send")
    configure(bench, "notify-send")
    bench.environment.pop("DBUS_SESSION_BUS_ADDRESS", None)
    fail_one(bench)
    assert noted("notify-send")[:3] == ["-u", "critical", f"{NAME} failed"]
    assert "exited 3" in noted("notify-send")[3]
    assert noted("notify-send")[4] == f"bus unix:path=/run/user/{os.getuid()}/bus"


@pytest.mark.skipif(
    not (COMMAND.parent / "apprise").exists(), reason="apprise is not installed beside this Python"
)
def test_apprise(
    bench: Bench, web: tuple[str, list[tuple[str, dict[str, str], bytes]]], tmp_path: Path
) -> None:
    address, posted = web
    configure(bench, "Slack, Discord, Telegram and others")
    (tmp_path / ".config").mkdir()
    (tmp_path / ".config" / "apprise.conf").write_text(f"json://{address}/chat\n")
    fail_one(bench, HOME=str(tmp_path))
    told = {(one := json.loads(body))["title"]: one["message"] for _, _, body in posted}
    assert told.keys() == {f"{NAME} failed", "group sweep"}, (bench.home / "hooks.log").read_text()
    assert "exited 3" in told[f"{NAME} failed"]


def test_the_first_example(bench: Bench) -> None:
    noted = stand_in(bench, "notify-send", "mail", "systemctl")
    configure(bench, "Hooks")
    fail_one(bench)
    assert noted("notify-send")[0] == f"backprop: {NAME} failed"
    assert noted("mail")[:3] == ["-s", "sweep done", "me@example.org"]
    assert noted("mail")[-1] == "sweep"
    assert noted("systemctl")[0] == "suspend"
