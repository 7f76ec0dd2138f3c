#!/usr/bin/env python
"""Django's command-line utility for administrative tasks."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        execute_from_command_line(sys.argv)
    except SystemExit as end:
        # Settings or options were refused: the doctor's 1 means that it has looked at Redis.
        if "doctor" in sys.argv and (isinstance(end.code, str) or sys.argv[1][:1] == "-"):
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
            sys.exit(2)
        raise
    except KeyboardInterrupt:
        sys.exit(130)  # as shells do for Ctrl-C
