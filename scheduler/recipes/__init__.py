"""Recognises the framework of a script that announces nothing: where it saves, how it resumes. Text in, plan out.

| module | |
| --- | --- |
| `plan` | makes the plan for a command; the only one that others call |
| `registry` | the recipes in the order in which they are tried, and their names |
| `catalog`, `catalog_plain` | the recipes: frameworks with a trainer of their own; scripts around a loop of their own |
| `recipe`, `predicates` | what a recipe is made of |
| `source_reader` | what recipes may read of the machine |
| `command_line` | what a command starts, and with which arguments |
| `syntax_tree`, `script_parser`, `script_facts` | what a script's text says |
| `declared_options`, `path_expressions` | the options it declares, the paths it builds |
| `own_modules` | what a script imports from its own folder |
| `checkpoint_patterns`, `resume_option`, `stop_signal` | where it saves, how it resumes, how it is stopped |

A script is read, never run; what it imports from its own folder is read too, where its own text does not say enough.
"""
