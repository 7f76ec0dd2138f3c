"""A whole service holds no more connections to Redis than its budget."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks.connections import Load, inspect, keep_results, measure
from benchmarks.faults.services import Ours
from benchmarks.faults.stack import Shape, Stack
from harness.answers import varied
from harness.certificates import Authority
from harness.deployments import Venv
from harness.processes import wait_until

pytestmark = pytest.mark.xdist_group("connections")
LOOK = 5  # Seconds under load, without and with `celery inspect`.
ROOM = 2  # The connections of the budget that the service itself does not hold.
MOST = 12  # The budget of a service without results, in connections.
PATIENCE = 3 * 8  # Seconds. In a web request `.delay()` is promised to end within 8.


@pytest.fixture(scope="module")
def kind(server_program, tmp_path_factory):
    folder = tmp_path_factory.mktemp("connections")
    authority = Authority(folder, "the CA of these tests")
    kind = Ours(folder / "ours", authority, Venv(folder / "venv"))
    kind.authority = authority
    return kind


@pytest.fixture
def stack(kind):
    """A service that is not started yet, and its servers."""
    stack = Stack(kind, Shape(), kind.authority)
    yield stack
    stack.close()


def budget_of(stack):
    """Return the number that `check --deploy` compares with the plan's limit (W004)."""
    code = "from operations.checks import connections; print(connections())"
    done = stack.project.manage("shell", "--no-imports", "--command", code)
    return int(done.stdout)


@pytest.mark.all
@pytest.mark.parametrize("results", varied([False, True]), ids=["results off", "results kept"])
def test_a_service_under_load_stays_within_its_budget(stack, results):
    if results:
        keep_results(stack)
        stack.project.settings = stack.commands.first_environment()
    stack.start_and_wait()
    found = measure(stack, LOOK)
    budget = budget_of(stack)
    assert found["not sent"] == 0
    assert sum(found["peak"].values()) <= budget - ROOM, found
    assert sum(found["with inspect"].values()) <= budget, found
    assert results or budget <= MOST


def refused_at(stack, limit):
    """Return how many connections of service, doctor and inspect Redis refuses at this limit."""
    stack.redis.command("CONFIG", "SET", "maxclients", limit)
    stack.start_and_wait()
    with Load(stack) as load:
        wait_until(lambda: load.sent > 100, 60, "load")
        inspected = stack.project.run("celery -A config inspect ping --timeout 3")
        doctor, _ = stack.project.doctor()
    stack.stop_as_a_platform()  # Otherwise there may be no connection left to ask on.
    refused = int(re.search(r"rejected_connections:(\d+)", stack.redis.command("INFO", "stats"))[1])
    return refused, load.failed, inspected.returncode, doctor


@pytest.mark.all
def test_at_the_limit_of_the_plan_neither_doctor_nor_inspect_is_refused(stack):
    # One more connection is for this test, which asks Redis.
    assert refused_at(stack, budget_of(stack) + 1) == (0, 0, 0, 0)


@pytest.mark.all
def test_a_smaller_plan_refuses_some(stack):
    """This proves that the test above can go red, and that the budget is needed."""
    refused, *_ = refused_at(stack, budget_of(stack) - 3)
    assert refused > 0


@pytest.mark.all
def test_remote_control_in_a_web_request_waits_for_nobody(stack):
    stack.start_and_wait()
    inspect(stack)
    fields = {"kind": "ping", "number": "0", "seconds": "1"}

    def ask(_):
        return stack.web.post("/numbered/", PATIENCE, fields)

    with Load(stack) as load, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(16))) == {200}
    assert load.failed == 0
    assert load.sent > 0


@pytest.mark.all
def test_processes_that_are_replaced_all_the_time_send_tasks_too(stack):
    settings = stack.project.path / "config" / "settings.py"
    settings.write_text(settings.read_text() + "\nCELERY_WORKER_MAX_TASKS_PER_CHILD = 1\n")
    stack.start_and_wait()
    numbers = range(1, 21)
    for number in numbers:
        fields = {"kind": "forward", "number": str(number), "seconds": "0"}
        assert stack.web.post("/numbered/", PATIENCE, fields) == 200
    done = lambda: {number for number, word, _ in stack.notes() if word == "done"}  # noqa: E731
    wait_until(lambda: done() == set(numbers), 90, "all forwarded tasks done")
