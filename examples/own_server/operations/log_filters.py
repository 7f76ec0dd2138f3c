"""What the log leaves out."""

import logging


class OneLineForClients(logging.Filter):
    """Cuts the traceback from what Django says of a suspicious request, as of a wrong host.

    The line says what the client has sent. Where in Django that was noticed is of no use.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security."):
            record.exc_info = record.exc_text = None
        return True
