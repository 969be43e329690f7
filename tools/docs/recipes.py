"""Generates docs/recipes.md from the recipes."""

from collections.abc import Iterator
from typing import Final

from backprop.scheduler.recipes.recipe import CheckpointLocation, Recipe, Way
from backprop.scheduler.recipes.registry import RECIPES
from backprop.scheduler.recipes.stop_signal import LAUNCHER_GRACE_S
from tools.docs.printing import print_page

HEAD: Final = """# Recipes

<!-- Generated: python -m tools.docs.recipes > docs/recipes.md -->

A recipe lets Backprop stop and resume a script that announces nothing. It says where checkpoints appear, when one is
whole, and how the script resumes. `backprop run` chooses the recipe from the command line and from the script's text,
which it reads (the first MiB) and never runs. Where that does not say enough, it also reads what the script imports
from its own folder, two levels deep and 1 MiB in all. `backprop run` prints how the run goes on and by which recipe, of
a sweep once for each kind of run; `--dry-run` and `show` give the details.

| option of `run` | |
| --- | --- |
| `--recipe NAME` | use this recipe, whatever was recognised; `none`: no recipe |
| `--checkpoint-glob PATTERN` | where checkpoints appear, instead of the recipe's places; repeatable |
| `--resume-arg TEMPLATE` | what to append on a resume, instead of the recipe's words; `none`: nothing |
| `--stop-signal`, `--grace-seconds` | override the recipe's |

- A script that imports `backprop` or prints `checkpoint_saved` announces its checkpoints itself and gets no recipe. A
  script that only reads `BACKPROP_RESUME_FROM` has its checkpoints found by the recipe, and gets the path in that
  variable alone.
- Backprop adds only the words below to a command, and only on a resume.
- An option whose file gives back a model's weights alone, by the script's text, resumes nothing: every segment would
  begin at epoch 1. `--weights`, `--pretrained` and `--init-from` are never taken for such an option.
- A script that is recognised but cannot be resumed is [not ended at its timebox](timebox.md): its work would be lost.
- Under a launcher (`torchrun`, `accelerate launch`, `deepspeed`, `composer`, `mpirun`) the recipe is that of the
  launched script. The grace is at least {grace:g} s, because torchrun waits 30 s for its workers.
- A script that installs a handler for SIGTERM or SIGUSR1, or saves where it catches KeyboardInterrupt, gets that signal
  at the end of its timebox. Others are stopped right after a save, if one fits.
- Runs whose recipe names the very same files never run at once. Give each a folder of its own.
- What a script writes elsewhere than its recipe expects is seen all the same ([how](checkpoints.md)), and handed back
  in the recipe's words.

If no recipe fits your script, let it take `--resume-from PATH`, or queue it with `--checkpoint-glob 'out/*.pt'
--resume-arg '--load {{checkpoint}}'`.
"""


def page() -> str:
    """Return the whole document, ending with a newline."""
    rows = [f"| [{each.name}](#{each.name}) | {each.title} | {_resume(each)} |" for each in _by_name()]
    table = "\n".join(["| recipe | for | on a resume |", "| --- | --- | --- |", *rows])
    parts = [HEAD.format(grace=LAUNCHER_GRACE_S), table, *("\n".join(_section(each)) for each in _by_name())]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _by_name() -> list[Recipe]:
    return sorted(RECIPES, key=lambda each: each.name)


def _section(recipe: Recipe) -> Iterator[str]:
    yield f"## {recipe.name}\n"
    yield f"{recipe.title}.\n"
    yield f"- Recognised if {recipe.known_by.says}."
    yield f"- Checkpoints: {_where(recipe)}."
    if recipe.needs:
        yield f"- Whole if the directory has {' and '.join(f'`{each}`' for each in recipe.needs)}."
    if recipe.in_place:
        yield "- Saved in place; Backprop keeps the last two good copies."
    for way in recipe.ways:
        yield f"- Resumes with {_way(way)}{f', if {way.when.says}' if way.when else ''}."
    if recipe.integration:
        attached = "[an integration is attached at launch](integrations.md#attached-at-launch)"
        yield f"- Otherwise {attached}. Without it, it cannot be resumed: {recipe.cannot}."
    elif recipe.cannot:
        yield f"- Otherwise it cannot be resumed: {recipe.cannot}."
    if recipe.stop_signal:
        yield f"- Stop signal: SIG{recipe.stop_signal}."
    for each in recipe.on_signal:
        signal = f"SIG{each.signal or recipe.stop_signal or 'INT'}"
        grace = f" and gets at least {recipe.grace_s:g} s" if recipe.grace_s else ""
        yield f"- Saves on {signal}{grace}, if {each.when.says}."
    if recipe.limits:
        yield f"- {recipe.limits}"


def _where(recipe: Recipe) -> str:
    places = [_place(each) for each in recipe.places]
    if recipe.finds is not None:
        places.append("where its `torch.save` calls write, as far as the text shows")
    if recipe.anywhere:
        patterns = ", ".join(f"`{each}`" for each in recipe.anywhere)
        places.append(f"else {patterns} in the current directory and up to two folders below it")
    return "; ".join(places)


def _place(place: CheckpointLocation) -> str:
    patterns = ", ".join(f"`{each}`" if each else "the folder itself" for each in place.below)
    named = " or ".join(f"`{each}`" for each in place.named)
    default = "the current directory" if place.default == "" else f"`{place.default}`"
    if not named:
        return f"{patterns} in {default}{' and in the folder that its settings name' if place.roots else ''}"
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
    print_page("docs/recipes.md", page, "recipes")
