"""The faults: what is done to a service, each a function with its one line of description.

A fault gets a `Run` whose stack is started (or, where it says `boot`, has only its servers).
"""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from harness.processes import Failed, free_port

from . import ending
from .promise import promise
from .servers import wait_for_replica
from .services import NAMES, OURS
from .stack import Shape

FAULTS = {}


@dataclass(frozen=True)
class Fault:
    """One fault and what its runs need; `about` is the line that describes it."""

    name: str
    group: str
    about: str
    act: Callable
    runs: int = 1
    shape: Shape = field(default_factory=Shape)
    boot: bool = False  # The service is not started before the fault.
    spoils: bool = True  # No other run may use the stack afterwards.
    services: tuple = NAMES


def fault(name, group, about=None, **options):
    """Register the decorated function under that name; its docstring's first line describes it."""

    def register(function):
        text = about or function.__doc__.partition("\n")[0]
        if name in FAULTS:
            raise ValueError(f"two faults are named {name}")
        FAULTS[name] = Fault(name, group, text, function, **options)
        return function

    return register


def see_it_through(run, tasks=120, mails=300, settle=5):
    """Send 5 tasks and 2 mails after a fault, and see what becomes of all."""
    run.after(tasks=5, mails=2)
    watch_to_the_end(run, tasks, mails, settle)


def watch_to_the_end(run, tasks=120, mails=300, settle=5):
    """Watch for so many seconds at most, then see how many tasks the worker runs at a time."""
    run.watch(tasks, mails, settle)
    if run.recovery() is not None:
        run.check_strength()


# Stalls

LENGTHS = (1, 3, 6, 8, 10, 12, 15, 20, 30, 45, 60)  # seconds
BETWEEN = 5  # seconds between two stalls


def stall(run, seconds, busy, times):
    """redis-server is frozen (SIGSTOP) for some seconds, once or twice."""
    redis = run.stack.redis
    busy_at = []
    for turn in range(times):
        began = time.time()
        if busy:
            # Their acknowledgements fall into the stall.
            ending.pause(BETWEEN - 2 if turn else 0)
            busy_at.append(run.busy(3))
        if turn:
            ending.pause(BETWEEN - (time.time() - began))
        redis.freeze()
        if not turn:
            run.begin()
            run.later(run.task)
        try:
            ending.pause(seconds)
        finally:
            redis.thaw()
    run.end()
    run.extra["busy_at_each_stall"] = busy_at
    see_it_through(run, mails=120, settle=1)


def stall_name(seconds, busy, times, processes):
    """Return the name of one cell of the grid."""
    words = ("busy" if busy else "idle", "twice" if times == 2 else "once")
    return f"stall-{seconds}s-{'-'.join(words)}-{processes}"


def register_stalls():
    for processes in (1, 2):
        for times in (1, 2):
            for busy in (False, True):
                for seconds in LENGTHS:
                    fault(
                        stall_name(seconds, busy, times, processes),
                        "stalls",
                        f"Redis is frozen for {seconds} s"
                        f"{f', {BETWEEN} s later again' if times == 2 else ''}, the worker's"
                        f" {processes} process{'es' if processes > 1 else ''}"
                        f" {'at work' if busy else 'idle'}",
                        runs=5,
                        shape=Shape(processes),
                        spoils=False,
                    )(partial(stall, seconds=seconds, busy=busy, times=times))


register_stalls()


# Refusals: Redis answers, but takes no writes

REFUSED_FOR = 60  # seconds


class Refusal:
    """A way in which Redis refuses writes: `start(stack)` and `heal(stack)`."""

    def __init__(self, about, start, heal, shape=None):
        self.about, self.start, self.heal = about, start, heal
        self.shape = shape or Shape()


def fill(stack):
    """Use 16 MB, and allow 8 MB less than is used."""
    redis = stack.redis
    redis.command("SETRANGE", "junk", 16_000_000, "x")
    used = redis.command("INFO", "memory").partition("used_memory:")[2].split()[0]
    redis.set("maxmemory", int(used) - 8_000_000)


def empty(stack):
    stack.redis.command("DEL", "junk")


def follow_nobody(stack):
    stack.redis.command("REPLICAOF", "127.0.0.1", free_port())


def follow_no_more(stack):
    stack.redis.command("REPLICAOF", "NO", "ONE")


def ask_for_replicas(stack):
    stack.redis.set("min-replicas-to-write", 1)


def ask_for_no_replicas(stack):
    stack.redis.set("min-replicas-to-write", 0)


def fail_to_save(stack):
    """Take away the folder it saves to, and let it try."""
    redis = stack.redis
    folder = stack.folder / "data"
    folder.mkdir()
    redis.set("dir", folder)
    folder.rmdir()
    redis.set("save", "3600 1")
    redis.command("BGSAVE")
    ending.wait_until(
        lambda: "rdb_last_bgsave_status:err" in redis.command("INFO", "persistence"),
        20,
        "redis-server fails to save",
    )


def save_again(stack):
    stack.redis.set("dir", stack.folder)
    stack.redis.set("save", "")


def load_slowly(stack):
    stack.redis.start_slowly(REFUSED_FOR)


def wait_until_loaded(stack):
    ending.wait_until(lambda: not stack.redis.loading(), REFUSED_FOR, "redis-server has loaded")
    stack.redis.remove_filler()


def take_rights(stack):
    stack.redis.command("ACL", "SETUSER", "default", "-@write")


def give_rights(stack):
    stack.redis.command("ACL", "SETUSER", "default", "+@all")


REFUSALS = {
    "memory-full": Refusal("Redis's memory is full (OOM, noeviction)", fill, empty),
    "read-only": Refusal("Redis is a read-only replica (READONLY)", follow_nobody, follow_no_more),
    "no-replicas": Refusal(
        "Redis has not enough replicas (NOREPLICAS)", ask_for_replicas, ask_for_no_replicas
    ),
    "cannot-save": Refusal("Redis cannot save to its disk (MISCONF)", fail_to_save, save_again),
    "loading": Refusal(
        "Redis has restarted and loads its data (LOADING)", load_slowly, wait_until_loaded
    ),
    "no-permission": Refusal(
        "Redis takes the right to write away (NOPERM)", take_rights, give_rights
    ),
}


def refuse_running(run, refusal):
    """Refuse writes for 60 s, with tasks and mails in the queue."""
    run.backlog(tasks=12, mails=3)
    refusal.start(run.stack)
    run.begin()
    run.meanwhile(REFUSED_FOR)
    refusal.heal(run.stack)
    run.end()
    see_it_through(run)


def refuse_at_boot(run, refusal):
    """Refuse writes before the service starts and for 60 s from then."""
    refusal.start(run.stack)
    run.stack.start()
    run.begin()
    wait_for_the_web(run)
    run.meanwhile(REFUSED_FOR - (time.time() - run.began))
    refusal.heal(run.stack)
    run.end()
    see_it_through(run)


def wait_for_the_web(run, seconds=40):
    """Wait until the web is up, or that long, because promises before would only be refused."""
    end = time.time() + seconds
    while time.time() < end and run.stack.alive():
        if run.stack.serves():
            return
        ending.pause(0.3)


def register_refusals():
    for name, refusal in REFUSALS.items():
        options = {"runs": 5, "shape": refusal.shape}
        fault(
            f"{name}-running",
            "refusals",
            f"{refusal.about} for {REFUSED_FOR} s, with a backlog",
            spoils=False,
            **options,
        )(partial(refuse_running, refusal=refusal))
        fault(
            f"{name}-boot",
            "refusals",
            f"{refusal.about} for the first {REFUSED_FOR} s",
            boot=True,
            **options,
        )(partial(refuse_at_boot, refusal=refusal))


register_refusals()


def lead_to_the_standby(stack):
    """What a provider does: the address leads to the standby, now the only master."""
    stack.standby.command("REPLICAOF", "NO", "ONE")
    stack.forwarder.target = stack.standby.port
    stack.redis.command("REPLICAOF", "localhost", stack.standby.port)
    stack.in_use = stack.standby


@fault("failover-running", "refusals", runs=5, shape=Shape(failover=True))
def failover_running(run):
    """The address leads to another Redis, the old one becomes its replica and keeps connections."""
    stack = run.stack
    stack.standby.command("REPLICAOF", "localhost", stack.redis.port)
    wait_for_replica(stack.standby)
    run.backlog(tasks=12, mails=3)
    lead_to_the_standby(stack)
    run.begin()
    run.end(run.began + 0.001)  # From here on there is a Redis that takes writes.
    run.after(tasks=5, mails=2)
    run.meanwhile(REFUSED_FOR)
    run.look_no_further()
    watch_to_the_end(run)


@fault("failover-boot", "refusals", runs=5, boot=True, shape=Shape(failover=True))
def failover_at_boot(run):
    """For 60 s the address still leads to the old Redis, a read-only replica of the new one."""
    stack = run.stack
    stack.redis.command("REPLICAOF", "localhost", stack.standby.port)
    wait_for_replica(stack.redis)
    stack.start()
    run.begin()
    wait_for_the_web(run)
    run.meanwhile(REFUSED_FOR - (time.time() - run.began))
    stack.forwarder.target = stack.standby.port
    stack.in_use = stack.standby
    run.end()
    see_it_through(run)


# Promised mails whose messages Redis has lost

REDIS_DOWN = 15  # seconds


def lose_promises(run, count, refused=0):
    """Promise mails in bulk, have Redis lose their messages and be away for 15 s."""
    stack = run.stack
    run.begin()
    stack.signal_workers(signal.SIGSTOP)  # So that nothing is sent before.
    promise(run, refused, refused=True)
    promise(run, count)
    stack.redis.stop()  # Everything in it goes, too.
    stack.signal_workers(signal.SIGCONT)
    ending.pause(REDIS_DOWN)
    stack.redis.start()
    run.end()


def watch_the_mails(run, seconds):
    run.after(tasks=1, mails=0)
    run.watch(tasks=120, mails=seconds, settle=5)
    times = sorted(when for _, when in run.mails_taken() if when > run.ended)
    if len(times) > 1:
        run.extra["mails_per_second"] = round(len(times) / max(0.1, times[-1] - times[0]), 2)
        run.extra["first_mail_after"] = round(times[0] - run.ended, 1)


@fault("sweep-1000", "sweep")
def sweep_a_thousand(run):
    """Redis loses the messages of 1,000 registrations and is down for 15 s."""
    lose_promises(run, 1000)
    watch_the_mails(run, 600)


@fault("sweep-10000", "sweep", services=(OURS,))
def sweep_ten_thousand(run):
    """Redis loses the messages of 10,000 registrations and is down for 15 s."""
    lose_promises(run, 10_000)
    watch_the_mails(run, 1200)


@fault("sweep-refused", "sweep")
def sweep_refused(run):
    """The same with 200 addresses that the mail server refuses in front of a good one."""
    lose_promises(run, 1, refused=200)
    watch_the_mails(run, 600)


# Deploys and crashes of the service itself


def ready_again(run):
    """Start the service again; recovery is counted from the worker's line "ready"."""
    stack = run.stack
    stack.start()
    ending.wait_until(stack.worker_is_ready, 90, "the worker is ready", every=0.1)
    run.end()
    run.after(tasks=5, mails=2)


@fault("deploy-during-a-mail", "deploy")
def deploy_during_a_mail(run):
    """SIGTERM and a new start while the mail server takes 60 s for a mail."""
    stack = run.stack
    stack.mail.hold = 60
    run.mail()
    ending.wait_until(lambda: stack.mail.busy, 20, "the worker sends the mail")
    ending.pause(2)
    run.begin()
    run.extra["stopped_after"] = round(stack.stop_as_a_platform(), 1)
    stack.mail.hold = 0
    ready_again(run)
    watch_to_the_end(run)


@fault("kill-everything", "deploy")
def kill_everything(run):
    """kill -9 of all processes with 20 tasks and 5 mails in the queue, then a new start."""
    stack = run.stack
    run.backlog(tasks=20, mails=5)
    run.begin()
    stack.program.kill()
    ready_again(run)
    watch_to_the_end(run)


@fault("new-password", "deploy")
def new_password(run):
    """Redis gets another password; the service is restarted with it 30 s later."""
    stack = run.stack
    run.backlog(tasks=12, mails=3)
    run.begin()
    stack.redis.set("requirepass", "another-password")
    stack.redis.password = "another-password"
    for kind in ("normal", "pubsub"):
        stack.redis.command("CLIENT", "KILL", "TYPE", kind)
    run.meanwhile(30)
    stack.stop_as_a_platform()
    stack.kind.change_url(stack.commands, stack.url("another-password"))
    ready_again(run)
    watch_to_the_end(run)


# Redis and the network


@fault("down-at-boot", "others", boot=True)
def down_at_boot(run):
    """Redis is down for the first 60 s."""
    stack = run.stack
    stack.redis.stop()
    stack.start()
    run.begin()
    wait_for_the_web(run)
    run.meanwhile(60 - (time.time() - run.began))
    stack.redis.start()
    run.end()
    see_it_through(run)


@fault("six-restarts", "others")
def six_restarts(run):
    """Redis restarts six times in a minute and keeps its data."""
    run.backlog(tasks=60, mails=5)
    run.begin()
    for _ in range(6):
        run.stack.redis.stop(keep=True)
        run.stack.redis.start()
        run.meanwhile(10)
    run.end()
    see_it_through(run)


@fault("connections-killed", "others")
def connections_killed(run):
    """Redis kills all connections every 2 s for 30 s."""
    run.backlog(tasks=60, mails=5)
    run.begin()
    for _ in range(15):
        for kind in ("normal", "pubsub"):
            run.stack.redis.command("CLIENT", "KILL", "TYPE", kind)
        run.meanwhile(2)
    run.end()
    see_it_through(run)


def drop_silently(run):
    stack = run.stack
    ports = stack.ports_of_the_worker()
    if not ports:
        raise Failed("the worker has no connection to Redis")
    for port in ports:
        stack.namespace.drop(port)
    run.begin()
    run.end(run.began + 0.001)  # A new connection would work at once.
    run.after(tasks=5, mails=2)
    run.meanwhile(30)
    run.look_no_further()
    watch_to_the_end(run, tasks=300)


@fault("silent-drop-idle", "others", shape=Shape(namespace=True))
def silent_drop_idle(run):
    """The network silently drops the worker's connections; new ones work."""
    drop_silently(run)


@fault("silent-drop-busy", "others", shape=Shape(namespace=True))
def silent_drop_busy(run):
    """The same with all processes at work and 10 tasks waiting."""
    run.busy(3)
    run.backlog(tasks=10, mails=0)
    drop_silently(run)


# The worker


@fault("children-killed", "others")
def children_killed(run):
    """SIGKILL of the worker's children every 5 s for 30 s, with tasks running."""
    run.backlog(tasks=30, mails=2)
    run.begin()
    for _ in range(6):
        _, children = run.stack.worker()
        kill(children)
        run.meanwhile(5)
    run.end()
    see_it_through(run, tasks=300)


@fault("worker-killed", "others")
def worker_killed(run):
    """SIGKILL of the worker's main process, with tasks running."""
    run.backlog(tasks=20, mails=2)
    run.begin()
    main, _ = run.stack.worker()
    kill([main])
    run.end()
    see_it_through(run)


@fault("poison", "others")
def poison(run):
    """A task kills the process that runs it, with 20 tasks beside it."""
    run.backlog(tasks=10, mails=0)
    run.begin()
    send_without_counting(run, "poison")
    run.backlog(tasks=10, mails=2)
    run.end()
    see_it_through(run)


@fault("hang", "others")
def hang(run):
    """As many tasks that never end as there are processes."""
    run.begin()
    for _ in range(run.stack.shape.processes):
        send_without_counting(run, "hang")
    run.end()
    see_it_through(run, tasks=180)


@fault("unknown-task", "others")
def unknown_task(run):
    """A message for a task that nobody has."""
    run.begin()
    send_without_counting(run, "unknown")
    run.end()
    see_it_through(run)


@fault("malformed-messages", "others")
def malformed_messages(run):
    """Three malformed messages: one is not JSON, one an empty object, one a list."""
    redis = run.stack.redis
    run.begin()
    for text in ("no JSON", "{}", "[1, 2]"):
        redis.command("LPUSH", redis.queue(), text)
    run.end()
    see_it_through(run)


def send_without_counting(run, kind):
    """Send a task that is not meant to be done."""
    number = run.task(kind=kind)
    if number is None:
        raise Failed(f"the task {kind!r} was not sent")
    del run.tasks.accepted[number]


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, TypeError):
            continue


# Mail and database


@fault("mail-down", "others")
def mail_down(run):
    """The mail server is down for 3 min; 10 people register."""
    stack = run.stack
    stack.mail.stop()
    run.begin()
    for _ in range(10):
        run.mail()
    run.meanwhile(180, task_every=10, mail_every=1000)
    stack.mail.start()
    run.end()
    see_it_through(run, mails=600)


@fault("mail-hangs-up", "others")
def mail_hangs_up(run):
    """The mail server takes each mail for 60 s, but hangs up instead of answering."""
    run.stack.mail.hang_up = True
    run.begin()
    for _ in range(5):
        run.mail()
    run.meanwhile(60, task_every=10, mail_every=1000)
    run.stack.mail.hang_up = False
    run.end()
    see_it_through(run, settle=120)


@fault("postgres-down", "others", shape=Shape(postgres=True))
def postgres_down(run):
    """PostgreSQL is away for 40 s, with 20 tasks and 5 mails in the queue."""
    run.backlog(tasks=20, mails=5)
    run.begin()
    run.stack.postgres.stop()
    run.meanwhile(40)
    run.stack.postgres.start()
    run.end()
    see_it_through(run)
