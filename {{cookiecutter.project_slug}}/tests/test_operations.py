import io
import json
import time
from datetime import timedelta
from unittest import mock

from celery import current_app
from celery.app.routes import MapRoute
from django.core.management import call_command
from django.db.models.functions import Now
from django.test import TestCase, override_settings
from django.utils import timezone

from authentication.models import User, VerificationEmail
from operations import health, probes, tasks
from operations.models import DeafWorker, Heartbeat, PutAsideMessage
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
        Heartbeat.objects.create(name=tasks.ROUND_TRIP + "old")
        Heartbeat.objects.update(at=timezone.now() - timedelta(hours=2))
        Heartbeat.objects.create(name=tasks.ROUND_TRIP + "new")
        for number in range(5):
            PutAsideMessage.objects.create(queue=number)
        PutAsideMessage.objects.filter(queue="4").update(at=timezone.now() - timedelta(days=15))
        with mock.patch.object(tasks, "MOST_KEPT", 2):
            tasks.prune()
        self.assertEqual(Heartbeat.objects.get().name, tasks.ROUND_TRIP + "new")
        kept = PutAsideMessage.objects.order_by("pk").values_list("queue", flat=True)
        self.assertEqual(list(kept), ["2", "3"])

    def test_the_doctor_knows_every_queue_that_tasks_go_to(self):
        self.assertEqual(probes.queue_names()[0], "celery")
        routes = {"authentication.*": {"queue": "mail"}, "celery.*": {"routing_key": "no-queue"}}
        with mock.patch.object(current_app.amqp, "router", current_app.amqp.Router()) as router:
            router.routes = [MapRoute(routes)]
            self.assertEqual(probes.queue_names()[0], "celery")
            self.assertIn("mail", probes.queue_names())


class HealthTests(TestCase):
    def states(self, **probes_):
        with mock.patch.dict(probes.READY, probes_):
            return health.ask()

    def test_ready_when_housekeeping_ran_lately(self):
        tasks.leave_heartbeat(tasks.HOUSEKEEPING, "celery@here")
        states = self.states(broker=lambda: "PONG")
        self.assertEqual(states, {"database": "ok", "broker": "ok", "heartbeat": "ok"})

    def test_not_ready_when_housekeeping_is_late(self):
        tasks.leave_heartbeat(tasks.HOUSEKEEPING, "celery@here")
        Heartbeat.objects.update(at=timezone.now() - timedelta(minutes=6))
        with self.assertLogs(health.logger) as logs:
            self.assertEqual(self.states(broker=lambda: "PONG")["heartbeat"], "fail")
        self.assertIn("beat run", logs.output[0])

    def test_readyz_says_503_and_does_not_wait_for_a_probe_that_hangs(self):
        hanging = {"DEADLINE": 0, "latest": health.Future}
        with mock.patch.multiple(health, **hanging):
            response = self.client.get("/readyz", headers={"host": "10.0.0.3"})
        self.assertEqual(response.status_code, 503)
        self.assertEqual(response.json()["broker"], "no answer")


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

    def test_it_takes_the_plan_for_the_limit_where_the_server_does_not_say(self):
        way = probes.Way()
        with override_settings(REDIS_MAX_CONNECTIONS=20):
            for used, state in (18, "ok"), (19, "warn"):
                way.info = {"connected_clients": used}
                (result,) = probes.run({"connections": way.connections})
                self.assertEqual((result.state, result.seen), (state, f"{used} of 20 used"))

    def test_it_warns_of_a_clock_that_differs(self):
        for ahead, state, words in (
            (0, "ok", "answered"),
            (300, "warn", "clock is 300 s ahead of"),
            (-300, "warn", "clock is 300 s behind"),
        ):
            row = Heartbeat(worker="celery@here", clock=time.time() + ahead)
            with mock.patch.object(probes, "answered", return_value=row):
                (result,) = probes.run({"round trip": probes.round_trip})
            self.assertEqual(result.state, state)
            self.assertIn(words, result.seen)

    def test_it_warns_of_what_went_wrong_since_yesterday(self):
        steps = {"workers": probes.workers, "put aside": probes.put_aside, "emails": probes.emails}
        self.assertEqual([vars(r) for r in probes.run(steps) if r.state != "ok"], [])
        DeafWorker.objects.create(worker="celery@here", seen="3 tasks wait")
        PutAsideMessage.objects.create(queue="celery", reason="no task has the name x")
        user = User.objects.create(username="ada", email="ada@example.com", is_active=False)
        refused = {"state": "refused", "closed_at": Now(), "last_error": "550 <ada@x.org> who?"}
        VerificationEmail.objects.create(user=user, domain="d", **refused)
        results = {result.name: result for result in probes.run(steps)}
        self.assertEqual({result.state for result in results.values()}, {"warn"})
        self.assertIn("celery@here", results["workers"].seen)
        self.assertIn("no task has the name x", results["put aside"].seen)
        self.assertIn("550 <<address>> who?", results["emails"].seen)
        self.assertIn("restart the worker", probes.who_is_there(["celery"]))

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
                self.assertIn(words, probes.who_is_there([queue]))

    def test_it_reports_what_nobody_thought_of(self):
        (result,) = probes.run({"odd": lambda: {}["nothing"]})
        self.assertEqual((result.state, result.seen), ("fail", "KeyError: 'nothing'"))

    def test_it_goes_on_after_a_warning_and_ends_at_a_failure(self):
        def troubled(state):
            raise probes.Trouble("seen", "fix", state)

        steps = [lambda: "fine", lambda: troubled("warn"), lambda: troubled("fail"), self.fail]
        results = list(probes.run(dict(enumerate(steps))))
        states = [result.state for result in results]
        self.assertEqual(states, ["ok", "warn", "fail", "not reached"])
        self.assertEqual([result.fix for result in results], ["", "fix", "fix", ""])
