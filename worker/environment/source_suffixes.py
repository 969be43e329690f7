"""Knows what is source by its suffix, where git does not say it."""

from typing import Final

PROGRAM_SUFFIXES: Final = (
    *(".py", ".pyi", ".pyx", ".pxd", ".c", ".cc", ".cpp", ".cxx", ".cu", ".cuh", ".h", ".hh", ".hpp"),
    *(".sh", ".bash", ".jl", ".lua", ".r", ".rs", ".go", ".proto"),
)
"""What no training writes."""
SOURCE_SUFFIXES: Final = (
    *PROGRAM_SUFFIXES,
    *(".json", ".jsonc", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".gin", ".ipynb"),
    *(".jsonnet", ".libsonnet", ".j2", ".jinja", ".txt", ".md"),
)
