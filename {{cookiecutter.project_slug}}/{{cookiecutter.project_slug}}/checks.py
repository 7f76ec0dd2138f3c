"""System checks: what the settings say, judged without a network. `manage.py check --deploy`."""

import os

from django.conf import settings
from django.core.checks import Tags, Warning, register

from operations import causes


def connections() -> int:
    """Connections to Redis that web, worker, beat and /readyz hold at most, counted on a server."""
    results = hasattr(settings, "CELERY_RESULT_BACKEND")
    web = settings.WEB_CONCURRENCY * (settings.WEB_THREADS * (4 if results else 2) + 1)
    worker = 4 if settings.CELERY_WORKER_ENABLE_REMOTE_CONTROL else 2
    if results:
        worker += settings.CELERY_WORKER_CONCURRENCY + 1
    return web + worker + 2  # beat


def warning(number: int, message: str, hint: str) -> Warning:
    return Warning(message, hint=hint, id="{{ cookiecutter.project_slug }}" + f".W{number:03}")


@register(Tags.security, deploy=True)
def tls(app_configs, **kwargs):
    if settings.REDIS.encrypted and not settings.REDIS.verified:
        yield warning(
            1,
            "REDIS_CERT_REQS=none: whoever is on the path to Redis can read the password.",
            causes.UNVERIFIED,
        )
    if os.environ.get("REDIS_ALLOW_PLAINTEXT", "").strip():
        yield warning(
            2,
            "REDIS_ALLOW_PLAINTEXT is set: the password may cross a public network unencrypted.",
            "Use a rediss:// URL and unset REDIS_ALLOW_PLAINTEXT.",
        )


@register(deploy=True)
def capacity_and_email(app_configs, **kwargs):
    if settings.EMAIL_BACKEND == "django.core.mail.backends.console.EmailBackend":
        yield warning(
            3,
            "EMAIL_URL is not set: e-mails are written to the log instead of being sent.",
            f"Set EMAIL_URL, as in {settings.SMTP}, and DEFAULT_FROM_EMAIL.",
        )
    limit = settings.REDIS_MAX_CONNECTIONS
    if limit and connections() > limit:
        yield warning(
            4,
            f"This service opens up to {connections()} connections to Redis, which allows {limit}.",
            "Lower WEB_CONCURRENCY, or take a larger plan and set REDIS_MAX_CONNECTIONS.",
        )
    if not os.environ.get("DATABASE_URL", "").strip():
        yield warning(
            5,
            "DATABASE_URL is not set: users are kept in a SQLite file, which other containers do"
            " not see and many hosts delete at each deploy.",
            f"Set DATABASE_URL, as in {settings.POSTGRES}.",
        )
