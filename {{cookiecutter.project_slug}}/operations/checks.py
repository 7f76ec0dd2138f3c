"""System checks: what the variables and settings of a deployment mean for it.

`manage.py check --deploy` runs them, without a network. What supervisord.conf, the Procfile and
render.yaml must agree on with the settings is asserted in tests/test_deployment.py.
"""

import os
from collections.abc import Iterator
from typing import Any

from celery import Celery, Task, current_app
from django.conf import settings
from django.contrib.staticfiles.storage import staticfiles_storage
from django.core.checks import CheckMessage, Tags, Warning, register

from redis_connection import hints
from redis_connection.transport import SHARED_CONNECTIONS
from redis_connection.url import is_private

# What becomes of e-mails that are not sent. Whoever names a folder wants them there.
NOT_SENT = {
    "django.core.mail.backends.console.EmailBackend": "written to the log",
    "django.core.mail.backends.locmem.EmailBackend": "kept in memory",
    "django.core.mail.backends.dummy.EmailBackend": "thrown away",
}
# A key of random characters has more than these. The shortest that is used, Render's 44 of base64,
# has some 32 different ones, and one of 44 hexadecimal digits has 12 or more.
SHORTEST_KEY = 44
FEWEST_DIFFERENT = 9
# Words of keys that were made to be replaced.
PLACEHOLDERS = (
    "insecure",
    "only-for-development",
    "secret-key",
    "secretkey",
    "placeholder",
    "changeme",
    "change-me",
    "change-this",
    "replace-me",
    "your-secret",
)
# Seconds; what kombu's Redis transport takes where no visibility_timeout is set.
DEFAULT_VISIBILITY_TIMEOUT = 3600
# Connections left for a doctor or `celery inspect`, which would otherwise be refused at the limit.
RESERVE = 2


@register(Tags.security, deploy=True)
def check_deployment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Return what is wrong in the order of the ids. Django runs what is registered in no order."""
    return [
        *check_redis_is_verified(),
        *check_plaintext_is_not_allowed(),
        *check_email_is_sent(),
        *check_redis_allows_all_connections(),
        *check_database_is_a_server(),
        *check_tasks_end_within_their_claim(),
        *check_secret_key_is_random(),
        *check_database_is_verified(),
        *check_static_files_are_collected(),
    ]


def check_redis_is_verified() -> Iterator[CheckMessage]:
    if settings.REDIS.encrypted and not settings.REDIS.verified:
        yield Warning(
            "REDIS_CERT_REQS=none: whoever is on the path to Redis can read the password.",
            hint=hints.UNVERIFIED,
            id="operations.W001",
        )


def check_plaintext_is_not_allowed() -> Iterator[CheckMessage]:
    """Warn of what an operator has allowed. A provider's private hosts are rendered as default."""
    if os.environ.get("REDIS_ALLOW_PLAINTEXT", "").strip():
        yield Warning(
            "REDIS_ALLOW_PLAINTEXT is set: the password may cross a public network unencrypted.",
            hint="Use a rediss:// URL and unset REDIS_ALLOW_PLAINTEXT.",
            id="operations.W002",
        )


def check_email_is_sent() -> Iterator[CheckMessage]:
    place = NOT_SENT.get(settings.EMAIL_BACKEND)
    if place:
        yield Warning(
            f"EMAIL_URL names no mail server: e-mails are {place} instead of being sent.",
            hint=f"Set EMAIL_URL, as in {settings.SMTP}, and DEFAULT_FROM_EMAIL.",
            id="operations.W003",
        )


def check_redis_allows_all_connections() -> Iterator[CheckMessage]:
    needed = connections()
    limit = settings.REDIS_MAX_CONNECTIONS  # 0: not known
    if limit and needed > limit:
        yield Warning(
            f"This service opens up to {needed} connections to Redis, which allows {limit}.",
            hint="Lower WEB_CONCURRENCY, or set REDIS_MAX_CONNECTIONS to a larger plan's.",
            id="operations.W004",
        )


def connections() -> int:
    """Return how many connections to Redis this service needs at most, RESERVE among them.

    The numbers were counted on a server.
    """
    web = SHARED_CONNECTIONS
    web += 1  # of /readyz
    worker = SHARED_CONNECTIONS
    worker += 1  # that waits for tasks
    worker += settings.CELERY_WORKER_CONCURRENCY  # of tasks that send tasks
    if settings.CELERY_WORKER_ENABLE_REMOTE_CONTROL:
        worker += 1  # that waits for commands
    beat = 1
    if hasattr(settings, "CELERY_RESULT_BACKEND"):
        web += settings.WEB_THREADS
        worker += settings.CELERY_WORKER_CONCURRENCY + 1
        beat += 1
    return settings.WEB_CONCURRENCY * web + worker + beat + RESERVE


def check_database_is_a_server() -> Iterator[CheckMessage]:
    if not os.environ.get("DATABASE_URL", "").strip():
        yield Warning(
            "DATABASE_URL is not set: users are in a SQLite file, which many deploys delete.",
            hint=f"Set DATABASE_URL, as in {settings.POSTGRES}.",
            id="operations.W005",
        )


def check_tasks_end_within_their_claim() -> Iterator[CheckMessage]:
    """Warn of the first task that is still running when its message is given to another worker.

    One is enough: what is wrong in settings.py is wrong for all tasks.
    """
    visibility = visibility_timeout(current_app)
    current_app.loader.import_default_modules()
    for name, task in sorted(current_app.tasks.items()):
        if not ends_within(visibility, task):
            yield Warning(
                f"{name}: soft_time_limit {task.soft_time_limit}, time_limit {task.time_limit}, "
                f"default_retry_delay {task.default_retry_delay} and "
                f"visibility_timeout {visibility} s do not fit.",
                hint=(
                    "Keep the first below the second, and all below visibility_timeout, after "
                    "which another worker takes the task as well."
                ),
                id="operations.W006",
            )
            return


def visibility_timeout(app: Celery) -> int:
    """Return after how many seconds an unacknowledged task is given to another worker."""
    options = app.conf.broker_transport_options
    return options.get("visibility_timeout", DEFAULT_VISIBILITY_TIMEOUT)


def ends_within(visibility: int, task: Task) -> bool:
    """Tell whether the limits of a task end it, or its retry begins, within so many seconds."""
    soft_limit = task.soft_time_limit or 0
    hard_limit = task.time_limit or visibility  # without a limit it may run as long as that
    retry_delay = task.default_retry_delay or 0
    return soft_limit < hard_limit < visibility and retry_delay < visibility


def check_secret_key_is_random() -> Iterator[CheckMessage]:
    """Judge it in place of Django's W009, which refuses the keys that Render generates (D-45)."""
    if is_weak_key(settings.SECRET_KEY):
        yield Warning(
            "SECRET_KEY is short, or not random: who guesses it can log in as anybody.",
            hint="Set what `python -c 'import secrets; print(secrets.token_urlsafe(50))'` prints.",
            id="operations.W011",
        )


def is_weak_key(key: str) -> bool:
    """Tell whether a key is too short, repeats a few characters, or was made to be replaced."""
    words = key.lower().replace("_", "-").replace(" ", "-")
    return (
        len(key) < SHORTEST_KEY
        or len(set(key)) < FEWEST_DIFFERENT
        # Whatever repeats itself is found in its own double, before the end of the first half.
        or key in (key + key)[1:-1]
        or any(word in words for word in PLACEHOLDERS)
    )


def check_database_is_verified() -> Iterator[CheckMessage]:
    """Warn of a public database server that anybody on the path can stand in for."""
    database = settings.DATABASES["default"]
    if database["ENGINE"] != "django.db.backends.postgresql":
        return
    options = database.get("OPTIONS", {})
    sslmode = options.get("sslmode") or os.environ.get("PGSSLMODE", "")
    places = [database.get("HOST"), options.get("host"), options.get("hostaddr")]
    hosts = [host for place in places if place for host in place.split(",")]
    unknown = [host for host in hosts if not host.startswith("/") and not is_private(host)]
    if unknown and sslmode not in ("verify-full", "verify-ca"):
        yield Warning(
            f"DATABASE_URL leads to {unknown[0]}, which is not known to be private, and does not"
            " verify its certificate: who is on the path can read the password and all data.",
            hint=(
                "Add ?sslmode=verify-full&sslrootcert=system, or the path of your provider's CA in"
                " place of `system`. Where the platform sets the URL, set PGSSLMODE and"
                " PGSSLROOTCERT."
            ),
            id="operations.W012",
        )


def check_static_files_are_collected() -> Iterator[CheckMessage]:
    """Warn if a page with a style sheet, as those of the admin, would answer 500."""
    manifest = getattr(staticfiles_storage, "manifest_name", None)
    if manifest and not staticfiles_storage.exists(manifest):
        yield Warning(
            "The static files are not collected: the admin answers 500.",
            hint="Run `python manage.py collectstatic --noinput` when the service is built.",
            id="operations.W013",
        )
