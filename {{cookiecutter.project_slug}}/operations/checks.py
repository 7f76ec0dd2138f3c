"""System checks: what settings and files say, without a network. `manage.py check --deploy`."""

import configparser
import os
import re
from contextlib import suppress

from celery import current_app
from django.conf import settings
from django.core.checks import Tags, Warning, register

from redis_connection import hints
from redis_connection.transport import SHARED_CONNECTIONS


@register(Tags.security, deploy=True)
def deployment(app_configs, **kwargs):
    found = [*variables(), *time_limits(), *threads(), *eviction(), *stopping()]
    return [Warning(text, hint=hint, id=f"operations.W{n:03}") for n, text, hint in found]


def connections() -> int:
    """Connections to Redis that this service holds at most, counted on a server.

    Two more are counted in: a doctor or `celery inspect` is not refused at the plan's limit.
    """
    results = hasattr(settings, "CELERY_RESULT_BACKEND")
    web = SHARED_CONNECTIONS + 1  # of /readyz
    worker = SHARED_CONNECTIONS + 1  # that waits for tasks
    worker += settings.CELERY_WORKER_CONCURRENCY  # of tasks that send tasks
    if settings.CELERY_WORKER_ENABLE_REMOTE_CONTROL:
        worker += 1  # that waits for commands
    if results:
        web += settings.WEB_THREADS
        worker += settings.CELERY_WORKER_CONCURRENCY + 1
    beat = 2 if results else 1
    return settings.WEB_CONCURRENCY * web + worker + beat + 2


def variables():
    if settings.REDIS.encrypted and not settings.REDIS.verified:
        text = "REDIS_CERT_REQS=none: whoever is on the path to Redis can read the password."
        yield 1, text, hints.UNVERIFIED
    if os.environ.get("REDIS_ALLOW_PLAINTEXT", "").strip():
        text = "REDIS_ALLOW_PLAINTEXT is set: the password may cross a public network unencrypted."
        yield 2, text, "Use a rediss:// URL and unset REDIS_ALLOW_PLAINTEXT."
    if settings.EMAIL_BACKEND == "django.core.mail.backends.console.EmailBackend":
        text = "EMAIL_URL is not set: e-mails are written to the log instead of being sent."
        yield 3, text, f"Set EMAIL_URL, as in {settings.SMTP}, and DEFAULT_FROM_EMAIL."
    most, limit = connections(), settings.REDIS_MAX_CONNECTIONS
    if limit and most > limit:
        text = f"This service opens up to {most} connections to Redis, which allows {limit}."
        yield 4, text, "Lower WEB_CONCURRENCY, or set REDIS_MAX_CONNECTIONS to a larger plan's."
    if not os.environ.get("DATABASE_URL", "").strip():
        text = "DATABASE_URL is not set: users are in a SQLite file, which many deploys delete."
        yield 5, text, f"Set DATABASE_URL, as in {settings.POSTGRES}."


def time_limits():
    visibility = current_app.conf.broker_transport_options.get("visibility_timeout", 3600)
    current_app.loader.import_default_modules()
    for name, task in sorted(current_app.tasks.items()):
        soft, hard, retry = task.soft_time_limit, task.time_limit, task.default_retry_delay
        ends = (soft or 0) < (hard or visibility) < visibility
        if not ends or (retry or 0) >= visibility:
            text = f"{name}: soft_time_limit {soft}, time_limit {hard}, default_retry_delay {retry}"
            text += f" and visibility_timeout {visibility} s do not fit."
            hint = "Keep the first below the second, and all below visibility_timeout,"
            yield 6, text, f"{hint} after which another worker takes the task as well."
            return  # what is wrong in settings.py is wrong for all


def threads():
    files = "".join(map(read, ("render.yaml", "Procfile", "supervisord.conf")))
    counts = re.findall(r"gunicorn config\.wsgi.* --threads[ =](\d+)", files)
    for count in sorted(set(counts) - {str(settings.WEB_THREADS)}):
        text = f"gunicorn gets --threads {count}, but WEB_THREADS is {settings.WEB_THREADS}."
        yield 7, text, "Make them equal: connections to Redis are counted from WEB_THREADS."


def eviction():
    """Look at the Redis that render.yaml gives the broker's variable. May miss, must not nag."""
    text, usual = read("render.yaml"), "{{ cookiecutter.__url_env }}"
    variable = "CELERY_BROKER_URL" if "CELERY_BROKER_URL" in text else usual
    queue = re.search(rf"\b{variable}\W+fromService\W[^-]*?\bname\W+([\w.-]+)", text)
    # An entry of a list: a line with a dash, and the lines below that stand further to the right.
    for entry in re.finditer(r"(?m)^( *)-.*(?:\n(?:\1 .*)?$)*", text) if queue else ():
        named = re.search(rf"(?m)\bname\W+{queue[1]}\W*$", entry[0])
        # A service that only refers to the Redis has no policy; a YAML reference may bring one.
        fine = re.search(r"maxmemoryPolicy\W+(?!allkeys)\w|fromService|<<", entry[0])
        if named and not fine:
            text = f"render.yaml: {queue[1]} holds the queue, and drops it when memory is full."
            yield 8, text, "Write maxmemoryPolicy: noeviction; Render's default is allkeys-lru."


def stopping():
    conf = configparser.RawConfigParser(strict=False, inline_comment_prefixes=(";", "#"))
    try:
        conf.read_string(read("supervisord.conf"))
    except configparser.Error:
        yield 9, "supervisord.conf cannot be read.", "Correct the line that supervisord names."
        return
    soft, hard = current_app.conf.worker_soft_shutdown_timeout, current_app.conf.task_time_limit
    total = 2  # seconds for supervisord itself
    for program in (section for section in conf.values() if "command" in section):
        known = re.match(r"\d+", program.get("stopwaitsecs", "10"))  # or %(ENV_NAME)s
        seconds = int(known[0]) if known else 0
        total += seconds  # one stops after the other
        signal = program.get("stopsignal", "") + program["command"]  # or env REMAP_SIGTERM=SIGQUIT
        needed = soft if "QUIT" in signal.upper() else hard or 0
        if re.search(r"celery .* worker\b", program["command"]) and 0 < seconds <= needed:
            text = f"{program.name} is killed after {seconds} s, before its tasks are handed back."
            yield 10, text, "Set stopsignal=QUIT, and stopwaitsecs above the soft shutdown timeout."
    delays = re.findall(r"maxShutdownDelaySeconds\W+(\d+)", read("render.yaml"))
    grace = max((min(int(delay), 300) for delay in delays), default=settings.STOP_GRACE)
    if (needed := max(soft, total)) > grace:
        text = f"To stop takes up to {needed} s (all stopwaitsecs, or soft shutdown), of {grace} s."
        yield 9, text, "Lower these, or raise maxShutdownDelaySeconds, elsewhere STOP_GRACE."


def read(name: str) -> str:
    """Return a file of this project without its comments; one that is not there is empty."""
    with suppress(OSError):
        text = (settings.BASE_DIR / name).read_text("utf-8", "replace")
        return re.sub(r"(?m)(^|[ \t]+)[#;].*", "", text)
    return ""
