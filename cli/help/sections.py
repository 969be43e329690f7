"""Lays the help of a command with many options out in sections, and makes a short one of those that are used most."""

from collections.abc import Sequence
from typing import ClassVar

import click

REST = "Other options"


class SectionedCommand(click.Command):
    """A command whose `-h` shows `short` alone, and whose `--help` shows all options by `sections`.

    `sections`: title → long options, in the order of the help. What no section names comes last.
    """

    sections: ClassVar[dict[str, tuple[str, ...]]] = {}
    short: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *args: object, **values: object) -> None:
        super().__init__(*args, **values)  # pyright: ignore[reportArgumentType]
        self.params.append(
            click.Option(
                ["-h"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=self._print_short,
                help="Show the options that are used most.",
            )
        )

    def get_help_option_names(self, ctx: click.Context) -> list[str]:
        return ["--help"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        named = {name for names in self.sections.values() for name in names}
        for title, names in self.sections.items():
            self._write(ctx, formatter, title, names)
        rest = [_long(one) for one in self.get_params(ctx) if isinstance(one, click.Option)]
        self._write(ctx, formatter, REST, [name for name in rest if name not in named])

    def _write(
        self, ctx: click.Context, formatter: click.HelpFormatter, title: str, names: Sequence[str]
    ) -> None:
        found = {_long(one): one for one in self.get_params(ctx) if isinstance(one, click.Option)}
        records = [
            record
            for name in names
            if name in found and (record := found[name].get_help_record(ctx)) is not None
        ]
        if records:
            with formatter.section(title):
                formatter.write_dl(records)

    def _print_short(self, ctx: click.Context, _param: click.Parameter, given: bool) -> None:
        if not given or ctx.resilient_parsing:
            return
        formatter = ctx.make_formatter()
        self.format_usage(ctx, formatter)
        first = (self.help or "").split("\n\n")[0]
        with formatter.indentation():
            formatter.write_paragraph()
            formatter.write_text(first)
        self._write(ctx, formatter, "Options used most", self.short)
        formatter.write_paragraph()
        formatter.write_text(f"All options, with examples: {ctx.command_path} --help")
        click.echo(formatter.getvalue().rstrip("\n"))
        ctx.exit()


def _long(option: click.Option) -> str:
    return option.opts[-1]
