"""The watchdog of a worker, and the messages that a worker puts aside."""

import gc
import time
import warnings
from types import SimpleNamespace
from unittest import mock

from celery import current_app, signals
from celery.worker import state
from django.db import OperationalError
from django.test import SimpleTestCase, TestCase

from operations import put_aside, watchdog
from operations.consumer import Consumer
from operations.models import DeafWorker, PutAsideMessage
from redis_connection import transport

# Seconds without a task, one look before the watchdog ends the worker.
ALMOST_DEAF = watchdog.IDLE_BEFORE_ASKING + watchdog.DEAF_AFTER - watchdog.LOOK_INTERVAL


class MemoryTests(SimpleTestCase):
    def test_what_is_there_before_the_processes_are_forked_is_frozen(self):
        self.addCleanup(gc.unfreeze)
        gc.unfreeze()
        # Celery's own receiver warns, because there is no worker here.
        with warnings.catch_warnings(action="ignore"):
            signals.worker_init.send(sender=None)
        self.assertGreater(gc.get_freeze_count(), 10_000)


class SilenceTests(SimpleTestCase):
    """`celery -A config worker` needs no options: see operations/consumer.py."""

    def steps(self, **options) -> set[str]:
        """Return the names of the steps that a worker with these options takes."""
        self.addCleanup(setattr, transport, "on_unreadable", transport.on_unreadable)
        consumer = Consumer(
            on_task_request=None,
            app=current_app,
            pool=mock.Mock(),
            controller=mock.Mock(),
            worker_options=options,
        )
        return {step.name.rpartition(".")[2] for step in consumer.steps}

    def test_a_worker_sends_nothing_to_other_workers(self):
        talkative = {"Mingle", "Gossip", "Heart", "Events"}
        self.assertEqual(self.steps(task_events=False) & talkative, set())

    def test_task_events_can_be_switched_on_and_bring_heartbeats(self):
        self.assertLessEqual({"Events", "Heart"}, self.steps(task_events=True))

    def test_heartbeats_can_still_be_switched_off(self):
        steps = self.steps(task_events=True, without_heartbeat=True)
        self.assertNotIn("Heart", steps)


class WatchdogTests(TestCase):
    """A clock that the test moves, a queue that it fills, and Celery's own state of a worker."""

    def setUp(self):
        self.now = 1000.0
        self.waits = 3
        clock = SimpleNamespace(monotonic=lambda: self.now, time=time.time, sleep=time.sleep)
        for patch in (
            mock.patch.object(watchdog, "time", clock),
            mock.patch.object(watchdog.Watchdog, "count_waiting_tasks", lambda _: self.waits),
            mock.patch.object(watchdog.connection, "close"),
            mock.patch.object(watchdog.threading, "Timer"),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.addCleanup(setattr, state, "should_stop", state.should_stop)
        self.addCleanup(state.reset_state)
        app = SimpleNamespace(conf=SimpleNamespace(task_time_limit=90))
        consumer = SimpleNamespace(hostname="celery@here", task_buckets={}, app=app)
        self.dog = watchdog.Watchdog(consumer)

    def watch(self, seconds: float) -> bool:
        """Let so many seconds go by; return whether the worker ended itself within them."""
        state.should_stop = None
        for _ in range(int(seconds / watchdog.LOOK_INTERVAL)):
            self.now += watchdog.LOOK_INTERVAL
            self.dog.look()
        return state.should_stop == watchdog.TAKES_NO_TASKS

    def request(self, **changes):
        values = {"time_start": None, "time_limits": (None, None)} | changes
        request = mock.Mock(task=SimpleNamespace(time_limit=None), **values)
        # Celery's sets hold requests weakly, so the test keeps this one until its end.
        self.addCleanup(lambda: request)
        return request

    def test_a_worker_that_takes_nothing_ends_itself(self):
        with self.assertLogs(watchdog.logger, "CRITICAL") as logs:
            self.assertTrue(
                self.watch(
                    watchdog.IDLE_BEFORE_ASKING + watchdog.DEAF_AFTER + watchdog.ASK_INTERVAL
                )
            )
        self.assertRegex(logs.output[0], "3 tasks wait, and this worker has started none for 2.. s")
        self.assertEqual(len(logs.output), 1)

    def test_not_before_tasks_have_waited_for_two_minutes(self):
        self.assertFalse(self.watch(ALMOST_DEAF))
        self.waits = 0
        self.assertFalse(self.watch(3600))
        self.waits = 1
        self.assertFalse(self.watch(watchdog.DEAF_AFTER - watchdog.LOOK_INTERVAL))

    def test_one_task_that_is_started_shows_that_the_worker_is_not_deaf(self):
        self.assertFalse(self.watch(ALMOST_DEAF))
        state.all_total_count[0] += 1
        self.assertFalse(self.watch(ALMOST_DEAF))
        with self.assertLogs(watchdog.logger, "CRITICAL"):
            self.assertTrue(self.watch(2 * watchdog.ASK_INTERVAL), "it started no other one")

    def test_a_worker_that_is_busy_is_left_alone(self):
        running = self.request(time_start=time.time())
        state.active_requests.add(running)
        self.assertFalse(self.watch(3600))
        state.active_requests.discard(running)
        reserved = self.request()
        state.reserved_requests.add(reserved)
        self.assertFalse(self.watch(3600))
        state.reserved_requests.discard(reserved)
        limited = SimpleNamespace(contents=[("a request", 1)])
        self.dog.consumer.task_buckets["a rate limit"] = limited
        self.assertFalse(self.watch(3600))

    def test_a_task_that_nobody_killed_in_time_does_not_make_it_busy(self):
        limit = 90 + watchdog.TIME_LIMIT_SLACK
        stuck = self.request(time_start=time.time() - limit - 5)
        state.active_requests.add(stuck)
        state.reserved_requests.add(stuck)
        with self.assertLogs(watchdog.logger, "CRITICAL"):
            self.assertTrue(self.watch(3600))
        # The task has a time limit of its own, which is not over.
        stuck.time_limits = (7200, None)
        self.assertFalse(self.watch(3600))

    def test_a_worker_ends_itself_three_times_an_hour_at_most(self):
        for _ in range(watchdog.MAX_ENDS_AN_HOUR):
            with self.assertLogs(watchdog.logger, "CRITICAL"):
                self.assertTrue(self.watch(3600))
        with self.assertLogs(watchdog.logger, "CRITICAL") as logs:
            self.assertFalse(self.watch(3600))
        self.assertEqual(len(logs.output), 1)
        self.assertIn("restart it", logs.output[0])
        DeafWorker.objects.update(worker="celery@elsewhere")
        with self.assertLogs(watchdog.logger, "CRITICAL"):
            self.assertTrue(self.watch(3600))

    def test_without_the_database_the_worker_does_not_end(self):
        away = mock.patch.object(DeafWorker.objects, "filter", side_effect=OperationalError("away"))
        with away, self.assertLogs(watchdog.logger, "ERROR"):
            self.assertFalse(self.watch(3600))

    def test_an_error_that_nobody_thought_of_does_not_end_the_watchdog(self):
        looks = mock.patch.object(self.dog, "look", side_effect=[KeyError("odd"), None])
        sleep = mock.patch.object(watchdog.time, "sleep", side_effect=[None, None, SystemExit])
        printed = mock.patch.object(watchdog.threading, "excepthook")
        with looks as look, sleep, printed as excepthook, self.assertRaises(SystemExit):
            self.dog.run()
        self.assertEqual(look.call_count, 2)
        (call,) = excepthook.call_args_list
        self.assertEqual(str(call.args[0].exc_value), "'odd'")


class PutAsideTests(TestCase):
    def test_it_keeps_four_kibibytes_of_anything(self):
        for body in (b"\xff\0" * 10_000, "\ud800\0" * 10_000, {"a": ["b"]}, None):
            with self.subTest(str(body)[:20]), self.assertLogs(put_aside.logger):
                put_aside.keep("celery@here", "celery", {"h": 1}, body, "too odd " * 1000)
            row = PutAsideMessage.objects.latest("pk")
            self.assertLessEqual(len(row.body.encode()), 3 * put_aside.MAX_CHARACTERS)
            self.assertNotIn("\0", row.body)
            self.assertLessEqual(len(row.reason), 500)

    def test_without_the_database_the_message_goes_to_the_log(self):
        away = mock.patch.object(
            PutAsideMessage.objects, "create", side_effect=OperationalError("away")
        )
        with away, self.assertLogs(put_aside.logger) as logs:
            put_aside.keep("celery@here", "celery", {}, b"the body", "the reason")
        self.assertIn("the reason", logs.output[0])
        self.assertIn("the body", logs.output[1])
