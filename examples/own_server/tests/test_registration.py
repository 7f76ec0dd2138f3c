import re
from datetime import timedelta
from unittest import mock

from django.core import mail
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now
from django.test import TestCase, TransactionTestCase
from django.urls import reverse
from django.utils import timezone
from kombu.exceptions import OperationalError

from authentication import email_utils, sweeper
from authentication.models import User, VerificationEmail

SEND = "authentication.email_utils.send_verification_email.delay"
SEND_MESSAGES = "django.core.mail.backends.locmem.EmailBackend.send_messages"
ANSWERS = {
    "username": "ada",
    "email": "ada@example.com",
    "password1": "correct horse battery",
    "password2": "correct horse battery",
}


class HashingTests(TransactionTestCase):
    def test_no_transaction_waits_for_a_password_to_be_hashed(self):
        """On SQLite nobody else can write during a transaction."""
        hashed = []

        def make_password(password, *args, **kwargs):
            hashed.append(connection.in_atomic_block)
            return password

        hashing = mock.patch("django.contrib.auth.base_user.make_password", make_password)
        with hashing, mock.patch(SEND):
            self.client.post(reverse("register"), ANSWERS)
        self.assertEqual(hashed, [False])
        self.assertEqual(User.objects.count(), 1)


class RegistrationTests(TestCase):
    def register(self, **changes):
        """Register; return the arguments of each task that went to the broker."""
        with mock.patch(SEND) as delay, self.captureOnCommitCallbacks(execute=True):
            response = self.client.post(reverse("register"), ANSWERS | changes)
        self.assertRedirects(response, reverse("login"))
        return [call.args for call in delay.call_args_list]

    def registered(self) -> User:
        [arguments] = self.register()
        email_utils.send_verification_email(*arguments)
        return User.objects.get()

    def link(self) -> str:
        found = re.search(r"https?://testserver(/\S+)", mail.outbox[-1].body)
        assert found, "the e-mail has no link"
        return found[1]

    def age(self, **fields):
        VerificationEmail.objects.update(**fields)

    def test_registering_verifying_and_logging_in(self):
        user = self.registered()
        self.assertFalse(user.is_active)
        self.assertEqual(mail.outbox[0].to, ["ada@example.com"])
        self.assertContains(self.client.get(self.link()), "ada@example.com")
        user.refresh_from_db()
        self.assertFalse(user.is_active, "a mail scanner's GET must not verify")
        self.assertRedirects(self.client.post(self.link()), reverse("login"))
        answers = {"username": "ada", "password": ANSWERS["password1"]}
        response = self.client.post(reverse("login"), answers, follow=True)
        self.assertContains(response, "You are logged in as ada")

    def test_a_forgotten_password_is_reset(self):
        self.registered()
        self.client.post(self.link())
        self.client.post(reverse("password_reset"), {"email": "ada@example.com"})
        page = self.client.get(self.link(), follow=True)
        words = {"new_password1": "staple battery 7", "new_password2": "staple battery 7"}
        self.assertRedirects(self.client.post(page.redirect_chain[-1][0], words), reverse("login"))
        self.assertTrue(self.client.login(username="ada", password="staple battery 7"))
        self.assertContains(self.client.get(self.link()), "has been used already")

    def test_the_admin_adds_more_than_one_user(self):
        self.client.force_login(User.objects.create_superuser("root", "root@example.com", "x"))
        for name in ("bob", "eve"):
            answers = ANSWERS | {"username": name, "email": f"{name}@example.com"}
            answers |= {"usable_password": "true"}
            response = self.client.post(reverse("admin:authentication_user_add"), answers)
            self.assertEqual(response.status_code, 302)
        self.assertEqual(User.objects.count(), 3)

    def test_nobody_logs_in_unverified(self):
        self.registered()
        answers = {"username": "ada", "password": ANSWERS["password1"]}
        self.assertContains(self.client.post(reverse("login"), answers), "Please enter a correct")

    def test_an_address_is_registered_once_whatever_its_case(self):
        self.register()
        with mock.patch(SEND):
            response = self.client.post(
                reverse("register"), ANSWERS | {"username": "bob", "email": "ADA@example.com"}
            )
        self.assertContains(response, "already exists")
        self.assertEqual(User.objects.count(), 1)

    def test_a_link_works_once_and_for_one_day(self):
        self.registered()
        tomorrow = timezone.now().timestamp() + 86_500
        with mock.patch("django.core.signing.time.time", return_value=tomorrow):
            self.assertRedirects(self.client.post(self.link()), reverse("resend"))
        self.client.post(self.link())
        self.assertRedirects(self.client.post(self.link()), reverse("resend"))

    def test_a_forged_link_verifies_nobody(self):
        self.registered()
        self.assertRedirects(self.client.post(self.link()[:-2] + "x/"), reverse("resend"))
        self.assertFalse(User.objects.get().is_active)

    def test_the_task_makes_the_row_that_is_missing_and_sends_once(self):
        user = User.objects.create(username="bob", email="bob@example.com", is_active=False)
        email_utils.send_verification_email(user.pk, "testserver")
        email_utils.send_verification_email(user.pk, "testserver")
        self.assertEqual([message.to for message in mail.outbox], [["bob@example.com"]])

    def test_a_mail_server_that_is_down_is_tried_again(self):
        [arguments] = self.register()
        with mock.patch(SEND_MESSAGES, side_effect=ConnectionRefusedError):
            email_utils.send_verification_email(*arguments)
        self.swept()
        self.assertEqual(len(mail.outbox), 0)
        self.age(due_at=Now())
        self.swept()
        self.assertEqual(len(mail.outbox), 1)

    def test_a_user_whom_staff_made_inactive_cannot_come_back(self):
        user = self.registered()
        User.objects.update(last_login=timezone.now())
        self.age(requested_at=timezone.now() - timedelta(hours=1))
        self.assertEqual(self.resend(), 0)
        self.assertRedirects(self.client.post(self.link()), reverse("resend"))
        user.refresh_from_db()
        self.assertFalse(user.is_active)

    def test_a_broker_that_is_down_delays_the_mail_but_not_the_registration(self):
        with (
            mock.patch(SEND, side_effect=OperationalError("down")),
            self.captureOnCommitCallbacks(execute=True),
        ):
            response = self.client.post(reverse("register"), ANSWERS)
        self.assertRedirects(response, reverse("login"))
        self.swept()
        self.assertEqual(len(mail.outbox), 1)

    def test_a_task_that_the_queue_lost_is_replaced_after_a_minute(self):
        self.register()
        self.swept()
        self.assertEqual(len(mail.outbox), 0)
        self.age(due_at=F("due_at") - timedelta(seconds=61))
        self.swept()
        self.swept()
        self.assertEqual(len(mail.outbox), 1)

    def swept(self):
        sweeper.sweep("worker@here")

    def resend(self, email="ada@example.com"):
        with mock.patch(SEND) as delay, self.captureOnCommitCallbacks(execute=True):
            self.client.post(reverse("resend"), {"email": email})
        return delay.call_count

    def test_a_new_link_can_be_asked_for_once_a_minute(self):
        self.registered()
        self.assertEqual(self.resend(), 0)
        self.age(requested_at=timezone.now() - timedelta(seconds=61))
        self.assertEqual(self.resend("ADA@example.com"), 1)
        email_utils.send_verification_email(User.objects.get().pk, "testserver")
        self.assertEqual(len(mail.outbox), 2)

    def test_a_promise_that_was_never_kept_is_renewed(self):
        [arguments] = self.register()
        self.age(requested_at=timezone.now() - timedelta(days=2))
        self.assertEqual(self.resend(), 1)
        email_utils.send_verification_email(*arguments)
        self.assertEqual((VerificationEmail.objects.count(), len(mail.outbox)), (1, 1))

    def test_no_new_link_for_strangers_and_for_the_verified(self):
        self.registered()
        self.client.post(self.link())
        self.age(requested_at=timezone.now() - timedelta(seconds=61))
        self.assertEqual(self.resend() + self.resend("eve@example.com"), 0)
