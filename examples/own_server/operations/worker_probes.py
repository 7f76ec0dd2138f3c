"""Probes of what lies behind Redis: results, queues, workers and what they leave, beat."""

import time
from collections.abc import Iterable
from datetime import timedelta

from celery import current_app
from django.conf import settings
from django.db.models import QuerySet
from django.db.models.functions import Now

from authentication import summary
from redis_connection.diagnosis import ProbeFailed, RedisDiagnosis

from .models import DeafWorker, Heartbeat, PutAsideMessage, RoundTrip
from .tasks import HOUSEKEEPING, answer

ROUND_TRIP_TIMEOUT = 10  # seconds
POLLING_INTERVAL = 0.05  # seconds between two looks into the database
CLOCKS_DIFFER = 5  # seconds
HEARTBEAT_TIMEOUT = timedelta(seconds=300)  # housekeeping runs every 120
RECENTLY = timedelta(days=1)


def results() -> str:
    """The server of the results can be used, if results are on."""
    policy = getattr(settings, "RESULTS", None)
    if policy is None:
        return "off"
    server = RedisDiagnosis(policy)
    try:
        return f"{server.host} port {server.port}, {server.database()}"
    except ProbeFailed as failure:
        hint = f"CELERY_RESULT_BACKEND: {failure.hint}"
        raise ProbeFailed(failure.detail, hint) from failure


def queues() -> str:
    """How many tasks wait in each queue.

    All keys of a queue are asked at once, as a worker does it: in a cluster they must be in one
    slot.
    """
    waiting = []
    with current_app.connection_for_read() as broker:
        channel = broker.channel()
        for name in queue_names():
            count = channel.queue_declare(name).message_count
            waiting.append(f"{count} waiting in {name}")
    return ", ".join(waiting)


def round_trip() -> str:
    """A task goes through broker and worker, and its answer comes back through the database."""
    default_queue = queue_names()[0]
    sent_at = time.time()
    started = time.monotonic()
    (answered,) = wait_for_answers([default_queue])
    seconds = time.monotonic() - started
    detail = f"{answered.worker} answered after {seconds:.1f} s"
    ahead = clock_difference(answered.clock, sent_at, sent_at + seconds)
    if abs(ahead) > CLOCKS_DIFFER:
        direction = "ahead of" if ahead > 0 else "behind"
        raise ProbeFailed(
            f"{detail}; its clock is {abs(ahead):.0f} s {direction} this machine's",
            "Set the clocks of both machines (NTP). Where a clock is wrong, tasks with `expires`"
            " are dropped, tasks with `eta` run too early or too late, and certificates are"
            " refused.",
            "warn",
        )
    return detail


def consumers() -> str:
    """Every other queue has a worker, too."""
    names = queue_names()
    wait_for_answers(names[1:])
    return f"a worker for {', '.join(names)}"


def workers() -> str:
    """No worker had to end itself because it took no tasks (watchdog.py)."""
    rows = DeafWorker.objects.filter(at__gt=Now() - RECENTLY).order_by("at")
    last = rows.last()
    if last is None:
        return "none had to end itself since yesterday"
    raise ProbeFailed(
        f"{rows.count()} times since yesterday a worker took no tasks and ended itself,"
        f" the last time {last.worker} at {last.at:%Y-%m-%d %H:%M:%S} UTC: {last.detail}",
        "It was started again each time. If tasks wait now, restart the worker, and read its log.",
        "warn",
    )


def emails() -> str:
    """No promised e-mail is overdue, and no mail server has refused one for good."""
    found = summary.summarize_emails()
    detail = f"{found.waiting} waiting, {found.refused} not sent since yesterday"
    if found.reason:
        detail += f"; the mail server said: {found.reason}"
    if found.refused:
        raise ProbeFailed(
            detail,
            "Look at them in the admin, under verification emails. “Send again” there tries once"
            " more.",
            "warn",
        )
    if found.failing:
        raise ProbeFailed(
            detail,
            "Each is tried again within 15 minutes. If all fail, check EMAIL_URL.",
            "warn",
        )
    if found.overdue:
        raise ProbeFailed(
            f"{detail}; {found.overdue} have been due for more than 5 minutes",
            "Read the worker's log: does housekeeping run, and does a sweep follow it?",
            "warn",
        )
    return detail


def put_aside() -> str:
    """No message came that no task could be made of (put_aside.py)."""
    rows = PutAsideMessage.objects.filter(at__gt=Now() - RECENTLY).order_by("at")
    last = rows.last()
    if last is None:
        return "no message since yesterday"
    raise ProbeFailed(
        f"{rows.count()} since yesterday, the last one in {last.queue}: {last.reason}",
        "Look at them in the admin, under put aside messages. If a task is unknown, deploy web and"
        " worker with the same code.",
        "warn",
    )


def beat() -> str:
    """Housekeeping ran lately. If the steps before have passed, a failure is beat's."""
    return last_housekeeping("Workers answer, so see that beat runs, and read its log.")


# What the probes share


def queue_names() -> list[str]:
    """The queues that tasks go to, by their options, routes and schedule; the default one first."""
    app = current_app
    app.loader.import_default_modules()
    sent = []  # (name of a task, the options that it is sent with)
    for name, task in app.tasks.items():
        sent.append((name, {"queue": getattr(task, "queue", None)}))
    for entry in app.conf.beat_schedule.values():
        options = entry.get("options") or {}
        sent.append((entry["task"], {"queue": options.get("queue")}))

    names = set()
    for name, options in sent:
        route = app.amqp.router.route(options, name)
        if "queue" in route:
            names.add(route["queue"].name)
    default = app.conf.task_default_queue
    return [default, *sorted(names - {default})]


def wait_for_answers(names: list[str]) -> list[RoundTrip]:
    """Send a task through each queue, and wait for the answers of the workers.

    Raises ProbeFailed if one is missing after ROUND_TRIP_TIMEOUT.
    """
    if current_app.conf.task_always_eager:
        hint = "Tasks run in the process that sends them: unset it."
        raise ProbeFailed("CELERY_TASK_ALWAYS_EAGER is set", hint)
    asked = []
    try:
        for name in names:
            row = RoundTrip.objects.create(queue=name)
            asked.append(row)
            answer.apply_async([row.token.hex], queue=name)
        return poll(asked)
    finally:
        rows_of(asked).delete()


def poll(asked: list[RoundTrip]) -> list[RoundTrip]:
    """The rows as soon as all of them are answered."""
    rows = rows_of(asked)
    deadline = time.monotonic() + ROUND_TRIP_TIMEOUT
    while True:
        answered = list(rows.exclude(worker=""))
        if len(answered) == len(asked):
            return answered
        if time.monotonic() >= deadline:
            break
        time.sleep(POLLING_INTERVAL)
    missing = sorted({row.queue for row in asked} - {row.queue for row in answered})
    detail = f"no answer from {', '.join(missing)} within {ROUND_TRIP_TIMEOUT} s"
    raise ProbeFailed(detail, describe_workers(missing))


def rows_of(asked: list[RoundTrip]) -> QuerySet[RoundTrip]:
    return RoundTrip.objects.filter(pk__in=[row.pk for row in asked])


def clock_difference(clock: float, earliest: float, latest: float) -> float:
    """Seconds by which another clock is ahead of this machine's; negative if it is behind.

    The other clock was read at some moment between `earliest` and `latest`. What lies between
    these two is no difference of the clocks.
    """
    if clock > latest:
        return clock - latest
    if clock < earliest:
        return clock - earliest
    return 0.0


def describe_workers(names: Iterable[str]) -> str:
    """The hint for queues from which no answer came: what the workers do instead, if any are there.

    A worker may be absent, busy, consume other queues, or take no tasks any more.
    """
    deaf = DeafWorker.objects.filter(at__gt=Now() - timedelta(hours=1)).last()
    if deaf:
        return f"{deaf.worker} took no tasks although some waited: restart the worker."
    if not settings.CELERY_WORKER_ENABLE_REMOTE_CONTROL:
        return (
            "Read the worker's log: it is absent, busy, or has another URL or queue. If it is there"
            " and has nothing to do, restart the worker."
        )
    inspect = current_app.control.inspect(timeout=1)
    active = inspect.active()
    if not active:
        return "No worker is there: see that one runs, with this URL, and read its log."
    reserved = inspect.reserved() or {}
    consumed = inspect.active_queues() or {}
    idle = []
    for worker, queues_of_worker in consumed.items():
        consumes = {queue["name"] for queue in queues_of_worker}
        works = active.get(worker) or reserved.get(worker)
        if consumes.intersection(names) and not works:
            idle.append(worker)
    if idle:
        who = ", ".join(sorted(idle))
        return f"{who} is there, has nothing to do, and takes no task: restart the worker."
    who = ", ".join(sorted(active))
    return f"{who} is there: it is busy, or consumes other queues (worker option -Q)."


def last_housekeeping(hint: str) -> str:
    """When housekeeping last ran; ProbeFailed if that is too long ago."""
    rows = Heartbeat.objects.filter(name=HOUSEKEEPING)
    row = rows.first()
    when = f"{row.at:%Y-%m-%d %H:%M:%S} UTC" if row else "never"
    detail = f"last housekeeping: {when}"
    # The database's clock wrote the time, so the same clock judges it: this machine's may differ.
    if not rows.filter(at__gt=Now() - HEARTBEAT_TIMEOUT).exists():
        raise ProbeFailed(detail, hint)
    return detail
