"""Messages that no task can be made of: kept as rows, and gone from the queue.

Celery logs and drops some of them, and ends at others, which then come back to the next worker.
"""

import logging

from django.db import Error

from .models import PutAsideMessage

logger = logging.getLogger(__name__)

MOST_CHARACTERS = 4096  # of the headers and of the body


def keep(worker: str, queue: str, headers: object, body: object, reason: str):
    """Make the row, or say in the log what is lost: the queue must go on either way."""
    row = {
        "worker": shown(worker)[:255],
        "queue": shown(queue)[:255],
        "headers": shown(headers),
        "body": shown(body),
        "reason": shown(reason)[:500],
    }
    logger.error("a message in %s was put aside: %s", row["queue"], row["reason"])
    try:
        PutAsideMessage.objects.create(**row)
    except Error as error:
        logger.error("it could not be kept (%s): %s %s", error, row["headers"], row["body"])


def shown(thing: object) -> str:
    """The first 4 KiB, as text that every database takes."""
    text = thing.decode(errors="replace") if isinstance(thing, bytes) else str(thing)
    # PostgreSQL has no place for the character of number 0, and UTF-8 none for half of a pair.
    text = text[:MOST_CHARACTERS].replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text.encode(errors="replace").decode()
