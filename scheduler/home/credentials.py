"""Masks what looks like a credential in commands and variables, before anybody else is shown them. Pure.

By name: variables that end in `_TOKEN`, `_KEY`, `PASSWORD`, …, or hold `SECRET`; options such as `--api-key` and
`--hub-token`, but no `--pad-token`. By value, wherever it stands: keys with known prefixes, and the password in a URL.
What is masked stays as it is where it is stored, and the script gets it.
"""

import re
from collections.abc import Sequence
from typing import Final

MASK: Final = "***"
_VARIABLE: Final = (
    r".*_(?:KEYS?|KEY_ID|PASS|PWD|AUTH|PAT|PIN|DSN|COOKIE|JWT|SALT)|(?:.*_)?(?:TOKENS?|APIKEY|PASSWD|PASSPHRASE|CREDENTIALS?)"
    r"|.*SECRET.*|.*PASSWORD.*|.*WEBHOOK.*"
)
_OPTION: Final = (
    r"(?i)-{0,2}(?:[\w.]+[._-])??(?:(?:hf|hub|api|auth|access|bearer|wandb|github|gitlab|private|secret)[_-]?(?:token|key)"
    r"|token|secret|password|passwd|passphrase|api[_-]?secret)"
)
_NOT_SECRET: Final = (
    r"(?i).*(?:pad|eos|bos|unk|cls|sep|mask|special|image|start|end|stop|begin|add|num|max|per)[_-]tokens?"
)
_VALUES: Final = (
    r"\b(hf_|sk-|sk_live_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|dapi|ya29\.)"
    r"[A-Za-z0-9_\-]{12,}"
)
_URL: Final = r"(://[^\s/:@]*:)[^\s/@]+(?=@)"


def masked_value(name: str, value: str) -> str:
    """Return the value of a variable, or of a parameter of a sweep, as others may see it."""
    return MASK if value and _is_secret(name) else masked_text(value)


def masked_words(words: Sequence[str]) -> tuple[str, ...]:
    """Return a command line as others may see it."""
    shown: list[str] = []
    hide = False
    for word in words:
        name, equals, value = word.partition("=")
        if hide and not word.startswith("--"):
            shown.append(MASK)
        elif equals and value and _is_secret(name):
            shown.append(f"{name}={MASK}")
        else:
            shown.append(masked_text(word))
        hide = not equals and word.startswith("-") and _is_secret(word)
    return tuple(shown)


def masked_text(text: str) -> str:
    """Return a text without the credentials that are known by their look."""
    return re.sub(_URL, rf"\1{MASK}", re.sub(_VALUES, rf"\1{MASK}", text))


def masked_lines(text: str) -> str:
    """Return a text of any kind as others may see it: each line is masked as a command line is, its spaces kept."""
    return "\n".join(map(_masked_line, text.split("\n")))


def _masked_line(line: str) -> str:
    parts = re.split(r"(\s+)", line)
    shown = masked_words(parts[::2])
    return "".join(word + space for word, space in zip(shown, [*parts[1::2], ""], strict=True))


def _is_secret(name: str) -> bool:
    """Return whether an option or a variable of this name has a credential. Variables are those in capitals."""
    if name.isupper():
        return re.fullmatch(_VARIABLE, name) is not None
    return re.fullmatch(_OPTION, name) is not None and re.fullmatch(_NOT_SECRET, name) is None
