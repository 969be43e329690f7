"""Runs the command in argv, and prints as JSON its exit code and the modules that are loaded then."""

import json
import sys

from backprop.cli.main import run_command

code = run_command(sys.argv[1:])
print(json.dumps([code, sorted(sys.modules)]))
