"""Words the failure of a run that did not get to a step or a checkpoint in the time it was given for that. Pure."""

from typing import Final

HEAD: Final = "smoke test failed"


def why_late(smoke_s: float, run_id: str) -> str:
    """Return why a run is ended whose time for its first step is over, and what to do."""
    return (
        f"{HEAD}: no step and no checkpoint was seen in its first {smoke_s:g} s; see backprop logs {run_id}; to allow"
        f" more: backprop resume {run_id} --smoke-seconds {4 * smoke_s:g}"
    )


def why_over_limit(why: str | None) -> str:
    """Word why a run was ended that went beyond a limit: of the machine, or of the time for its first step."""
    return f"{why}" if why is not None and why.startswith(HEAD) else f"over its limit: {why}"


def is_failure(reason: str) -> bool:
    """Return whether a reason is that of such a failure."""
    return reason.startswith(HEAD)
