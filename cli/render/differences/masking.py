"""Tells which variables of an environment look like credentials: their values are never printed."""

import re
from typing import Final

HIDDEN: Final = "(hidden)"
_NAME: Final = re.compile(
    r"(?:^|_)(?:API_?|ACCESS_?|PRIVATE_?|SECRET_?|SIGNING_?|ENCRYPTION_?|LICEN[CS]E_?)?KEY(?:_ID|_BASE|S)?$"
    r"|TOKEN|SECRET|PASSW|PASSPHRASE|(?:^|_)(?:PWD|PASS|PAT|PIN|DSN|AUTH|COOKIE|JWT|SALT)$|CREDENTIAL|_AUTH_|WEBHOOK",
    re.IGNORECASE,
)
_NOT_A_SECRET: Final = frozenset(("PWD", "OLDPWD", "TOKENIZERS_PARALLELISM", "SSH_AUTH_SOCK"))
_VALUE: Final = re.compile(
    r"\b(?:sk-|rk_|pk_|hf_|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AKIA|ASIA|AIza|npm_|pypi-|dop_v1_|eyJ)[\w-]{12,}"
    r"|[a-z][\w+.-]*://[^\s/@:]*:[^\s/@]+@"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
"""Known beginnings of tokens, an address with a password in it, a private key."""


def looks_secret(name: str, value: str | None) -> bool:
    """Return whether the value of a variable, or of an option, should not be printed."""
    if name in _NOT_A_SECRET:
        return False
    return bool(_NAME.search(name.lstrip("-").replace("-", "_"))) or bool(value and _VALUE.search(value))
