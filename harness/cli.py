"""The real `cookiecutter` and `cruft` commands, in a home and a temporary folder of their own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from harness.answers import QUESTIONS, check_keys

SECONDS = 120


class Home:
    """A user's account in the folder `root`: `home`, `tmp` and `work`, where the commands run."""

    def __init__(self, root):
        self.home, self.tmp, self.work = (Path(root, name) for name in ("home", "tmp", "work"))
        for folder in (self.home, self.tmp, self.work):
            folder.mkdir(parents=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "TMPDIR": str(self.tmp),
            "LANG": "C.UTF-8",
            "PYTHONDONTWRITEBYTECODE": "1",
            "GIT_CONFIG_NOSYSTEM": "1",
            **{f"GIT_{who}_NAME": "Ada" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "ada@example.com" for who in ("AUTHOR", "COMMITTER")},
        }

    def configure(self, **settings):
        """Write the user's configuration file for cookiecutter."""
        (self.home / ".cookiecutterrc").write_text(json.dumps(settings))

    def command(self, template, *flags, python=sys.executable, answers=None, private=None):
        """Return a command line of `cookiecutter --no-input`; `private` holds other values."""
        check_keys(answers or {}, QUESTIONS)
        given = [f"{key}={value}" for key, value in {**(answers or {}), **(private or {})}.items()]
        return [python, "-m", "cookiecutter", "--no-input", *flags, str(template), *given]

    def cookiecutter(self, template, *flags, **options):
        """Run `command` with the same arguments to its end; return a CompletedProcess with text."""
        return self.run(self.command(template, *flags, **options))

    def cruft(self, *arguments, cwd=None):
        """Run cruft with the arguments, in `work` unless told otherwise."""
        return self.run([sys.executable, "-m", "cruft", *map(str, arguments)], cwd=cwd)

    def run(self, command, cwd=None):
        """Run a command to its end. In its stderr, each problem that a hook reports is one line."""
        done = subprocess.run(
            command,
            cwd=cwd or self.work,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
        done.stderr = unwrapped(done.stderr)
        return done

    def git(self, folder, *arguments):
        """Run git in the folder; return its output. Raises CalledProcessError."""
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=True)
        return done.stdout

    def repository(self, template, folder):
        """Copy the template into a new Git repository with one commit; return its folder."""
        shutil.copytree(template, folder)
        self.git(folder, "init", "--quiet", "--initial-branch=main")
        self.commit(folder, "One")
        return Path(folder)

    def commit(self, folder, message):
        """Commit everything in the folder; return the commit's hash."""
        self.git(folder, "add", "--all")
        self.git(folder, "commit", "--quiet", "--message", message)
        return self.git(folder, "rev-parse", "HEAD").strip()


def unwrapped(text):
    """Join the lines that the hooks have wrapped for a terminal, one line for each problem."""
    return re.sub(
        r"^  - .*(?:\n    \S.*)+", lambda m: " ".join(m[0].split("\n    ")), text, flags=re.M
    )


def tree(root):
    """Return {path: bytes, or None for a folder} of everything under `root`; paths have "/"."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(root).rglob("*"))
    }
