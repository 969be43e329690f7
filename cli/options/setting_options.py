"""Makes click options of the settings: each command takes those that the table of settings gives it."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, TypeVar

import click

from backprop.cli.options.numbers import Minutes
from backprop.scheduler.config.keys import KEYS, Command, SettingKey
from backprop.scheduler.errors import BadCommand

MINUTES: Final = "MINUTES"
"""What the help calls a value that may be a span too."""
NONE: Final = "none"
"""As a file's null: what an option says that takes a value away."""
F = TypeVar("F", bound=Callable[..., Any])


def accept(command: Command) -> Callable[[F], F]:
    """Return a decorator that adds the settings' options of `command`, in the order of the table."""
    changes = command in ("resume", "edit")

    def add(function: F) -> F:
        for key in reversed(KEYS):
            if key.taken_by(command):
                function = _option(key, changes)(function)
        return function

    return add


def chosen(values: Mapping[str, Any]) -> dict[str, object]:
    """Return the settings given as options, in the user's units by key, out of a command's parameters. Raises
    BadCommand for two that disagree."""
    given = {key.name: values[_parameter(key)] for key in KEYS if values.get(_parameter(key)) is not None}
    for key in KEYS:
        if key.null_flag and values.get(_null_parameter(key)):
            if key.name in given:
                raise BadCommand(f"{key.null_flag} and {key.flags[0]} disagree; give one of them")
            given[key.name] = NONE
    return given


def long_options(section: str) -> tuple[str, ...]:
    """Return the long options that the help of `run` lists in a section."""
    keys = [key for key in KEYS if key.section == section and "run" in key.commands]
    return tuple(name for key in keys for name in (key.option, key.null_flag) if name)


def often_used() -> tuple[str, ...]:
    """Return the long options that the short help of `run` lists."""
    return tuple(name for key in KEYS if key.often for name in (key.option, key.null_flag) if name)


def _option(key: SettingKey, changes: bool) -> Callable[[F], F]:
    """`changes`: of a run that is there, whose value stays where the option is not given."""
    if key.null_flag:
        return lambda function: _value_option(key, changes)(_null_option(key)(function))
    return _value_option(key, changes)


def _null_option(key: SettingKey) -> Callable[[F], F]:
    return click.option(key.null_flag, _null_parameter(key), is_flag=True, help=key.null_help)


def _null_parameter(key: SettingKey) -> str:
    return f"no_{_parameter(key)}"


def _value_option(key: SettingKey, changes: bool) -> Callable[[F], F]:
    default = None if changes else _default(key)
    text = key.help if default is None else f"{key.help}  [default: {default}]"
    if key.kind is bool:
        return click.option(*key.flags, _parameter(key), default=None, help=text)
    kind = click.Choice(list(map(str, key.kind))) if issubclass(key.kind, StrEnum) else key.kind
    if key.metavar == MINUTES:
        kind = Minutes()
    return click.option(*key.flags, _parameter(key), type=kind, metavar=key.metavar, help=text)


def _parameter(key: SettingKey) -> str:
    """The name of the command's parameter: some keys are also names of other options."""
    return f"setting_{key.field}"


def _default(key: SettingKey) -> str | None:
    """The default as the help says it; None where nothing applies."""
    if key.default is None:
        return key.no_value
    if isinstance(key.default, bool):
        yes, _, no = key.flags[-1].partition("/")
        return (yes if key.default else no).removeprefix("--")
    return f"{key.default:g}" if isinstance(key.default, float) else str(key.default)
