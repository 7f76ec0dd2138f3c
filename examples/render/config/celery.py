"""The Celery app: `celery -A config worker`."""

import gc
import logging
import logging.config
import os
from typing import Any

from celery import Celery
from celery.app.backends import BACKEND_ALIASES
from celery.signals import beat_init, setup_logging, worker_init, worker_ready
from django.conf import settings
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES

from redis_connection.internals import forget_transport

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

logger = logging.getLogger(__name__)

# kombu and Celery look up the class for a URL's scheme in these tables. So whatever opens a
# redis:// or rediss:// URL in this process gets the connections of redis_connection (D-54).
for scheme in ("redis", "rediss"):
    TRANSPORT_ALIASES[scheme] = "redis_connection.transport:Transport"
    # Something may have asked kombu for it before this file was read.
    forget_transport(scheme)
    BACKEND_ALIASES[scheme] = "config.results:Backend"


def is_not_about_insecure_tls(record: logging.LogRecord) -> bool:
    """Whether the record is another one than kombu's warning that TLS is insecure.

    kombu warns of every rediss:// URL without options. It does not know that ours
    verifies.
    """
    return "defaulting to insecure SSL behaviour" not in record.msg


logging.getLogger("kombu.connection").addFilter(is_not_about_insecure_tls)

app = Celery("my_service")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# By default it finds only the tasks in files named tasks.py. A worker that lacks a task puts its
# messages aside.
app.autodiscover_tasks(related_name="email_utils")


@setup_logging.connect
def use_django_logging(**kwargs: Any) -> None:
    """Log like the web process: to stdout, in one format."""
    logging.config.dictConfig(settings.LOGGING)
    settings.REDIS.log()


@worker_init.connect
def share_memory(**kwargs: Any) -> None:
    """Keep what is in memory now shared with the processes that are forked from here on.

    Otherwise a collection of garbage would write to all of it, and so copy it in each process
    (D-51).
    """
    gc.collect()
    gc.freeze()


@worker_ready.connect
def watch_and_sweep(sender: Any, **kwargs: Any) -> None:
    """Watch over this worker, and send at once the e-mails that an outage left behind."""
    from operations.tasks import sweep
    from operations.watchdog import Watchdog

    Watchdog(sender).start()
    try:
        sweep.delay()
    except OperationalError as error:
        logger.warning("the first sweep is left to beat: %s", error)


@beat_init.connect
def start_with_housekeeping(sender: Any, **kwargs: Any) -> None:
    """Make housekeeping due now: /readyz waits for it, and its interval is 120 s (D-61)."""
    entry = sender.scheduler.schedule.get("housekeeping")
    if entry:
        entry.last_run_at -= entry.schedule.run_every
