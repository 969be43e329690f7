"""A run is queued with credentials: its script gets them, and no output and no hook has them."""

import json

from tests.support.harness import QUIET_LIMITS, Bench

SECRETS = ("hf_AbCdEfGhIjKlMnOpQrSt", "pa55w0rd", "0123456789deadbeef")
CHECKS = f"""
    import os, sys
    assert sys.argv[2] == "{SECRETS[0]}" and "ada:{SECRETS[1]}@" in sys.argv[3]
    assert os.environ["WANDB_API_KEY"] == "{SECRETS[2]}"
    print("step 1 loss 0.5", flush=True)
"""


def test_no_output_and_no_hook_has_them(bench: Bench) -> None:
    bench.script("checks.py", CHECKS)
    seen = bench.project / "hook.json"
    (bench.home / "config.json").parent.mkdir(exist_ok=True)
    (bench.home / "config.json").write_text(json.dumps({"hooks.completed": f"cat > {seen}; env >> {seen}"}))
    words = ("--env", f"WANDB_API_KEY={SECRETS[2]}", "checks.py", "--", "--hub_token", SECRETS[0])
    words = (*words, f"db://ada:{SECRETS[1]}@host/x")
    rehearsed = bench.backprop("run", "--dry-run", *QUIET_LIMITS, *words)
    done = bench.backprop("run", "--json", *QUIET_LIMITS, *words)
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)["runs"][0]["id"]
    assert bench.worker("--drain").wait(timeout=60) == 0
    assert bench.state(run) == "completed", bench.log(run)
    asked = (
        ("show", run), ("show", run, "--json"), ("show", run, "--brief"), ("list", "--json"), ("list",), ("why", run),
        ("export",), ("export", "--format", "csv"), ("export", "--format", "original"), ("doctor", "--json"),
        ("report",), ("config", "--json"), ("logs", run),
    )  # fmt: skip
    outputs = [bench.backprop(*command) for command in asked]
    texts = [text for one in (rehearsed, done, *outputs) for text in (one.stdout, one.stderr)]
    assert "--hub_token '***' 'db://ada:***@host/x'" in bench.backprop("show", run).stdout
    assert json.loads(seen.read_text().splitlines()[0])["run"]["argv"][-2:] == ["***", "db://ada:***@host/x"]
    for text in (*texts, bench.output(), seen.read_text()):
        assert [secret for secret in SECRETS if secret in text] == []
