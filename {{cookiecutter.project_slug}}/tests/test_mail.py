"""The verification e-mail on its way: claims, sweeps, mail servers that fail, the admin."""

import os
import smtplib
import socketserver
import subprocess
import sys
import threading
import uuid
from contextlib import suppress
from datetime import timedelta
from unittest import mock

from billiard.exceptions import SoftTimeLimitExceeded
from celery.exceptions import MaxRetriesExceededError, Reject, Retry
from django.conf import settings
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend as Memory
from django.db import IntegrityError, OperationalError, transaction
from django.db.models import F
from django.db.models.functions import Now
from django.test import TestCase, override_settings
from django.urls import reverse
from django.utils import timezone
from kombu.exceptions import OperationalError as BrokerDown

from authentication import claims, delivery, email_utils, outcomes, summary, sweeper
from authentication.models import Lease, User, VerificationEmail
from operations import tasks
from operations.models import Heartbeat, RoundTrip

State = VerificationEmail.State
HANG_UP = None


def promise(name: str, **values) -> VerificationEmail:
    """A row that is due now, unless `values` say otherwise."""
    user = User.objects.create(username=name, email=f"{name}@example.com", is_active=False)
    return VerificationEmail.objects.create(user=user, domain="testserver", **values)


def send(row: VerificationEmail):
    email_utils.send_verification_email(row.user_id, "testserver")


def claim(row: VerificationEmail, worker: str) -> VerificationEmail | None:
    return claims.claim(row.pk, VerificationEmail.objects.due(), worker)


def make_due(**values):
    VerificationEmail.objects.update(due_at=Now() - timedelta(seconds=1), **values)


def sweep_all():
    ticket = sweeper.sweep("worker@here")
    while ticket:
        ticket = sweeper.sweep("worker@here", ticket)


def recipients() -> list[str]:
    return [message.to[0].partition("@")[0] for message in mail.outbox]


class MailCase(TestCase):
    def assertRow(self, row: VerificationEmail, **expected):
        row.refresh_from_db()
        self.assertEqual({name: getattr(row, name) for name in expected}, expected)

    def assertDueIn(self, row: VerificationEmail, seconds: float):
        rest = VerificationEmail.objects.annotate(rest=F("due_at") - Now()).get(pk=row.pk).rest
        self.assertAlmostEqual(rest.total_seconds(), seconds, delta=3)


class ClockTests(MailCase):
    def test_only_the_clock_of_the_database_counts(self):
        user = User.objects.create(username="ada", email="ada@example.com", is_active=False)
        for minutes in (-10, 10):
            VerificationEmail.objects.all().delete()
            fast = timezone.now() + timedelta(minutes=minutes)
            with mock.patch("django.utils.timezone.now", return_value=fast):
                self.assertTrue(email_utils.request_verification(user, "testserver"))
                self.assertFalse(email_utils.request_verification(user, "testserver"))
                tasks.leave_heartbeat("x", "here")
            row = VerificationEmail.objects.get()
            self.assertDueIn(row, 60)
            for time in row.requested_at, Heartbeat.objects.get().at:
                self.assertLess(abs(timezone.now() - time), timedelta(seconds=3))

    def test_times_are_compared_to_the_millisecond(self):
        row = promise("ada")
        moment = timezone.now().replace(microsecond=0)
        rows = VerificationEmail.objects.due()
        for due_at, is_due in (
            (Now(), True),
            (Now() - timedelta(milliseconds=2), True),
            (Now() + timedelta(milliseconds=900), False),
            (moment, True),
            (moment - timedelta(microseconds=1), True),
            (moment + timedelta(seconds=9), False),
        ):
            with self.subTest(due_at=due_at):
                VerificationEmail.objects.filter(pk=row.pk).update(due_at=due_at)
                self.assertEqual(rows.exists(), is_due)


class RowTests(MailCase):
    def test_a_user_has_one_pending_row(self):
        row = promise("ada")
        with self.assertRaises(IntegrityError), transaction.atomic():
            VerificationEmail.objects.create(user=row.user, domain="testserver")

    def test_a_row_is_closed_if_and_only_if_it_does_not_wait(self):
        promise("ada")
        for values in {"closed_at": Now()}, {"state": State.SENT}:
            with self.assertRaises(IntegrityError), transaction.atomic():
                VerificationEmail.objects.update(**values)

    def test_the_search_for_what_is_due_uses_the_index(self):
        rows = VerificationEmail.objects.due().order_by("due_at", "pk")
        if rows.db == "default" and "sqlite" in settings.DATABASES["default"]["ENGINE"]:
            self.assertIn("pending_by_due_at", rows.explain())

    def test_a_new_request_does_not_wait_for_the_back_off_of_the_last(self):
        row = promise("ada", attempts=5, unanswered=1, requested_at=Now() - timedelta(hours=1))
        VerificationEmail.objects.update(due_at=Now() + timedelta(minutes=15))
        self.assertTrue(email_utils.request_verification(row.user, "other.example"))
        self.assertRow(row, attempts=0, unanswered=0, domain="other.example")
        send(row)
        self.assertEqual(recipients(), ["ada"])

    def test_a_new_request_leaves_a_claim_alone(self):
        row = promise("ada", claimed_by="worker@there", attempts=1)
        past, ahead = Now() - timedelta(hours=1), Now() + timedelta(seconds=80)
        VerificationEmail.objects.update(requested_at=past, due_at=ahead)
        self.assertTrue(email_utils.request_verification(row.user, "testserver"))
        self.assertRow(row, claimed_by="worker@there", attempts=1)
        self.assertDueIn(row, 80)

    def test_a_new_request_renews_a_row_whose_claim_has_ended(self):
        row = promise("ada", claimed_by="worker@there", attempts=1)
        past = Now() - timedelta(hours=1)
        VerificationEmail.objects.update(requested_at=past, due_at=past)
        self.assertTrue(email_utils.request_verification(row.user, "testserver"))
        self.assertRow(row, claimed_by="", attempts=0)
        self.assertDueIn(row, 60)

    def test_a_row_is_claimed_until_its_claim_ends(self):
        promise("ada", claimed_by="worker@there")
        emails = VerificationEmail.objects
        for seconds, is_claimed in (10, True), (-1, False):
            emails.update(due_at=Now() + timedelta(seconds=seconds))
            self.assertEqual(emails.claimed().exists(), is_claimed)
            self.assertEqual(emails.unclaimed().exists(), not is_claimed)


class ClaimTests(MailCase):
    """However many tasks and sweeps run, one of them sends the e-mail."""

    def interrupt(self, action):
        """Run the action in the middle of sending each e-mail."""
        original = Memory.send_messages

        def send_messages(backend, messages):
            action()
            return original(backend, messages)

        return mock.patch.object(Memory, "send_messages", send_messages)

    def test_a_task_that_finds_another_at_the_row_comes_back_when_the_claim_ends(self):
        row = promise("ada")

        def second():
            email_utils.send_verification_email.retry.side_effect = Retry("later")
            with self.assertRaises(Retry):
                send(row)

        retried = mock.patch.object(email_utils.send_verification_email, "retry")
        with retried as retry, self.interrupt(second):
            send(row)
        retry.assert_called_once_with(countdown=mock.ANY, max_retries=3)
        self.assertAlmostEqual(retry.call_args.kwargs["countdown"], 91, delta=2)
        self.assertEqual(recipients(), ["ada"])

    def test_a_task_that_cannot_come_back_leaves_it_to_the_sweep(self):
        row = promise("ada", claimed_by="worker@there", due_at=Now() + timedelta(seconds=60))
        for error in Reject("Redis is down"), MaxRetriesExceededError("enough"):
            with (
                mock.patch.object(email_utils.send_verification_email, "retry", side_effect=error),
                self.assertLogs(email_utils.logger, "WARNING") as logs,
            ):
                VerificationEmail.objects.update(attempts=1)
                send(row)
            self.assertEqual(len(logs.output), 1)

    def test_while_a_task_sends_no_sweep_does(self):
        row = promise("ada")
        with self.interrupt(sweep_all):
            send(row)
        self.assertEqual(recipients(), ["ada"])

    def test_while_a_sweep_sends_no_other_does(self):
        promise("ada")
        with self.interrupt(sweep_all):
            sweep_all()
        self.assertEqual(recipients(), ["ada"])

    def test_of_two_workers_that_found_the_same_row_one_claims_it(self):
        row = promise("ada")
        self.assertTrue(claim(row, "worker@there"))
        emails = VerificationEmail.objects
        for candidates in emails.due(), emails.free_for_task():
            self.assertIsNone(claims.claim(row.pk, candidates, "worker@here"))
        self.assertRow(row, claimed_by="worker@there", attempts=1)

    def test_the_row_of_a_worker_that_died_is_sent_when_its_claim_ends(self):
        row = promise("ada")
        claim(row, "worker@there")
        self.assertDueIn(row, 90)
        sweep_all()
        self.assertEqual(recipients(), [])
        make_due()
        sweep_all()
        self.assertEqual(recipients(), ["ada"])

    def test_a_worker_whose_claim_ended_leaves_the_claim_of_another_alone(self):
        row = promise("ada")
        lost = claim(row, "worker@here")
        make_due()
        claim(row, "worker@there")
        outcomes.postpone(lost, OSError("late"))
        self.assertRow(row, claimed_by="worker@there", last_error="")

    def test_a_worker_that_ends_gives_back_its_own_claims_and_no_others(self):
        rows = {name: promise(name) for name in ("ada", "bob", "eve")}
        for name, worker in ("ada", "a@here"), ("bob", "b@here"):
            claim(rows[name], worker)
        VerificationEmail.objects.filter(pk=rows["eve"].pk).update(
            claimed_by="a@here", closed_at=Now(), state=State.SENT
        )
        ticket = sweeper.take_lease("a@here", "")
        self.assertEqual(claims.give_back_claims("a@here"), 1)
        self.assertRow(rows["ada"], claimed_by="")
        self.assertDueIn(rows["ada"], 0)
        self.assertDueIn(rows["bob"], 90)
        send(rows["ada"])
        self.assertEqual(recipients(), ["ada"])
        self.assertTrue(sweeper.take_lease("b@here", ""), ticket)

    def test_giving_back_does_not_raise_without_a_database(self):
        away = mock.patch.object(claims.transaction, "atomic", side_effect=OperationalError("away"))
        with away, self.assertLogs(claims.logger, "WARNING") as logs:
            self.assertEqual(claims.give_back_claims("a@here"), 0)
        self.assertEqual(len(logs.output), 1)

    def test_what_was_sent_is_saved_although_the_database_was_away(self):
        rows = mock.Mock()
        rows.update.side_effect = [OperationalError("away"), SoftTimeLimitExceeded(), 1]
        with mock.patch.object(outcomes.time, "sleep") as sleep:
            self.assertEqual(outcomes.save(rows, x=1), 1)
        self.assertEqual([call.args[0] for call in sleep.call_args_list], [1, 3])


class SweepTests(MailCase):
    def test_a_hundred_rows_with_nothing_to_send_keep_none_waiting(self):
        for number in range(100):
            row = promise(f"verified{number}", due_at=Now() - timedelta(hours=1))
            User.objects.filter(pk=row.user_id).update(verified_at=timezone.now(), is_active=True)
        due = promise("ada")
        sweeper.sweep("worker@here")
        self.assertEqual(recipients(), ["ada"])
        states = VerificationEmail.objects.exclude(pk=due.pk).values_list("state", flat=True)
        self.assertEqual(set(states), {State.NOT_NEEDED})

    def test_a_user_who_verified_after_the_search_gets_no_e_mail(self):
        for change in {"is_active": True}, {"email": ""}:
            row = promise(f"ada{len(change)}{list(change)[0]}")
            with mock.patch.object(outcomes, "close_pointless"):
                User.objects.filter(pk=row.user_id).update(**change)
                sweep_all()
            self.assertRow(row, state=State.NOT_NEEDED, claimed_by="")
        self.assertEqual(recipients(), [])

    def test_it_sends_in_the_order_in_which_rows_became_due(self):
        for name, minutes in ("ada", 1), ("bob", 3), ("eve", 2), ("later", -1):
            promise(name, due_at=Now() - timedelta(minutes=minutes))
        sweep_all()
        self.assertEqual(recipients(), ["bob", "eve", "ada"])

    def test_an_e_mail_is_given_up_when_its_link_would_be_too_old(self):
        old = promise("ada", requested_at=Now() - timedelta(hours=25))
        young = promise("bob", requested_at=Now() - timedelta(hours=23))
        with self.assertLogs(outcomes.logger, "WARNING"):
            send(old)
        self.assertRow(old, state=State.GIVEN_UP)
        sweep_all()
        self.assertRow(young, state=State.SENT)

    def test_a_row_that_waits_for_its_back_off_is_left_alone(self):
        row = promise("ada")
        with mock.patch.object(Memory, "send_messages", side_effect=OSError("no")):
            send(row)
        self.assertRow(row, claimed_by="", attempts=1, state=State.WAITING)
        with mock.patch.object(email_utils.send_verification_email, "retry") as retry:
            send(row)
            sweep_all()
        retry.assert_not_called()
        self.assertRow(row, attempts=1)

    def test_the_next_attempt_is_after_1_2_4_8_and_then_every_15_minutes(self):
        delays = [outcomes.retry_delay(attempts) for attempts in range(1, 9)]
        minutes = [delay // timedelta(minutes=1) for delay in delays]
        self.assertEqual(minutes, [1, 2, 4, 8, 15, 15, 15, 15])

    def test_the_back_off_doubles_up_to_15_minutes(self):
        row = promise("ada")
        for minutes in 1, 2, 4, 8, 15, 15, 15:
            make_due()
            with mock.patch.object(Memory, "send_messages", side_effect=OSError("no")):
                sweep_all()
            self.assertDueIn(row, 60 * minutes)

    @mock.patch.object(sweeper, "SLICE", 0)
    def test_it_sends_itself_again_behind_other_tasks_while_more_is_due(self):
        for name in ("ada", "bob", "eve"):
            promise(name)
        with mock.patch.object(tasks.sweep, "delay") as delay:
            tasks.sweep()
            self.assertEqual(recipients(), ["ada"])
            [ticket] = delay.call_args.args
            tasks.sweep()
            tasks.sweep("not the ticket")
            self.assertEqual(recipients(), ["ada"], "another chain is running")
            tasks.sweep(ticket)
            self.assertEqual(recipients(), ["ada", "bob"])
            tasks.sweep(ticket)
            self.assertEqual(recipients(), ["ada", "bob"], "a message that came twice")
            tasks.sweep(*delay.call_args.args)
            self.assertEqual(delay.call_count, 2, "nothing is due any more")
        self.assertEqual(recipients(), ["ada", "bob", "eve"])
        self.assertTrue(sweeper.take_lease("worker@here", ""))
        self.assertEqual(tasks.sweep.priority, settings.CELERY_TASK_DEFAULT_PRIORITY)

    @mock.patch.object(sweeper, "SLICE", 0)
    def test_a_chain_that_was_lost_is_replaced_when_its_lease_ends(self):
        promise("ada")
        promise("bob")
        with mock.patch.object(tasks.sweep, "delay"):
            tasks.sweep()
            rest = Lease.objects.annotate(rest=F("until") - Now()).get().rest
            self.assertAlmostEqual(rest.total_seconds(), 90, delta=3)
            self.assertFalse(sweeper.sweep_is_missing())
            Lease.objects.update(until=Now() - timedelta(seconds=1))
            self.assertTrue(sweeper.sweep_is_missing())
            tasks.sweep()
        self.assertEqual(recipients(), ["ada", "bob"])

    @mock.patch.object(sweeper, "SLICE", 0)
    def test_a_chain_that_cannot_be_queued_frees_its_lease(self):
        promise("ada")
        promise("bob")
        with (
            mock.patch.object(tasks.sweep, "delay", side_effect=BrokerDown("down")),
            self.assertLogs(tasks.logger, "WARNING"),
        ):
            tasks.sweep()
        self.assertTrue(sweeper.sweep_is_missing())

    def test_a_soft_time_limit_gives_the_claim_up_and_the_sweep_goes_on(self):
        row = promise("ada")
        promise("bob")
        sends = [SoftTimeLimitExceeded(), None]
        with (
            mock.patch.object(Memory, "send_messages", side_effect=sends) as send_messages,
            self.assertLogs(outcomes.logger, "WARNING"),
        ):
            ticket = sweeper.sweep("worker@here")
            self.assertTrue(ticket)
            self.assertRow(row, claimed_by="", attempts=1, state=State.WAITING)
            self.assertDueIn(row, 60)
            self.assertFalse(sweeper.sweep("worker@here", ticket))
        self.assertEqual(send_messages.call_count, 2)

    def test_a_task_survives_its_soft_time_limit(self):
        row = promise("ada")
        with mock.patch.object(Memory, "send_messages", side_effect=SoftTimeLimitExceeded()):
            send(row)
        self.assertRow(row, claimed_by="", attempts=1)

    def test_an_unknown_error_of_a_backend_keeps_no_other_e_mail_waiting(self):
        row = promise("ada")
        promise("bob")
        with mock.patch.object(Memory, "send_messages", side_effect=[ValueError("odd"), 1]):
            sweep_all()
        self.assertRow(row, last_error="ValueError: odd", claimed_by="")
        self.assertEqual(VerificationEmail.objects.filter(state=State.SENT).count(), 1)


class Conversation(socketserver.StreamRequestHandler):
    server: "MailServer"

    def handle(self):
        self.server.connections += 1
        # The client may have gone away.
        with suppress(ConnectionError):
            self.converse()

    def converse(self):
        if not self.say("CONNECT", "220 here"):
            return
        recipient = ""
        for line in self.rfile:
            text = line.decode().strip()
            verb = text.upper()[:4]
            if verb == "EHLO":
                reply = "250-here\r\n250 AUTH PLAIN"
            elif verb == "DATA":
                if not self.say("DATA", "354 go on"):
                    return
                if self.server.answers.get("DATA", "3")[0] != "3":
                    continue
                while self.rfile.readline().strip() != b".":
                    pass
                self.server.mails.append(recipient)
                verb, reply = "BODY", "250 taken"
            else:
                reply = {"QUIT": "221 bye", "AUTH": "235 in"}.get(verb, "250 fine")
            if verb == "RCPT":
                recipient = text.partition("<")[2].partition("@")[0]
            if not self.say(verb, reply) or verb == "QUIT":
                return

    def say(self, step: str, usual: str) -> bool:
        """Give this step's answer; return whether the conversation goes on."""
        answer = self.server.answers.get(step, usual)
        if callable(answer):
            answer = answer()
        if answer is HANG_UP:
            return False
        self.wfile.write(f"{answer}\r\n".encode())
        return not answer.startswith("421")


class MailServer(socketserver.ThreadingTCPServer):
    """A mail server on this machine; `answers` replaces what it says at a step."""

    daemon_threads = allow_reuse_address = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Conversation)
        self.answers, self.mails, self.connections = {}, [], 0
        threading.Thread(target=self.serve_forever, args=[0.01], daemon=True).start()


@override_settings(
    EMAIL_BACKEND="authentication.smtp.EmailBackend", EMAIL_HOST="127.0.0.1", EMAIL_TIMEOUT=5
)
class MailServerTests(MailCase):
    def setUp(self):
        self.server = MailServer()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.enterContext(override_settings(EMAIL_PORT=self.server.server_address[1]))

    def test_one_connection_carries_many_mails(self):
        for name in ("ada", "bob", "eve"):
            promise(name)
        sweep_all()
        self.assertEqual((self.server.mails, self.server.connections), (["ada", "bob", "eve"], 1))

    def test_a_server_that_ends_a_connection_after_a_mail_costs_no_attempt(self):
        for answer in "421 enough", HANG_UP:
            with self.subTest(answer):
                VerificationEmail.objects.all().delete()
                User.objects.all().delete()
                self.server.mails.clear()
                for name in ("ada", "bob", "eve"):
                    promise(name)
                turns = iter(["250 fine", answer] * 3)
                self.server.answers = {"MAIL": lambda turns=turns: next(turns)}
                sweep_all()
                self.assertEqual(self.server.mails, ["ada", "bob", "eve"])
                attempts = VerificationEmail.objects.values_list("attempts", flat=True)
                self.assertEqual(list(attempts), [1, 1, 1])

    def test_a_server_that_fails_for_all_ends_the_sweep_and_costs_one_row_an_attempt(self):
        password = {"EMAIL_HOST_USER": "u", "EMAIL_HOST_PASSWORD": "p"}
        for step, answer in (
            ("CONNECT", "421 too busy"),
            ("CONNECT", HANG_UP),
            ("EHLO", HANG_UP),
            ("AUTH", "535 wrong password"),
            ("MAIL", "550 not this sender"),
            ("MAIL", HANG_UP),
            ("RCPT", "530 log in first"),
        ):
            with self.subTest(step=step, answer=answer), override_settings(**password):
                VerificationEmail.objects.all().delete()
                User.objects.all().delete()
                first, second = promise("ada"), promise("bob")
                self.server.answers = {step: answer}
                with self.assertLogs(sweeper.logger, "WARNING"):
                    sweep_all()
                self.assertRow(first, attempts=1, state=State.WAITING, claimed_by="")
                self.assertDueIn(first, 60)
                self.assertRow(second, attempts=0)
                self.server.answers = {}
                self.assertTrue(sweeper.sweep_is_missing(), "the lease is free")
                sweep_all()
                self.assertRow(second, state=State.SENT)

    def test_a_server_that_is_not_there_fails_for_all(self):
        with override_settings(EMAIL_PORT=1):
            row = promise("ada")
            send(row)
            other = promise("bob")
            sweep_all()
        for tried in row, other:
            self.assertRow(tried, attempts=1)

    def test_a_refusal_for_good_closes_the_row_with_the_words_of_the_server(self):
        for step, answer in (
            ("RCPT", "550 5.1.1 <{}@example.com>: no such user"),
            ("DATA", "554 no"),
            ("BODY", "554 5.7.1 spam from {}@example.com"),
        ):
            with self.subTest(step):
                name = step.lower()
                row = promise(name)
                self.server.answers = {step: answer.format(name)}
                with self.assertLogs(delivery.logger, "WARNING") as logs:
                    sweep_all()
                words = answer.format(name)
                self.assertRow(row, state=State.REFUSED, last_error=words, claimed_by="")
                self.assertIn(f"user {row.user_id} refused", logs.output[0])
                self.assertNotIn("example.com", logs.output[0])
                make_due()
                sweep_all()
                send(row)
                self.assertRow(row, attempts=1)

    def test_a_refusal_for_now_is_tried_again(self):
        for step in "RCPT", "DATA", "BODY":
            with self.subTest(step):
                row = promise(step.lower())
                self.server.answers = {step: "450 later"}
                sweep_all()
                self.assertRow(row, state=State.WAITING, last_error="450 later", unanswered=0)
                self.server.answers = {}
                make_due()
                sweep_all()
                self.assertRow(row, state=State.SENT, last_error="")

    def test_a_refused_row_keeps_no_other_waiting(self):
        promise("ada")
        promise("bob")
        answers = iter(["550 no", "250 fine"])
        self.server.answers = {"RCPT": lambda: next(answers)}
        sweep_all()
        self.assertEqual(self.server.mails, ["bob"])

    def test_a_server_that_hangs_up_after_the_message_gets_two(self):
        for answer in HANG_UP, "nonsense":
            with self.subTest(answer):
                self.server.mails.clear()
                row = promise(f"ada{answer}")
                self.server.answers = {"BODY": answer}
                for _ in range(4):
                    VerificationEmail.objects.pending().update(due_at=Now())
                    sweep_all()
                self.assertEqual(len(self.server.mails), 2)
                self.assertRow(row, state=State.POSSIBLY_SENT, unanswered=2, sent_at=None)

    def test_a_server_that_falls_silent_after_the_message_gets_two(self):
        row = promise("ada")
        released = threading.Event()
        self.addCleanup(released.set)

        def fall_silent():
            released.wait(5)

        self.server.answers = {"BODY": fall_silent}
        with override_settings(EMAIL_TIMEOUT=0.2):
            for _ in range(4):
                VerificationEmail.objects.pending().update(due_at=Now())
                sweep_all()
        self.assertEqual(len(self.server.mails), 2)
        self.assertRow(row, state=State.POSSIBLY_SENT)

    def test_a_server_that_hangs_up_before_the_message_is_tried_again(self):
        row = promise("ada")
        for step in "RCPT", "DATA", "RCPT":
            self.server.answers = {step: HANG_UP}
            make_due()
            sweep_all()
        self.assertRow(row, state=State.WAITING, unanswered=0, attempts=3)
        self.server.answers = {}
        make_due()
        sweep_all()
        self.assertRow(row, state=State.SENT)

    def test_a_soft_time_limit_after_the_message_counts_as_no_answer(self):
        row = promise("ada")
        original = smtplib.SMTP.getreply

        def getreply(connection):
            if connection.message_was_handed_over:
                raise SoftTimeLimitExceeded()
            return original(connection)

        with mock.patch.object(smtplib.SMTP, "getreply", getreply):
            send(row)
        self.assertRow(row, state=State.WAITING, unanswered=1, claimed_by="")


class SettingsTests(TestCase):
    def test_smtp_uses_the_backend_that_tells_how_far_a_conversation_came(self):
        own, django = "authentication.smtp", "django.core.mail.backends.console"
        for url, module in ("smtp+ssl://u:p@mail.example:465", own), ("consolemail://", django):
            code = "from django.conf import settings; print(settings.EMAIL_BACKEND)"
            module_name = os.environ["DJANGO_SETTINGS_MODULE"]
            names = {"EMAIL_URL": url, "DEBUG": "true", "DJANGO_SETTINGS_MODULE": module_name}
            names["DEFAULT_FROM_EMAIL"] = "service@mail.example"
            environment = os.environ | names
            process = subprocess.run(
                [sys.executable, "-c", code],
                env=environment,
                cwd=settings.BASE_DIR,
                capture_output=True,
                text=True,
                check=True,
            )
            self.assertEqual(process.stdout.strip(), f"{module}.EmailBackend")


class AdminTests(MailCase):
    url = reverse("admin:authentication_verificationemail_changelist")

    def setUp(self):
        self.client.force_login(User.objects.create_superuser("root", "root@example.com", "x"))

    def close(self, name: str, state: State, **values) -> VerificationEmail:
        old = Now() - timedelta(days=2)
        return promise(name, state=state, closed_at=Now(), requested_at=old, **values)

    def send_again(self) -> str:
        pks = list(VerificationEmail.objects.values_list("pk", flat=True))
        answers = {"action": "send_again", "_selected_action": pks}
        return self.client.post(self.url, answers, follow=True).content.decode()

    def test_it_says_in_words_what_became_of_each(self):
        self.close("ada", State.REFUSED, last_error="550 no such user", attempts=3)
        row = promise("bob")
        self.assertContains(self.client.get(self.url), "refused: 550 no such user")
        page = self.client.get(self.url, {"state": "waiting"})
        self.assertNotContains(page, "550 no such user")
        self.assertContains(page, "waiting")
        change = reverse("admin:authentication_verificationemail_change", args=[row.pk])
        self.assertNotContains(self.client.get(change), 'name="domain"')
        with self.assertLogs("django.request"):
            add = self.client.get(reverse("admin:authentication_verificationemail_add"))
        self.assertEqual(add.status_code, 403)

    def test_what_was_not_sent_is_sent_again(self):
        refused = self.close("ada", State.REFUSED, last_error="550 no", attempts=3, unanswered=1)
        given_up = self.close("bob", State.GIVEN_UP)
        self.assertIn("2 will be sent", self.send_again())
        self.assertRow(refused, attempts=0, unanswered=0, last_error="", closed_at=None)
        sweep_all()
        self.assertRow(given_up, state=State.SENT)
        self.assertEqual(sorted(recipients()), ["ada", "bob"])

    def test_an_e_mail_that_was_sent_or_waits_or_has_a_newer_one_is_left_alone(self):
        sent = self.close("ada", State.SENT, sent_at=Now())
        waiting = promise("bob", attempts=2)
        closed = VerificationEmail.objects.create(
            user=waiting.user, domain="testserver", state=State.REFUSED, closed_at=Now()
        )
        self.assertIn("3 left as they are", self.send_again())
        self.assertRow(sent, state=State.SENT)
        self.assertRow(waiting, attempts=2)
        self.assertRow(closed, state=State.REFUSED)


class SummaryTests(MailCase):
    def test_it_counts_what_waits_and_what_went_wrong(self):
        promise("fresh")
        promise("overdue", due_at=Now() - timedelta(minutes=6))
        promise("failing", last_error="450 later", due_at=Now() + timedelta(minutes=4))
        promise("sent", state=State.SENT, closed_at=Now(), sent_at=Now())
        old = {"closed_at": Now() - timedelta(hours=25), "last_error": "550 old"}
        promise("long_ago", state=State.REFUSED, **old)
        counts = {"waiting": 3, "overdue": 1, "failing": 1, "refused": 0}
        expected = summary.Summary(**counts, reason="450 later")
        self.assertEqual(summary.summarize_emails(), expected)
        VerificationEmail.objects.pending().delete()
        words = "550 <ada@example.com>: unknown"
        promise("refused", state=State.REFUSED, closed_at=Now(), last_error=words)
        counts = {"waiting": 0, "overdue": 0, "failing": 0, "refused": 1}
        expected = summary.Summary(**counts, reason="550 <<address>>: unknown")
        self.assertEqual(summary.summarize_emails(), expected)


class HousekeepingTests(MailCase):
    def test_of_many_that_piled_up_only_the_first_does_anything(self):
        promise("ada")
        with mock.patch.object(tasks.sweep, "delay") as delay:
            for _ in range(30):
                tasks.housekeeping()
            delay.assert_called_once_with()
            for age in timedelta(seconds=31), timedelta(hours=-1):
                Heartbeat.objects.update(at=Now() - age)
                tasks.housekeeping()
                self.assertTrue(Heartbeat.objects.filter(at__lte=Now()).exists())
            self.assertEqual(delay.call_count, 3)

    def test_it_starts_a_sweep_only_if_something_is_due_and_none_is_running(self):
        with mock.patch.object(tasks.sweep, "delay") as delay:
            tasks.housekeeping()
            promise("ada")
            sweeper.take_lease("worker@there", "")
            Heartbeat.objects.all().delete()
            tasks.housekeeping()
            delay.assert_not_called()

    def test_no_clock_of_a_worker_discards_a_task(self):
        for task in tasks.housekeeping, tasks.answer, tasks.sweep:
            self.assertIsNone(task.expires)

    def test_a_sweep_leaves_no_heartbeat(self):
        tasks.sweep()
        self.assertFalse(Heartbeat.objects.exists())

    def test_an_answer_that_nobody_waits_for_leaves_nothing(self):
        tasks.answer(uuid.uuid4().hex)
        self.assertFalse(RoundTrip.objects.exists())
        row = RoundTrip.objects.create(queue="celery")
        tasks.answer(row.token.hex)
        row.refresh_from_db()
        self.assertIn(f"process {os.getpid()}", row.worker)
        self.assertAlmostEqual(row.clock, timezone.now().timestamp(), delta=3)

    def test_forgotten_round_trips_are_deleted(self):
        RoundTrip.objects.create(queue="old", asked_at=Now() - timedelta(hours=2))
        RoundTrip.objects.create(queue="new")
        tasks.housekeeping()
        self.assertEqual(RoundTrip.objects.get().queue, "new")
