"""docs/recipes.md, drawn from the entries."""

from collections.abc import Iterator
from typing import Final

from backprop.scheduler.recipes.plan import LAUNCHER_GRACE_S
from backprop.scheduler.recipes.recipe import CheckpointLocation, Recipe, Way
from backprop.scheduler.recipes.registry import RECIPES
from tools.docs.printing import print_page

HEAD: Final = """# Recipes

<!-- Generated: python -m tools.docs.recipes > docs/recipes.md -->

A script that prints no events is chained by a recipe: where its checkpoints appear, when one is whole, how it is
resumed. `backprop run` recognises it from the command line and from the script's text, which it reads (the first
MiB) and never runs. Nothing but the script is read, so what it imports from its own folder stays unknown. What was
recognised is printed when a run is queued; `--dry-run` and `show` have it in detail.

| option of `run` | |
| --- | --- |
| `--recipe NAME` | this one, whatever was recognised; `none`: no recipe |
| `--checkpoint-glob PATTERN` | where its checkpoints appear, instead of the recipe's places; repeatable |
| `--resume-arg TEMPLATE` | what is appended on a resume, instead of the recipe's words; `none`: nothing |
| `--stop-signal`, `--grace-seconds` | instead of the recipe's |

- A script that imports `backprop` or prints `checkpoint_saved` speaks for itself: no recipe. One that reads
  `BACKPROP_RESUME_FROM` and prints nothing is watched by its recipe and told by that variable alone.
- Nothing is ever added to a command but the words below, and those only on a resume.
- One that is recognised and cannot be resumed runs for one timebox: starting over each time would use up the night.
- Under a launcher (`torchrun`, `accelerate launch`, `deepspeed`, `composer`, `mpirun`) the recipe is that of the script
  behind it, and the grace at least {grace:g} s, since torchrun waits 30 s for its workers.
- A script that installs a handler for SIGTERM or SIGUSR1, or saves where it catches KeyboardInterrupt, gets that signal
  and its full time. All others are stopped right after a save, where one fits.
- Runs that save into the same folder cannot be told apart: they take turns, never two at once. Give each its own.

A script of your own that no recipe fits: let it take `--resume-from PATH`, or say `--checkpoint-glob 'out/*.pt'
--resume-arg '--load {{checkpoint}}'`.
"""


def page() -> str:
    """The whole document, ending with a newline."""
    rows = [f"| [{each.name}](#{each.name}) | {each.title} | {_resume(each)} |" for each in _by_name()]
    table = "\n".join(["| recipe | for | on a resume |", "| --- | --- | --- |", *rows])
    parts = [HEAD.format(grace=LAUNCHER_GRACE_S), table, *("\n".join(_section(each)) for each in _by_name())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _by_name() -> list[Recipe]:
    return sorted(RECIPES, key=lambda each: each.name)


def _section(recipe: Recipe) -> Iterator[str]:
    yield f"## {recipe.name}\n"
    yield f"{recipe.title}.\n"
    yield f"- Recognised by: {recipe.known_by.says}."
    yield f"- Checkpoints: {_where(recipe)}."
    if recipe.needs:
        yield f"- Whole: a directory with {' and '.join(f'`{each}`' for each in recipe.needs)}."
    if recipe.in_place:
        yield "- Overwritten in place: a good one is copied aside."
    for way in recipe.ways:
        yield f"- Resumes: {_way(way)}{f', with {way.when.says}' if way.when else ''}."
    if recipe.cannot:
        yield f"- Otherwise it cannot be resumed: {recipe.cannot}."
    if recipe.stop_signal:
        yield f"- Stop signal: SIG{recipe.stop_signal}."
    for each in recipe.on_signal:
        signal = f"SIG{each.signal or recipe.stop_signal or 'INT'}"
        grace = f" and has at least {recipe.grace_s:g} s" if recipe.grace_s else ""
        yield f"- Saves on {signal}{grace}, with {each.when.says}."
    if recipe.limits:
        yield f"- {recipe.limits}"


def _where(recipe: Recipe) -> str:
    found = [_place(each) for each in recipe.places]
    if recipe.finds is not None:
        found.append("where its `torch.save` calls write, as far as the text tells")
    if recipe.anywhere:
        patterns = ", ".join(f"`{each}`" for each in recipe.anywhere)
        found.append(f"else {patterns} in the current directory and up to two folders below it")
    return "; ".join(found)


def _place(place: CheckpointLocation) -> str:
    patterns = ", ".join(f"`{each}`" if each else "the folder itself" for each in place.below)
    named = " or ".join(f"`{each}`" for each in place.named)
    default = "the current directory" if place.default == "" else f"`{place.default}`"
    if not named:
        return f"{patterns} in {default}{' and where its settings say' if place.roots else ''}"
    return f"{patterns} in {named}{f', else in {default}' if place.default is not None else ''}"


def _resume(recipe: Recipe) -> str:
    return ", or ".join(dict.fromkeys(_way(each) for each in recipe.ways))


def _way(way: Way) -> str:
    if way.kind == "rerun":
        return "the same command"
    if way.kind == "append":
        return f"`{' '.join(way.words).replace('{checkpoint}', 'PATH')}`"
    return "an option of its own" + (f" (`--{way.names[0]}`)" if way.names else " (`--resume` and others)")


if __name__ == "__main__":
    print_page("recipes.md", page, "recipes")
