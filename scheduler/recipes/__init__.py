"""How are training scripts chained that say nothing to us? One entry for each framework, in `frameworks`.

| module | |
| --- | --- |
| `plan` | what is done with this command line; the only one that others call |
| `table` | the entries in the order in which they are tried, and their names |
| `frameworks`, `scripts` | the entries: frameworks with a trainer of their own; scripts around a loop of their own |
| `recipe`, `marks` | what an entry is made of |
| `command`, `source`, `loose`, `declared`, `paths`, `loading` | what is known of a command and of its script's text |
| `places` | where its checkpoints appear |
| `page` | docs/recipes.md: `python -m tools.docs.recipes > docs/recipes.md` |

A script is read, never run, and nothing but the script is read: what it imports from its own folder stays unknown.
"""
