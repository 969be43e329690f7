"""Two scripts that listen on the same fixed port: they take turns, and neither fails."""

import socket

from tests.support.harness import Bench, wait_until

SERVER = """
    import os, socket, time
    with open("ports", "a") as file:
        print(os.environ["MASTER_PORT"], os.environ["PET_MASTER_PORT"], file=file)
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("localhost", {port}))
        server.listen()
    except OSError as error:
        raise RuntimeError("The server socket has failed to bind to [::]:{port} (%s)" % error)
    while not os.path.exists(os.environ["BACKPROP_RUN_NAME"]):
        time.sleep(0.02)
"""


def test_runs_with_one_fixed_port_take_turns(bench: Bench) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    bench.script("serve.py", SERVER.replace("{port}", str(port)))
    names = [bench.queue("serve.py", "-n", name) for name in ("one", "two")]
    bench.worker("-p", "2")
    told = f"waits for port {port}"
    wait_until(
        lambda: any(told in str(bench.column(name, "reason")) for name in names),
        saw=lambda: [bench.column(name, "reason") for name in names],
    )
    late = next(name for name in names if told in str(bench.column(name, "reason")))
    assert bench.column(late, "retries_used") == 0
    for name in ("one", "two"):
        (bench.project / name).touch()
    for name in names:
        assert bench.wait_for(name, "completed")["state"] == "completed"
    assert bench.show(late)["segments"][0]["reason"].startswith("port in use: ")
    offered = [line.split() for line in (bench.project / "ports").read_text().splitlines()]
    assert len(offered) == 3
    assert all(master == pet for master, pet in offered)
    assert offered[0] != offered[1], "runs that live at once have ports of their own"
