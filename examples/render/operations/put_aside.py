"""Messages that no task can be made of: kept as rows, so that the queue goes on.

Left to itself, Celery logs and drops some of them. Others end the worker, return to the queue, and
end the next worker.
"""

import logging

from django.db import Error

from .models import PutAsideMessage

logger = logging.getLogger(__name__)

MAX_CHARACTERS = 4096  # of the headers and of the body, each


def keep(worker: str, queue: str, headers: object, body: object, reason: str) -> None:
    """Keep the message as a row. If the database fails, write it to the log instead.

    It raises nothing of the database's: the queue must go on either way.
    """
    row = {
        "worker": to_text(worker)[:255],
        "queue": to_text(queue)[:255],
        "headers": to_text(headers),
        "body": to_text(body),
        "reason": to_text(reason)[:500],
    }
    logger.error("a message in %s was put aside: %s", row["queue"], row["reason"])
    try:
        PutAsideMessage.objects.create(**row)
    except Error as error:
        logger.error(
            "the message could not be kept (%s): %s %s", error, row["headers"], row["body"]
        )


def to_text(value: object) -> str:
    """The first MAX_CHARACTERS of anything, as text that every database takes."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    # PostgreSQL cannot store the character NUL.
    text = text[:MAX_CHARACTERS].replace("\0", "\N{REPLACEMENT CHARACTER}")
    # JSON can hold half of a surrogate pair, which UTF-8 cannot.
    return text.encode(errors="replace").decode()
