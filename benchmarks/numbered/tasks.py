"""Tasks that write down what they do: one line with number, word, time and process id each."""

import os
import signal
import time

from celery import shared_task


def note(number, word):
    """Append "NUMBER WORD TIME PID" to the file NUMBERED_FILE; TIME is in seconds."""
    line = f"{number} {word} {time.time():.3f} {os.getpid()}\n"
    # One write of a short line to a file that is open for appending is never torn.
    with open(os.environ["NUMBERED_FILE"], "ab", buffering=0) as file:
        file.write(line.encode())


@shared_task
def numbered(number, seconds=0):
    """Work for some seconds."""
    note(number, "started")
    time.sleep(seconds)
    note(number, "done")


@shared_task
def forward(number):
    """Send another task, from the process that runs this one."""
    numbered.delay(number)


@shared_task
def poison(number):
    """Kill the process that runs it."""
    note(number, "started")
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task
def hang(number):
    """Never end."""
    note(number, "started")
    while True:
        time.sleep(60)
