"""The tests of this folder mostly wait: they run side by side, each with a service of its own."""

import functools
import os
from pathlib import Path

import pytest

from harness.faults.stage import Stage
from harness.leftovers import nothing_left_in
from harness.side_by_side import SideBySide

HERE = Path(__file__).parent
AT_ONCE = int(os.environ.get("FAULTS_AT_ONCE", "6"))

_runs = pytest.StashKey()


@pytest.fixture(scope="package", autouse=True)
def no_leftovers(tmp_path_factory):
    """Assert that no process stays after all tests. Side by side, one test cannot be told apart."""
    with nothing_left_in(tmp_path_factory.getbasetemp()):
        yield


@pytest.fixture(scope="package")
def runs(request, no_leftovers, server_program, deployment, certificates, tmp_path_factory):
    """Every selected test of this folder, running from here on."""
    build, stages, bodies = deployment("render_public"), [], {}
    for item in request.session.items:
        if item.path.parent == HERE:
            stage = Stage(tmp_path_factory.mktemp("fault"), build, certificates)
            stages.append(stage)
            parameters = item.callspec.params if hasattr(item, "callspec") else {}
            bodies[item.nodeid] = functools.partial(_body, item.obj, stage, parameters)
    runs = request.config.stash[_runs] = SideBySide(bodies, AT_ONCE)
    yield runs
    runs.end(lambda: [stage.close() for stage in stages])


@pytest.fixture
def stage(runs):
    """A `Stage`, on which a test puts a service and does it harm."""
    # The test's thread gets the real stage, in _body().


def _body(test, stage, parameters):
    with stage:
        test(stage=stage, **parameters)


def pytest_pyfunc_call(pyfuncitem):
    """Wait for the test, which runs already, instead of calling it."""
    runs = pyfuncitem.config.stash.get(_runs, None)
    if runs is None or pyfuncitem.nodeid not in runs:
        return None
    runs.result(pyfuncitem.nodeid)
    return True


def pytest_terminal_summary(terminalreporter, config):
    """Print real times, because pytest measures only how long it waited for each test."""
    if runs := config.stash.get(_runs, None):
        terminalreporter.section("seconds of each fault, side by side")
        for name, seconds in sorted(runs.seconds().items(), key=lambda row: -row[1]):
            terminalreporter.write_line(f"{seconds:5.0f} {name.rpartition('/')[2]}")
