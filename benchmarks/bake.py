"""How long a bake takes, as ratios: to a one-file template, and to itself without hooks.

    python benchmarks/bake.py [--rounds N]

It starts whole processes in turn, so that the machine's other work falls on all alike. It prints
the medians in milliseconds, the two ratios with the goals of docs/performance.md, and the versions.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
GOALS = {"bake / one file": 2.0, "hooks / no hooks": 1.3}


def one_file_template(folder):
    """Make the smallest possible template and return its folder."""
    inner = folder / "{{cookiecutter.project_slug}}"
    inner.mkdir(parents=True)
    (inner / "README.md").write_text("# {{ cookiecutter.project_slug }}\n")
    (folder / "cookiecutter.json").write_text(json.dumps({"project_slug": "one_file"}))
    return folder


def bake(command, scratch, template, *options):
    """Bake in a process of its own; return the seconds it took. A failed bake ends everything."""
    output = scratch / "output"
    environment = {**os.environ, "TMPDIR": str(scratch), "HOME": str(scratch)}
    arguments = ["--no-input", "--config-file", scratch / "config.yaml", "--output-dir", output]
    start = time.perf_counter()
    done = subprocess.run(
        [command, *arguments, *options, template], env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"The bake of {template} failed:\n{done.stdout}{done.stderr}")
    shutil.rmtree(output)
    return seconds


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
                seconds = bake(command, scratch, *arguments)
                if turn:
                    times[name].append(seconds)

    medians = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        "bake / one file": medians["bake"] / medians["one file"],
        "hooks / no hooks": medians["bake"] / medians["no hooks"],
    }
    print(f"medians of {rounds} rounds")
    for name, seconds in medians.items():
        print(f"  {name:<18}{seconds * 1000:6.0f} ms")
    print("ratios")
    for name, ratio in ratios.items():
        print(f"  {name:<18}{ratio:6.2f}   goal: at most {GOALS[name]}")
    print(
        f"cookiecutter {version('cookiecutter')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    )


if __name__ == "__main__":
    main()
