"""A launcher such as `accelerate launch`: it starts the script as a child, and waits for it."""

import os
import subprocess
import sys

environment = dict(os.environ, LAUNCHED="1")
process = subprocess.Popen([sys.executable, "-u", *sys.argv[1:]], env=environment)
process.wait()
if process.returncode != 0:
    raise subprocess.CalledProcessError(returncode=process.returncode, cmd=process.args)
