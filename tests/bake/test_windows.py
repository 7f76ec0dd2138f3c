"""Generating on Windows: names, line ends, encodings, and nothing that only POSIX has."""

import ast
import re
import shutil
import subprocess
from pathlib import PurePosixPath

import pytest

from harness.answers import ROOT, TARGETS
from harness.cli import Home, tree

# A long but usual prefix: a user name has up to 20 characters, and zip files and cruft use the
# temporary folder.
USER = "C:/Users/" + "u" * 20
CHECKOUT = f"{USER}/AppData/Local/Temp/tmp12345678/cookiecutter-rediss-{'0' * 40}"
PROJECTS = f"{USER}/OneDrive - Some Company/Documents/projects/{'s' * 40}"

LONGEST_FILE, LONGEST_FOLDER = (
    259,
    247,
)  # MAX_PATH without its NUL. A folder must leave room for 8.3 names.
DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|clock\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
FORBIDDEN = re.compile(r'[<>:"|?*\\\x00-\x1f]')

STARTERS = ["asyncio", "multiprocessing", "subprocess"]
POSIX_MODULES = re.compile(
    r"crypt|fcntl|grp|nis|posix|pty|pwd|readline|resource|spwd|syslog|termios|tty"
)
POSIX_NAMES = re.compile(
    r"fork(pty)?|system|popen|posix_spawnp?|(exec|spawn)[lv]p?e?|kill(pg)?|nice|wait(\d|id|pid)?"
    r"|[gs]et(e|res)?[ug]id|[gs]et(pg|s)id|[gs]etpgrp|getgroups|getloadavg|uname|chroot|mkfifo|mknod"
    r"|[fl]?chown|fchmod|symlink|statvfs|sysconf|pathconf|alarm|setitimer|pause|tzset"
    r"|O_(NOFOLLOW|CLOEXEC|DIRECTORY|NONBLOCK|SYNC)|SIG(KILL|ALRM|HUP|CHLD|PIPE|QUIT|USR[12])"
)
# {function: the position of `encoding` among the arguments}
PLACES = {"read_text": 0, "write_text": 1}
HOOKS = sorted(ROOT.glob("hooks/*.py"))


@pytest.fixture(scope="module")
def own_files(tmp_path_factory):
    """Return the paths, with "/", that Git tracks or would track, even without a .git."""
    empty = tmp_path_factory.mktemp("empty")
    subprocess.run(["git", "init", "--quiet", "--bare", empty], check=True)
    git = ["git", f"--git-dir={empty}", f"--work-tree={ROOT}"]
    command = [*git, "ls-files", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for path in done.stdout.split("\0") if path]


def impossible(paths, prefix):
    """Yield what keeps Windows from writing these relative paths below the folder `prefix`."""
    spelled = {}
    for path in sorted(paths):
        parts = PurePosixPath(path).parts
        for depth, part in enumerate(parts, 1):
            whole, longest = "/".join(parts[:depth]), LONGEST_FOLDER
            if depth == len(parts):
                longest = LONGEST_FILE
            if FORBIDDEN.search(part):
                yield f"{whole!r} has a character that is not allowed"
            if part[-1] in ". ":
                yield f"{whole!r} ends with a dot or a space"
            if DEVICE.fullmatch(part.split(".")[0].rstrip()):
                yield f"{whole!r} is a device"
            if not part.isascii():
                yield f"{whole!r} is not ASCII, which file systems spell in two ways"
            if spelled.setdefault(whole.lower(), whole) != whole:
                yield f"{whole!r} is {spelled[whole.lower()]!r} in another case"
            if len(f"{prefix}/{whole}") > longest:
                yield f"{whole!r} is too long"


def not_portable(source):
    """Yield what in a hook's source needs a shell, POSIX, or the system's default encoding."""
    for node in ast.walk(ast.parse(source)):
        modules, names, owner = [], [], None
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            modules, owner = [node.module or ""], node.module
            names = [alias.name for alias in node.names]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            owner, names = node.value.id, [node.attr]
        for top in (module.split(".")[0] for module in modules):
            if POSIX_MODULES.fullmatch(top):
                yield f"{top} is POSIX only"
            if top in STARTERS:
                yield f"{top} starts programs"
        for name in names:
            if owner in ("os", "signal", "time") and POSIX_NAMES.fullmatch(name):
                yield f"{owner}.{name} is POSIX only"
        if isinstance(node, ast.Call) and undecided(node):
            yield f"line {node.lineno} opens a file without an encoding"


def undecided(call):
    """Return whether a call opens a text file and leaves the encoding to the system."""
    name = getattr(call.func, "attr", getattr(call.func, "id", ""))
    owner = getattr(getattr(call.func, "value", None), "id", None)
    named = {keyword.arg: keyword.value for keyword in call.keywords}
    if "encoding" in named or (owner, name) == ("os", "open"):
        return False
    if name in PLACES:
        return len(call.args) <= PLACES[name]
    if name not in ("open", "fdopen"):
        return False
    method = isinstance(call.func, ast.Attribute) and owner not in ("os", "io")
    modes = [*call.args[0 if method else 1 :], named.get("mode")]
    return not (isinstance(modes[0], ast.Constant) and "b" in str(modes[0].value))


def baked_files(home):
    """Return {path: bytes} of the project that the user of this home has made."""
    found = tree(home.work / "my_service")
    return {path: data for path, data in found.items() if data is not None}


# Names


def test_the_repository_can_be_checked_out(own_files):
    assert len(own_files) > 100
    assert sum("{%" in path for path in own_files) == 2
    assert list(impossible(own_files, CHECKOUT)) == []


@pytest.mark.parametrize("target", TARGETS)
def test_every_project_can_be_checked_out(baked, target):
    made = baked(deploy_target=target, project_slug="s" * 40)
    special = {"render.yaml", "Procfile"} & set(made.files)
    assert len(special) == (target != "server")
    assert list(impossible(made.files, PROJECTS)) == []


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        *(([f"a/b{char}"], "not allowed") for char in '<>:"|?*\\\x00\t\x1f'),
        (["a:/b"], "not allowed"),
        (["a."], "a dot or a space"),
        (["a /b"], "a dot or a space"),
        (["nul"], "a device"),
        (["a/CON.tar.gz"], "a device"),
        (["com1.py/a"], "a device"),
        (["lpt9 .txt"], "a device"),
        (["com¹"], "a device"),
        (["Conin$"], "a device"),
        (["README.md", "readme.md"], "in another case"),
        (["Docs/a", "docs/b"], "in another case"),
        (["é"], "not ASCII"),
        (["f" * (260 - len("C:/p/"))], "too long"),
        (["f" * (248 - len("C:/p/")) + "/a"], "too long"),
    ],
)
def test_a_path_that_windows_cannot_hold_is_found(paths, reason):
    assert any(reason in text for text in impossible(paths, "C:/p"))


def test_paths_that_windows_can_hold_are_not_found():
    paths = [
        ".gitignore",
        "a/con_/console.py",
        "a/b.c d",
        "com10",
        "{% if a in ['b'] %}c{% endif %}",
    ]
    paths += ["f" * (259 - len("C:/p/")), "g" * (247 - len("C:/p/")) + "/a"]
    assert list(impossible(paths, "C:/p")) == []


# Hooks


@pytest.mark.parametrize("path", HOOKS, ids=lambda path: path.stem)
def test_a_hook_needs_no_shell_no_posix_and_no_default_encoding(path):
    assert list(not_portable(path.read_text("utf-8"))) == []


def test_there_are_no_other_hooks(own_files):
    # A .sh hook would need a shell, which Windows may lack.
    names = {"hooks/post_gen_project.py", "hooks/pre_gen_project.py"}
    assert {path for path in own_files if path.startswith("hooks/")} == names
    assert len(HOOKS) == len(names)


@pytest.mark.parametrize(
    "source",
    [
        "import fcntl",
        "from pwd import getpwnam",
        "import subprocess",
        "from asyncio import run",
        "os.fork()",
        "os.system('a')",
        "os.execvp('a', [])",
        "os.geteuid()",
        "os.open('a', os.O_NOFOLLOW)",
        "signal.SIGKILL",
        "from os import symlink",
        "open('a')",
        "open('a', 'w')",
        "open('a', mode='x')",
        "os.fdopen(1)",
        "io.open('b')",
        "path.open()",
        "path.open('w')",
        "path.read_text()",
        "path.write_text('a')",
    ],
)
def test_what_windows_lacks_is_found(source):
    assert len(list(not_portable(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import os, signal; os.remove('a'); signal.signal(signal.SIGINT, signal.SIG_DFL)",
        "os.open('a', os.O_RDONLY)",
        "open('a', encoding='utf-8')",
        "open('a', 'rb')",
        "os.fdopen(1, 'wb')",
        "path.open('rb')",
        "path.open(mode='xb')",
        "path.read_text('utf-8')",
        "path.write_text('a', 'utf-8')",
        "path.write_text('a', encoding='ascii')",
    ],
)
def test_what_windows_has_is_not_found(source):
    assert list(not_portable(source)) == []


@pytest.fixture
def ascii_home(tmp_path):
    """An account whose files and terminal are ASCII unless a program asks for more."""
    home = Home(tmp_path / "user")
    home.env |= {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    return home


@pytest.mark.parametrize("terminal", ["ascii", "cp1252"])
def test_the_default_encoding_does_not_matter(template, baked, ascii_home, terminal):
    ascii_home.env["PYTHONIOENCODING"] = terminal
    done = ascii_home.cookiecutter(template)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.isascii()
    assert baked_files(ascii_home) == baked().files


@pytest.mark.parametrize(("encoding", "status"), [(None, 1), ("utf-8", 0)])
def test_a_hook_that_leaves_the_encoding_open_fails_there(
    template, ascii_home, tmp_path, encoding, status
):
    broken = shutil.copytree(template, tmp_path / "broken")
    hook = broken / "hooks" / "post_gen_project.py"
    # render.yaml and others are ASCII, but the README is not.
    line = f'import sys\nopen("README.md", encoding={encoding!r}).read()\n'
    hook.write_text(hook.read_text("utf-8").replace("import sys\n", line, 1), "utf-8")
    done = ascii_home.cookiecutter(broken)
    assert done.returncode == status
    assert ("UnicodeDecodeError" in done.stderr) == bool(status)


def test_a_refused_answer_that_is_not_ascii_is_shown(template, ascii_home):
    # The answers do not come from the command line, whose bytes would have another encoding here.
    ascii_home.configure(default_context={"project_name": "Caf\u00e9 \u670d"})
    done = ascii_home.cookiecutter(template)
    assert done.returncode == 1
    assert r"project_name 'Caf\xe9 \u670d'" in done.stderr
    assert tree(ascii_home.work) == {}


# Line ends


@pytest.mark.parametrize("cured", [True, False])
def test_a_check_out_by_git_for_windows_bakes_lf(template, baked, tmp_path, cured):
    home = Home(tmp_path / "user")
    repository = home.repository(template, tmp_path / "cookiecutter-rediss.git")
    if cured:
        shutil.copy(ROOT / ".gitattributes", repository)
        home.commit(repository, "Line ends")
    folder = home.work / "checked-out"
    # Git for Windows has this setting by default.
    autocrlf = ["--config", "core.autocrlf=true"]
    home.git(home.work, "clone", "--quiet", *autocrlf, str(repository), str(folder))
    done = home.cookiecutter(folder, answers={"deploy_target": "procfile"})
    assert done.returncode == 0, done.stdout + done.stderr
    if cured:
        assert baked_files(home) == baked(deploy_target="procfile").files
    else:
        assert baked_files(home)["script/dev"].startswith(b"#!/usr/bin/env bash\r\n")


@pytest.mark.all
def test_every_file_is_text_with_lf(own_files, tmp_path):
    home = Home(tmp_path)
    copy = home.work / "copy"
    for path in own_files:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy / path)
    (copy / "crlf").write_bytes(b"a\r\n")
    (copy / "mixed").write_bytes(b"a\r\nb\n")
    (copy / "binary").write_bytes(b"a\0\r\n")
    home.git(copy, "init", "--quiet")
    home.git(copy, "add", "--all", "--force")
    # `git ls-files --eol` shows line ends in Git's store, in the folder, and the attributes.
    lines = home.git(copy, "ls-files", "--eol", "-z").strip("\0").split("\0")
    found = {path: kind.split(maxsplit=2) for kind, path in (line.split("\t") for line in lines)}
    ends = {path: tuple(kind[:2]) for path, kind in found.items()}
    assert ends.pop("crlf") == ("i/lf", "w/crlf")
    assert ends.pop("mixed") == ("i/lf", "w/mixed")
    assert ends.pop("binary") == ("i/-text", "w/-text")
    assert set(ends) == set(own_files)
    assert set(ends.values()) == {("i/lf", "w/lf"), ("i/none", "w/none")}
    assert {kind[2].strip() for kind in found.values()} == {"attr/text=auto eol=lf"}
