"""What a folder holds to the last detail, full and read-only disks, and a moment to interrupt."""

import os
import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from harness.processes import Failed, wait_until

SECONDS = 60
PAGE = os.sysconf("SC_PAGE_SIZE")


def snapshot(root):
    """Return {path: (mode, mtime, bytes or link target)} of the folder and everything in it."""
    found = {}
    for path in (Path(root), *Path(root).rglob("*")):
        about = path.lstat()
        content: str | bytes | None = None
        if stat.S_ISLNK(about.st_mode):
            content = os.readlink(path)
        elif stat.S_ISREG(about.st_mode):
            content = path.read_bytes()
        mode = stat.filemode(about.st_mode)
        found[path.relative_to(root).as_posix()] = mode, about.st_mtime_ns, content
    return found


def pages(contents):
    """Return how many pages of a tmpfs these contents take, one file each."""
    return sum(-(-len(content) // PAGE) for content in contents if content)


def hook_frames(done):
    """Return the lines of a command's output that come from a traceback of our hooks."""
    printed = f"{done.stdout}\n{done.stderr}".splitlines()
    # Cookiecutter runs the copy tmpXXXXXXXX.py. Python prints the others without a traceback.
    ours = re.compile(r'File ".*[/\\]tmp\w{8}\.py"|^Exception ignored|^Fatal Python error')
    return [line for line in printed if ours.search(line)]


# Disks that only one command sees


def private_mounts(folder):
    """Return the words that, before a command, let it mount what nobody else sees; or None."""
    for words in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        mount = ["mount", "-t", "tmpfs", "tmpfs", str(folder)]
        try:
            done = subprocess.run([*words, *mount], capture_output=True, timeout=SECONDS)
        except OSError:
            return None
        if done.returncode == 0:
            return words
    return None


def with_mounts(folder, script, command):
    """Return a command line that runs `script`, which mounts, and `command`, in their own mounts.

    It skips the test where no program can do that. `folder` is an empty folder to try it with.
    """
    words = private_mounts(folder)
    if words is None:
        pytest.skip("NOT TESTED: this machine lets no test mount a disk (unshare --mount)")
    return [*words, "sh", "-ec", f"{script}\n" + 'exec "$@"', "sh", *command]


def small_disk(folder, free, seed, kept, command, files=0):
    """Return a command line of `command` on a tmpfs at `folder` with so many free pages.

    It begins as a copy of the folder `seed`, and is copied to the folder `kept` at the end. More
    than `files` files and folders it cannot hold, unless that is 0.
    """
    size = (1 + pages(content for _, _, content in snapshot(seed).values()) + free) * PAGE
    folder, seed, kept = (shlex.quote(str(path)) for path in (folder, seed, kept))
    # One page is always taken, because a tmpfs of size 0 would have no limit.
    script = f"""
        mount -t tmpfs -o size={size},nr_inodes={files and files + 2} tmpfs {folder}
        head -c {PAGE} /dev/zero > {folder}/taken
        cp -a {seed}/. {folder}
        set +e
        "$@"
        status=$?
        rm {folder}/taken
        cp -a {folder}/. {kept}
        exit $status
    """
    return with_mounts(kept, script, command)


def read_only(folder, empty, command):
    """Return a command line of `command` that cannot write into `folder`; `empty` is another."""
    quoted = shlex.quote(str(folder))
    script = f"mount --bind {quoted} {quoted}\nmount -o remount,bind,ro {quoted}"
    return with_mounts(empty, script, command)


# A moment to interrupt

HOLD = '''
"""Hold one of cookiecutter's processes at a moment: an audit event with a text in its arguments."""

import os
import sys

WHO, EVENT, PART = {moment!r}
READY, RELEASE = {ready!r}, {release!r}


def who():
    if sys.orig_argv[1:3] == ["-m", "cookiecutter"]:
        return "cookiecutter"
    return "post_gen" if os.path.exists("manage.py") else "pre_gen"


def hold(event, arguments):
    global left
    if event == EVENT and PART in repr(arguments):
        left -= 1
        if left == 0:
            with open(READY + ".new", "w") as file:
                file.write(str(os.getpid()))
            os.rename(READY + ".new", READY)
            open(RELEASE).close()  # a FIFO, that nobody writes to until release()


left = {number}
if who() == WHO:
    sys.addaudithook(hold)
'''


class Moment:
    """A moment of a bake, in the folder `root`: the process is held there until `release`.

    `who` is cookiecutter, pre_gen or post_gen; `event` one of Python's audit events, which come
    just before what they are named after; `part` stands in its arguments; the `number`-th counts.
    """

    def __init__(self, root, who, event, part, number=1):
        if who not in ("cookiecutter", "pre_gen", "post_gen"):
            raise ValueError(who)
        self._ready, self._release = Path(root, "ready"), Path(root, "release")
        os.mkfifo(self._release)
        site = Path(root, "site")
        site.mkdir()
        text = HOLD.format(
            moment=(who, event, part),
            number=number,
            ready=str(self._ready),
            release=str(self._release),
        )
        (site / "sitecustomize.py").write_text(text)
        self.env = {"PYTHONPATH": str(site)}

    def wait(self, ended):
        """Wait for the moment; return the id of the held process. `Failed` if `ended()` is true."""

        def come():
            return self._ready.exists() or ended()

        wait_until(come, SECONDS, "the moment", every=0.01)
        if not self._ready.exists():
            raise Failed("ended before the moment came")
        return int(self._ready.read_text())

    def release(self):
        """Let the held process go on."""
        self._release.write_text("")
