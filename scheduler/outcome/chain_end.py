"""Tells whether a chain of segments ends here, and what its user can do then."""

import math
from typing import Final

from backprop.scheduler.outcome.move import Advice
from backprop.scheduler.outcome.segment_result import Chain, SegmentResult
from backprop.scheduler.spec import RunSpec

STALLED_CAP: Final = 2


def chain_end(
    spec: RunSpec, result: SegmentResult, chain: Chain, stalled: int, timeboxed: bool
) -> tuple[str, Advice] | None:
    """Return why the chain ends here, with what to do about it; None when it goes on."""
    what = "stopped after its timebox" if timeboxed else "asked to run again (exit code 75)"
    if timeboxed and result.why_asked:
        what = result.why_asked
    if not spec.auto_resume:
        return f"{what}; auto-resume is off", Advice(lead=": ", effect=" continues it")
    if (limit := limit_reached(spec, chain)) is not None:
        return limit
    if timeboxed and spec.plan is not None and spec.cannot_resume:
        why = spec.plan.why or "by its recipe"
        wrote = f"; it wrote {chain.not_handed_back}" if chain.not_handed_back is not None else ""
        return f"{what}: it cannot resume ({why}){wrote}", _longer(spec, result, "; allow more time: ")
    if timeboxed and not chain.resumable and chain.not_handed_back is not None:
        why = f"{what}; " if result.why_asked else ""
        reason = f"{why}no option to resume: {chain.why_not_resumable}"
        return reason, Advice(lead="; if it takes one: ", asks_resume_arg=True)
    if timeboxed and chain.doubted and stalled < STALLED_CAP:
        return None  # the next time it runs beside none of those that may have written it
    if timeboxed and not chain.resumable and chain.refused is not None:
        reason = f"{what}: {chain.why_not_resumable}, so it would restart from zero.{_details(spec, result)}"
        return reason, _save_or_longer(spec, result)
    if timeboxed and not chain.resumable:
        reason = f"{what}: no checkpoint found, so it would restart from zero.{_details(spec, result)}"
        return reason, _save_or_longer(spec, result)
    if stalled >= STALLED_CAP:
        reason = f"no progress: {stalled} segments in a row saved no new checkpoint.{_details(spec, result)}"
        return reason, _save_or_longer(spec, result)
    return None


def limit_reached(spec: RunSpec, chain: Chain) -> tuple[str, Advice] | None:
    """Return which limit of the chain is reached. Yielded and lost segments count, but never end the chain by it."""
    if (most := spec.max_segments) is not None and chain.segments >= most:
        return f"reached --max-segments {most}", Advice(effect=f" allows {most} more")
    if spec.max_total_s is not None and chain.total_s >= spec.max_total_s:
        minutes = f"{spec.max_total_s / 60:g}"
        return f"reached --max-total-minutes {minutes}", Advice(effect=f" allows {minutes} more")
    return None


def _details(spec: RunSpec, result: SegmentResult) -> str:
    """Return what was observed that tells which advice to take."""
    details = ""
    if result.first_sign_s is not None:
        details += f" Its first output came after {result.first_sign_s:.1f} s."
    if result.killed:
        details += (
            f" It was killed {spec.grace_s:g} s after the stop signal; allow more with --grace-seconds."
        )
    return details


def _save_or_longer(spec: RunSpec, result: SegmentResult) -> Advice:
    signal = "Ctrl-C (SIGINT)" if spec.stop_signal == "INT" else f"SIG{spec.stop_signal}"
    return _longer(spec, result, f" Make it save on {signal}, or allow more time: ")


def _longer(spec: RunSpec, result: SegmentResult, lead: str) -> Advice:
    longer_s = max(2 * spec.timebox_s, 2 * (result.first_sign_s or 0.0))
    return Advice(lead=lead, timebox_min=_as_typed(longer_s / 60))


def _as_typed(minutes: float) -> float:
    """Round a timebox up to a number that a person would type: 0.160009 to 0.2, 7.3 to 7.5, 133 to 135."""
    if minutes < 1:
        step = 10.0 ** math.floor(math.log10(max(minutes, 1e-6)))
    else:
        step = 0.5 if minutes < 10 else 1.0 if minutes < 60 else 5.0
    return round(math.ceil(minutes / step - 1e-6) * step, 9)
