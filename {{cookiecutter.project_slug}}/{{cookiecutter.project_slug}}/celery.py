"""The Celery app: `celery -A {{ cookiecutter.project_slug }} worker`."""

import logging.config
import os

from celery import Celery
from celery.signals import setup_logging, worker_ready
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "{{ cookiecutter.project_slug }}.settings")

app = Celery("{{ cookiecutter.project_slug }}")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# autodiscover_tasks() alone finds only tasks.py; a worker discards messages for tasks it lacks.
app.autodiscover_tasks(related_name="email_utils")


@setup_logging.connect
def use_django_logging(**kwargs):
    """Log like the web process: to stdout, in one format."""
    logging.config.dictConfig(settings.LOGGING)
    settings.REDIS.announce()


@worker_ready.connect
def start_with_a_heartbeat(**kwargs):
    """Run housekeeping at once, so that a fresh deploy is ready before beat's first tick."""
    from operations.tasks import housekeeping

    housekeeping.delay()
