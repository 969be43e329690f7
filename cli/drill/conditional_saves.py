"""Tells whether a script saves only when a metric improves: then a resume goes back to its best epoch. Runs nothing.

`if loss < best: torch.save(…)` is such a save, and so are the callbacks of Lightning and Keras that are told to keep
the best alone. One save beside it that follows the clock is enough for a script to be none of these.
"""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Final

from backprop.scheduler.recipes.syntax_tree import parse_tree

_SAVES: Final = re.compile(
    r"(torch|th|accelerator|fabric|orbax|checkpointer|pickle|joblib|np|numpy|dill)\.(save\w*|dump)$"
    r"|save_(checkpoint|model|ckpt|state|weights|pretrained|file)\w*$|savez\w*$|\.save$"
)
_BEST: Final = re.compile(r"best|improv|lowest|highest|min_(val|loss)|max_(acc|val)", re.IGNORECASE)
_NAMED_BEST: Final = re.compile(r"best", re.IGNORECASE)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def saves_at_best(texts: Sequence[bytes]) -> str:
    """Return what shows in a script's text and its modules that all its saves follow a metric; "" where they do not."""
    conditional, others = list[str](), 0
    functions: dict[str, list[bool]] = {}
    inside: list[tuple[str, str]] = []
    for text in texts:
        for call, test, within in _calls(parse_tree(text)):
            name = ast.unparse(call.func)
            functions.setdefault(name.rpartition(".")[2], []).append(bool(test))
            if name.endswith("ModelCheckpoint"):
                shown = _callback(call)
                conditional += [shown] if shown else []
                others += not shown
            elif _SAVES.search(name):
                if test:
                    conditional.append(f"if {test}: {name}(…)")
                else:
                    inside.append((within, name))
    for within, name in inside:
        called = functions.get(within, [False]) if within else [False]
        if all(called):
            conditional.append(f"{name}(…), called at its best alone")
        else:
            others += 1
    return conditional[0] if conditional and not others else ""


def named_best(paths: Sequence[str]) -> bool:
    """Return whether files have only such names as a best state is given."""
    return bool(paths) and all(_NAMED_BEST.search(path.rpartition("/")[2]) for path in paths)


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str, str]]:
    """Yield each call, the test about a best value that it depends on ("" for none), and the function around it."""
    pending: list[tuple[ast.AST, str, str]] = [(tree, "", "")]
    while pending:
        node, test, within = pending.pop()
        if isinstance(node, ast.Call):
            yield node, test, within
        if isinstance(node, Function):
            test, within = "", node.name
        if isinstance(node, ast.If) and not test:
            found = ast.unparse(node.test)
            alone = found if _BEST.search(found) and not isinstance(node.test, ast.BoolOp) else ""
            pending += [(child, alone, within) for child in node.body]
            pending += [(child, "", within) for child in (node.test, *node.orelse)]
            continue
        pending += [(child, test, within) for child in ast.iter_child_nodes(node)]


def _callback(call: ast.Call) -> str:
    """Return how a callback is told to keep the best alone; "" where it is not."""
    given = {each.arg: ast.unparse(each.value) for each in call.keywords}
    if given.get("save_best_only") == "True":
        return "ModelCheckpoint(save_best_only=True)"
    keeps_last = given.get("save_last", "None") not in ("None", "False") or given.get("save_top_k") == "-1"
    by_metric = given.get("monitor", "None") != "None"
    return "ModelCheckpoint(monitor=…) without save_last" if by_metric and not keeps_last else ""
