"""How the web process runs. gunicorn reads this file by itself: `gunicorn config.wsgi`.

It is found in the folder in which gunicorn starts. Elsewhere, give its path by `--config`.

The port is PORT, and the number of processes is WEB_CONCURRENCY. gunicorn takes the latter from the
environment before it reads this file, and ends with a traceback if it is empty or not a number.

All other settings: https://gunicorn.org/reference/settings/
"""

import os

# gunicorn would end in words of its own at a PORT that is empty or not a number. Here an empty one
# counts as not set, and settings.py refuses any other, before the port is opened.
port = os.environ.get("PORT", "").strip()
bind = f"0.0.0.0:{port}" if port.isdecimal() else "127.0.0.1:8000"

# Each thread of a process answers one request at a time. settings.py reads this number from here:
# the service counts its connections to Redis with it.
threads = 4

# Load the service once, before its processes are forked. They share its memory, and a setting that
# is refused ends gunicorn. Without this, gunicorn would start failing processes again for ever.
preload_app = True

# Seconds that open requests get when gunicorn is told to stop. supervisord.conf grants two more.
graceful_timeout = 5

# gunicorn's control socket lies in the home folder, where all services of a user would share it.
control_socket_disable = True

# Write a line for each request to standard output, where the rest of the log is.
accesslog = "-"
