"""The Celery app: `celery -A config worker`."""

import gc
import logging.config
import os

from celery import Celery
from celery.app.backends import BACKEND_ALIASES
from celery.signals import beat_init, setup_logging, worker_init, worker_ready
from django.conf import settings
from kombu import transport
from kombu.exceptions import OperationalError

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

logger = logging.getLogger(__name__)

# These are for the whole process: whatever opens a redis:// or rediss:// URL by kombu or Celery
# gets these classes.
for _scheme in ("redis", "rediss"):
    transport.TRANSPORT_ALIASES[_scheme] = "redis_connection.transport:Transport"
    # kombu remembers what it found, also where something asked for it before this file was read.
    transport._transport_cache.pop(_scheme, None)
    BACKEND_ALIASES[_scheme] = "config.results:Backend"

# Of a rediss:// URL without options kombu says this before it asks the transport. Ours verifies.
_warning = "defaulting to insecure SSL behaviour"
logging.getLogger("kombu.connection").addFilter(lambda record: _warning not in record.msg)

app = Celery("{{ cookiecutter.project_slug }}")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
# autodiscover_tasks() alone finds only tasks.py; a worker puts aside messages for tasks it lacks.
app.autodiscover_tasks(related_name="email_utils")


@setup_logging.connect
def use_django_logging(**kwargs):
    """Log like the web process: to stdout, in one format."""
    logging.config.dictConfig(settings.LOGGING)
    settings.REDIS.log()


@worker_init.connect
def share_memory(sender, **kwargs):
    """Before the processes are forked: what is here now stays shared with them.

    A collection of garbage would else write to all of it, and so copy it in each process.
    """
    gc.collect()
    gc.freeze()


@worker_ready.connect
def watch_and_sweep(sender, **kwargs):
    """Watch over this worker, and send at once the e-mails that an outage left behind."""
    from operations.tasks import sweep
    from operations.watchdog import Watchdog

    Watchdog(sender).start()
    try:
        sweep.delay()
    except OperationalError as error:
        logger.warning("the first sweep is left to beat: %s", error)


@beat_init.connect
def start_with_housekeeping(sender, **kwargs):
    """Make housekeeping due now, so that a fresh deploy is ready before its first interval ends."""
    entry = sender.scheduler.schedule.get("housekeeping")
    if entry:
        entry.last_run_at -= entry.schedule.run_every
