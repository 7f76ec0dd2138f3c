"""Promise mails in bulk: a thousand registrations over HTTP would mostly hash passwords."""

import time

from harness.processes import Failed
from harness.service import OUTSIDE_NAME

from .services import OURS, PLAIN

# People as the registration makes them, and the promise that it makes them.
OURS_PROMISES = f"""
from authentication.email_utils import request_verification

def promise(user):
    request_verification(user, "{OUTSIDE_NAME}")
"""
PLAIN_PROMISES = """
from accounts.tasks import send_verification_email

def promise(user):
    transaction.on_commit(partial(send_verification_email.delay, user.pk))
"""
PEOPLE = """
from functools import partial
from django.contrib.auth import get_user_model
from django.db import transaction
{promises}
with transaction.atomic():
    for number in range({first}, {first} + {count}):
        name = f"user{{number}}"
        email = f"{prefix}{{name}}@example.com"
        user = get_user_model()(username=name, email=email, password="!", is_active=False)
        user.save()
        promise(user)
"""
PROMISES = {OURS: OURS_PROMISES, PLAIN: PLAIN_PROMISES}


def promise(run, count, refused=False):
    """Promise `count` mails; those to refused addresses do not count in the figures."""
    if not count:
        return
    stack = run.stack
    first = stack.last_number + 1
    stack.last_number += count
    code = PEOPLE.format(
        promises=PROMISES[stack.kind.name],
        first=first,
        count=count,
        prefix="refused-" if refused else "",
    )
    done = stack.project.manage("shell", "-c", code, seconds=300)
    if done.returncode:
        raise Failed(f"{count} promises could not be made:\n{done.stdout}{done.stderr[-3000:]}")
    if not refused:
        run.mails.accepted |= dict.fromkeys(range(first, first + count), time.time())
