"""The other Pythons of this machine, for tests of what changes from one version to the next."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

# The versions that the service's locked requirements are made for.
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
RUNNING = "{}.{}".format(*sys.version_info)
OTHERS = [version for version in SUPPORTED if version != RUNNING]


@functools.cache
def others():
    """Return {"3.13": path} of every version in OTHERS that this machine can start."""
    found = {version: find(version) for version in OTHERS}
    return {version: path for version, path in found.items() if path}


def every():
    """Return {version: path} of every version in SUPPORTED that is here, the newest last."""
    found = others() | {RUNNING: sys.executable}
    return {version: found[version] for version in SUPPORTED if version in found}


def find(version):
    """Return the path of the first Python of that version that starts, or None."""
    started = (_start(candidate, version) for candidate in _candidates(version))
    return next(filter(None, started), None)


def _candidates(version):
    name = f"python{version}"
    for folder in os.get_exec_path():
        yield Path(folder, name)
    # Some are not on PATH: pyenv has a folder for each, and the running Python may have neighbours.
    pyenv = os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv"
    for versions in (Path(pyenv, "versions"), Path(sys.base_prefix).parent):
        yield from sorted(versions.glob(f"{version}*/bin/{name}"), reverse=True)
    if uv := shutil.which("uv"):
        search = [uv, "python", "find", "--no-project", "--no-python-downloads", version]
        yield from _output(search).splitlines()


def _start(candidate, version):
    # The Python's own path, because a shim of pyenv starts only where its version is chosen.
    ask = "import ssl, sys, venv; print('{}.{}'.format(*sys.version_info), sys.executable)"
    started, _, path = _output([str(candidate), "-c", ask]).strip().partition(" ")
    return path if started == version else None


def _output(command):
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except OSError:
        return ""
    return done.stdout if done.returncode == 0 else ""
