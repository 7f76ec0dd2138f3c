"""How long a bake takes, as ratios: to a one-file template, and to itself without hooks.

    python benchmarks/bake.py [--rounds N]

It starts whole processes in turn, so that the machine's other work falls on all alike. It prints
the medians in milliseconds, the two ratios with the goals of docs/performance.md, and the versions.
The time of the processors is printed beside the time that passed: other work moves it less.
"""

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
GOALS = {"bake / one file": 1.6, "hooks / no hooks": 1.3}
RATIOS = {"bake / one file": ("bake", "one file"), "hooks / no hooks": ("bake", "no hooks")}


def one_file_template(folder):
    """Make the smallest possible template and return its folder."""
    inner = folder / "{{cookiecutter.project_slug}}"
    inner.mkdir(parents=True)
    (inner / "README.md").write_text("# {{ cookiecutter.project_slug }}\n")
    (folder / "cookiecutter.json").write_text(json.dumps({"project_slug": "one_file"}))
    return folder


def bake(command, scratch, template, *options):
    """Bake in a process of its own; return the seconds that it and the processors took.

    A failed bake ends everything.
    """
    output = scratch / "output"
    environment = {**os.environ, "TMPDIR": str(scratch), "HOME": str(scratch)}
    arguments = ["--no-input", "--config-file", scratch / "config.yaml", "--output-dir", output]
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [command, *arguments, *options, template], env=environment, capture_output=True, text=True
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"The bake of {template} failed:\n{done.stdout}{done.stderr}")
    shutil.rmtree(output)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="of all three bakes (default: 15)")
    rounds = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1.")
    command = shutil.which("cookiecutter", path=str(Path(sys.executable).parent))
    if command is None:
        sys.exit(f"There is no cookiecutter beside {sys.executable}: pip install cookiecutter")

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "config.yaml").write_text(
            f"{{cookiecutters_dir: {scratch}/templates, replay_dir: {scratch}/replay}}\n"
        )
        cases = {
            "one file": (one_file_template(scratch / "one"),),
            "no hooks": (TEMPLATE, "--accept-hooks", "no"),
            "bake": (TEMPLATE,),
        }
        times = {name: [] for name in cases}
        for turn in range(rounds + 1):  # The first round warms the disk cache and does not count.
            for name, arguments in cases.items():
                taken = bake(command, scratch, *arguments)
                if turn:
                    times[name].append(taken)

    medians = {
        name: [statistics.median(column) for column in zip(*values, strict=True)]
        for name, values in times.items()
    }
    print(f"medians of {rounds} rounds: time passed, time of the processors")
    for name, (passed, used) in medians.items():
        print(f"  {name:<18}{passed * 1000:6.0f} ms {used * 1000:6.0f} ms")
    print("ratios")
    for name, (one, other) in RATIOS.items():
        passed, used = (a / b for a, b in zip(medians[one], medians[other], strict=True))
        print(f"  {name:<18}{passed:6.2f}    {used:6.2f}      goal: at most {GOALS[name]}")
    print(
        f"cookiecutter {version('cookiecutter')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
