import io
import json
import threading
import time
from datetime import timedelta
from unittest import mock

from celery import current_app
from celery.app.routes import MapRoute
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import DatabaseError
from django.db.models.functions import Now
from django.test import TestCase, override_settings
from django.utils import timezone

from authentication.models import User, VerificationEmail
from operations import health, probes, readiness, tasks, worker_probes
from operations.management.commands import doctor
from operations.models import DeafWorker, Heartbeat, PutAsideMessage, RoundTrip
from operations.probes import Probe
from redis_connection.diagnosis import ProbeFailed, RedisDiagnosis
from redis_connection.policy import Policy


class TaskTests(TestCase):
    def test_a_worker_knows_every_task(self):
        current_app.loader.import_default_modules()
        mail = "authentication.email_utils.send_verification_email"
        ours = {mail, "operations.tasks.answer", "operations.tasks.housekeeping"}
        self.assertLessEqual(ours, set(current_app.tasks))

    def test_housekeeping_leaves_a_heartbeat_and_sweeps(self):
        with (
            mock.patch("authentication.sweeper.sweep_is_missing", return_value=True),
            mock.patch.object(tasks.sweep, "delay") as sweep,
        ):
            tasks.housekeeping()
        sweep.assert_called_once_with()
        self.assertEqual([row.name for row in Heartbeat.objects.all()], [tasks.HOUSEKEEPING])

    def test_housekeeping_deletes_what_nobody_will_look_at(self):
        RoundTrip.objects.create(queue="old")
        RoundTrip.objects.update(asked_at=timezone.now() - timedelta(hours=2))
        RoundTrip.objects.create(queue="new")
        for number in range(5):
            PutAsideMessage.objects.create(queue=number)
        PutAsideMessage.objects.filter(queue="4").update(at=timezone.now() - timedelta(days=15))
        with mock.patch.object(tasks, "MOST_KEPT", 2):
            tasks.prune()
        self.assertEqual(RoundTrip.objects.get().queue, "new")
        kept = PutAsideMessage.objects.order_by("pk").values_list("queue", flat=True)
        self.assertEqual(list(kept), ["2", "3"])

    def test_the_doctor_knows_every_queue_that_tasks_go_to(self):
        self.assertEqual(worker_probes.queue_names()[0], "celery")
        routes = {"authentication.*": {"queue": "mail"}, "celery.*": {"routing_key": "no-queue"}}
        with mock.patch.object(current_app.amqp, "router", current_app.amqp.Router()) as router:
            router.routes = [MapRoute(routes)]
            self.assertEqual(worker_probes.queue_names()[0], "celery")
            self.assertIn("mail", worker_probes.queue_names())


class ReadinessTests(TestCase):
    def states(self) -> dict[str, str]:
        with mock.patch.object(readiness, "broker", return_value="takes writes"):
            return readiness.states()

    def test_ready_when_housekeeping_ran_lately(self):
        tasks.leave_heartbeat(tasks.HOUSEKEEPING, "celery@here")
        expected = {"database": "ok", "broker": "ok", "heartbeat": "ok"}
        self.assertEqual(self.states(), expected)

    def test_not_ready_when_housekeeping_is_late(self):
        tasks.leave_heartbeat(tasks.HOUSEKEEPING, "celery@here")
        Heartbeat.objects.update(at=timezone.now() - timedelta(minutes=6))
        with self.assertLogs(readiness.logger) as logs:
            self.assertEqual(self.states()["heartbeat"], "fail")
        self.assertIn("beat run", logs.output[0])

    def test_every_step_is_asked_whatever_fails(self):
        failing = mock.Mock(side_effect=ProbeFailed("down", "start it"))
        with (
            mock.patch.object(readiness, "database", failing),
            self.assertLogs(readiness.logger) as logs,
        ):
            expected = {"database": "fail", "broker": "ok", "heartbeat": "fail"}
            self.assertEqual(self.states(), expected)
        self.assertIn("not ready: database: down (to do: start it)", logs.output[0])


class HealthTests(TestCase):
    def ask_for_readyz(self, answer: health.CachedAnswer):
        with mock.patch.object(health, "readiness_states", answer):
            # As a platform asks: by plain HTTP, and with an address as the host.
            return self.client.get("/readyz", headers={"host": "10.0.0.3"})

    def test_readyz_says_200_when_all_is_well(self):
        states = {"database": "ok", "broker": "ok"}
        answer = health.CachedAnswer(states.copy, seconds=5, deadline=5)
        response = self.ask_for_readyz(answer)
        self.assertEqual(response.status_code, 200)
        self.assertEqual(response.json(), {"ready": True} | states)

    def test_readyz_says_503_and_which_step_fails(self):
        states = {"database": "ok", "broker": "fail"}
        answer = health.CachedAnswer(states.copy, seconds=5, deadline=5)
        with self.assertLogs("django.request"):
            response = self.ask_for_readyz(answer)
        self.assertEqual(response.status_code, 503)
        self.assertEqual(response.json(), {"ready": False} | states)

    def test_readyz_says_503_and_does_not_wait_for_a_probe_that_hangs(self):
        released = threading.Event()
        self.addCleanup(released.set)
        answer = health.CachedAnswer(released.wait, seconds=5, deadline=0)
        with self.assertLogs("django.request"):
            response = self.ask_for_readyz(answer)
        self.assertEqual(response.status_code, 503)
        self.assertEqual(response.json()["broker"], "no answer")

    def test_an_answer_is_kept_for_some_seconds(self):
        ask = mock.Mock(side_effect=[1, 2])
        answer = health.CachedAnswer(ask, seconds=5, deadline=5)
        self.assertEqual([answer.get(), answer.get()], [1, 1])
        answer.asked_at -= 6
        self.assertEqual([answer.get(), answer.get()], [2, 2])

    def test_who_asks_meanwhile_waits_for_the_same_answer(self):
        """Also when that takes longer than an answer is kept."""
        released = threading.Event()
        ask = mock.Mock(side_effect=released.wait)
        answer = health.CachedAnswer(ask, seconds=0, deadline=0)
        for _ in range(3):
            self.assertRaises(TimeoutError, answer.get)
        released.set()
        answer.deadline = 5
        self.assertTrue(answer.get())
        ask.assert_called_once_with()


class DoctorTests(TestCase):
    def doctor(self, url: str) -> dict:
        out = io.StringIO()
        with override_settings(REDIS=Policy(url)), self.assertRaises(SystemExit) as end:
            call_command("doctor", json=True, stdout=out)
        self.assertEqual(end.exception.code, 1)
        return {probe["name"]: probe for probe in json.loads(out.getvalue())["probes"]}

    def test_it_names_the_step_that_fails_and_what_to_do(self):
        report = self.doctor("redis://:s3cret@127.0.0.1:1/0")
        self.assertEqual(report["resolve"]["state"], "ok")
        self.assertEqual(report["connect"]["state"], "fail")
        self.assertIn("start Redis", report["connect"]["fix"])
        self.assertEqual(report["round trip"]["state"], "not reached")
        self.assertNotIn("s3cret", str(report))

    def test_it_keeps_the_keys_that_scripts_read(self):
        report = self.doctor("redis://127.0.0.1:1/0")
        for probe in report.values():
            self.assertEqual(list(probe), ["name", "state", "seen", "fix"])

    def test_what_keeps_it_from_running_is_no_failed_probe(self):
        """1 would say that it had looked at Redis."""
        for error in CommandError("no certificate"), SystemCheckError("a model is wrong"):
            with (
                mock.patch.object(doctor.Command, "check", side_effect=error),
                self.assertRaises(CommandError) as caught,
            ):
                call_command("doctor", json=True, skip_checks=False)
            self.assertEqual(caught.exception.returncode, 2)

    def test_it_takes_the_plan_for_the_limit_where_the_server_does_not_say(self):
        redis = RedisDiagnosis(Policy("redis://localhost"), connection_limit=20)
        for used, state in (18, "ok"), (19, "warn"):
            redis.info = {"connected_clients": used}
            result = Probe("connections", redis.connections).run()
            self.assertEqual((result.state, result.detail), (state, f"{used} of 20 used"))

    def test_it_warns_of_a_clock_that_differs(self):
        for ahead, state, words in (
            (0, "ok", "answered"),
            (300, "warn", "clock is 300 s ahead of"),
            (-300, "warn", "clock is 300 s behind"),
        ):
            row = RoundTrip(worker="celery@here", clock=time.time() + ahead)
            with mock.patch.object(worker_probes, "wait_for_answers", return_value=[row]):
                result = Probe("round trip", worker_probes.round_trip).run()
            self.assertEqual(result.state, state)
            self.assertIn(words, result.detail)

    def test_it_waits_for_the_answers_of_all_queues_and_leaves_no_row(self):
        def work(arguments, queue):
            tasks.answer(*arguments)

        with mock.patch.object(tasks.answer, "apply_async", side_effect=work):
            rows = worker_probes.wait_for_answers(["celery", "mail"])
        self.assertEqual({row.queue for row in rows}, {"celery", "mail"})
        self.assertFalse(RoundTrip.objects.exists())

        with (
            mock.patch.object(worker_probes, "ROUND_TRIP_TIMEOUT", 0),
            mock.patch.object(worker_probes, "describe_workers", return_value="hint"),
            mock.patch.object(tasks.answer, "apply_async"),
            self.assertRaises(ProbeFailed) as failed,
        ):
            worker_probes.wait_for_answers(["celery", "mail"])
        self.assertEqual(failed.exception.detail, "no answer from celery, mail within 0 s")
        self.assertFalse(RoundTrip.objects.exists())

    def test_it_warns_of_what_went_wrong_since_yesterday(self):
        steps = [
            Probe("workers", worker_probes.workers),
            Probe("put aside", worker_probes.put_aside),
            Probe("emails", worker_probes.emails),
        ]
        self.assertEqual({result.state for result in probes.run(steps)}, {"ok"})
        DeafWorker.objects.create(worker="celery@here", detail="3 tasks wait")
        PutAsideMessage.objects.create(queue="celery", reason="no task has the name x")
        user = User.objects.create(username="ada", email="ada@example.com", is_active=False)
        refused = {"state": "refused", "closed_at": Now(), "last_error": "550 <ada@x.org> who?"}
        VerificationEmail.objects.create(user=user, domain="d", **refused)
        results = {result.name: result for result in probes.run(steps)}
        self.assertEqual({result.state for result in results.values()}, {"warn"})
        self.assertIn("celery@here", results["workers"].detail)
        self.assertIn("no task has the name x", results["put aside"].detail)
        self.assertIn("550 <<address>> who?", results["emails"].detail)
        self.assertIn("restart the worker", worker_probes.describe_workers(["celery"]))

    def test_it_says_when_an_idle_worker_should_be_restarted(self):
        inspect = mock.Mock()
        inspect.active_queues.return_value = {"celery@a": [{"name": "celery"}]}
        inspect.reserved.return_value = {"celery@a": []}
        control = mock.patch.object(current_app.control, "inspect", return_value=inspect)
        for active, queue, words in (
            ({"celery@a": []}, "celery", "restart the worker"),
            ({"celery@a": [{"id": "1"}]}, "celery", "it is busy"),
            ({"celery@a": []}, "mail", "other queues"),
            (None, "celery", "No worker is there"),
        ):
            inspect.active.return_value = active
            with control, override_settings(CELERY_WORKER_ENABLE_REMOTE_CONTROL=True):
                self.assertIn(words, worker_probes.describe_workers([queue]))

    def test_it_reports_what_nobody_thought_of(self):
        result = Probe("odd", lambda: {}["nothing"]).run()
        self.assertEqual((result.state, result.detail), ("fail", "KeyError: 'nothing'"))
        self.assertTrue(result.hint)

    def test_it_tells_the_database_from_redis(self):
        result = Probe("beat", mock.Mock(side_effect=DatabaseError("no such table"))).run()
        self.assertEqual(result.detail, "SQL database: no such table")
        self.assertIn("DATABASE_URL", result.hint)

    def test_it_goes_on_after_a_warning_and_ends_at_a_failure(self):
        steps = [
            Probe("first", lambda: "fine"),
            Probe("second", mock.Mock(side_effect=ProbeFailed("odd", "look", "warn"))),
            Probe("third", mock.Mock(side_effect=ProbeFailed("down", "start it"))),
            Probe("fourth", lambda: "fine"),
        ]
        results = list(probes.run(steps))
        states = [result.state for result in results]
        self.assertEqual(states, ["ok", "warn", "fail", "not reached"])
        self.assertEqual([result.hint for result in results], ["", "look", "start it", ""])

    def test_it_can_go_on_after_a_failure(self):
        steps = [
            Probe("first", mock.Mock(side_effect=ProbeFailed("down", "start it"))),
            Probe("second", lambda: "fine"),
        ]
        states = [result.state for result in probes.run(steps, stop_at_failure=False)]
        self.assertEqual(states, ["fail", "ok"])
