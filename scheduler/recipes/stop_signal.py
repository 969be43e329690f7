"""Chooses the signal that asks a recognised script to stop, and the grace it gets to save.

A script saves when asked if its recipe says so, if its text installs a handler, or if it saves where it catches
KeyboardInterrupt.
"""

import ast
from typing import Final

from backprop.scheduler.recipes.command_line import REACHED
from backprop.scheduler.recipes.predicates import Facts
from backprop.scheduler.recipes.recipe import Recipe

LAUNCHER_GRACE_S: Final = 40.0
"""torchrun waits 30 s for its workers before it kills them (torch/distributed/elastic/multiprocessing/api.py)."""


def on_signal(recipe: Recipe, facts: Facts) -> tuple[bool, str | None]:
    """Return whether the script saves when asked to stop, and the signal to ask with: None for the usual one."""
    rule = next((each for each in recipe.on_signal if each.when.evidence(facts)), None)
    if rule is not None:
        saves, signal = True, rule.signal or recipe.stop_signal
    elif handled := _handled(facts):
        saves, signal = True, None if "INT" in handled else handled[0]
    else:
        saves, signal = any("save" in name for name in facts.script.on_interrupt), recipe.stop_signal
    # Others may end their ranks before these have saved.
    return saves and facts.command.launchers <= REACHED, signal


def grace_s(recipe: Recipe, facts: Facts, saves: bool) -> float | None:
    """Return the grace in seconds; None for the usual one."""
    wanted_s = [LAUNCHER_GRACE_S] if facts.command.launchers else []
    wanted_s += [recipe.grace_s] if saves and recipe.grace_s is not None else []
    return max(wanted_s, default=None)


def _handled(facts: Facts) -> list[str]:
    """Return the signals that the script's text installs a handler for, the likeliest to save first."""
    handled = {
        node.attr.removeprefix("SIG")
        for call in facts.script.calls
        if call.name == "signal.signal" and len(call.node.args) == 2
        for node in call.node.args[:1]
        if isinstance(node, ast.Attribute) and _is_handler(call.node.args[1])
    }
    return [name for name in ("TERM", "USR1", "INT", "USR2", "HUP") if name in handled]


def _is_handler(node: ast.expr) -> bool:
    return not (isinstance(node, ast.Attribute) and node.attr in ("SIG_IGN", "SIG_DFL"))
