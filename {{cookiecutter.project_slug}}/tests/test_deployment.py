"""What must hold for a deployment, also after you have changed things: the rules of checks.py."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from celery import current_app
from django.conf import settings
from django.core.checks import run_checks
from django.test import SimpleTestCase, override_settings
from django.views.debug import get_default_exception_reporter_filter

from operations import supervise
from operations.watchdog import TAKES_NO_TASKS

URL = "rediss://:password@redis.example.com:6379/0"
PRODUCTION = {
    "PATH": os.environ["PATH"],
    "SECRET_KEY": "a long text that is only used here, 0123456789 abcdefghijklmnop",
    "ALLOWED_HOSTS": "www.example.com",
    "DATABASE_URL": "postgres://user:password@localhost:5432/db",
    "EMAIL_URL": "smtp+tls://user:password@localhost:587",
    "CELERY_BROKER_URL": URL,
    "REDIS_CERT_REQS": "required",
    "REDIS_CHECK_HOSTNAME": "true",
    "REDIS_CA_CERTS": "",
    "DEBUG": "false",
}
WEAK = {"REDIS_CERT_REQS": "none", "REDIS_ALLOW_PLAINTEXT": "*.example.com", "EMAIL_URL": ""}
BROKEN = {
    "Procfile": "web: gunicorn config.wsgi --threads 99",
    "render.yaml": "- name: q\n- envVars:\n  - key: CELERY_BROKER_URL\n    fromService: {name: q}",
    "supervisord.conf": "[program:quick]\ncommand=celery -A x worker\nstopwaitsecs=1\n"
    "[program:slow]\ncommand=flower\nstopwaitsecs=9999",
}


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "manage.py", *arguments]
    env = PRODUCTION | variables
    return subprocess.run(command, cwd=settings.BASE_DIR, env=env, capture_output=True, text=True)


class ProductionTests(SimpleTestCase):
    def test_check_deploy_is_clean(self):
        done = manage("check", "--deploy", "--fail-level", "WARNING")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_check_deploy_warns_of_variables_that_weaken_the_service(self):
        done = manage("check", "--deploy", **WEAK, REDIS_MAX_CONNECTIONS="5", DATABASE_URL="")
        for number in range(1, 6):
            self.assertIn(f".W{number:03})", done.stderr)

    def test_check_deploy_warns_of_files_and_limits_that_break_a_deploy(self):
        claim = mock.patch.dict(current_app.conf.broker_transport_options, visibility_timeout=1)
        with tempfile.TemporaryDirectory() as folder, claim:
            for name, text in BROKEN.items():
                Path(folder, name).write_text(text)
            with override_settings(BASE_DIR=Path(folder)):
                found = {warning.id for warning in run_checks(include_deployment_checks=True)}
        for number in range(6, 11):
            self.assertIn(f"operations.W{number:03}", found)

    def test_celery_uses_the_url_that_was_checked_and_not_the_variable(self):
        url = "valkeys://:p%40ss@h:6379/0?ssl_cert_reqs=required"
        code = "from celery import current_app; c = current_app.connection_for_write()"
        code += "; print(c.as_uri(), c.ssl)"
        done = manage("shell", "--no-imports", "--command", code, CELERY_BROKER_URL=url)
        self.assertIn("rediss://:**@h:6379/0 ", done.stdout, done.stderr)
        self.assertIn("'ssl_check_hostname': True", done.stdout)

    def test_nothing_shows_the_password_of_the_broker(self):
        """What `celery inspect conf` and `celery report` show, and Django's error pages."""
        code = "from celery import current_app; print(current_app.bugreport())"
        code += "; from celery.app.utils import filter_hidden_settings as shown"
        code += "; print(shown(dict(current_app.conf.table())))"
        done = manage("shell", "--no-imports", "--command", code, CELERY_RESULT_BACKEND=URL)
        self.assertIn("BROKER_TRANSPORT_OPTIONS", done.stdout, done.stderr)
        for unwanted in (":password@", "insecure"):
            self.assertFalse(unwanted in done.stdout + done.stderr, unwanted)
        filtered = get_default_exception_reporter_filter()
        with override_settings(CACHE_URL=URL):
            self.assertNotIn("password", filtered.get_safe_settings()["CACHE_URL"])

    def test_a_variable_that_is_missing_is_named_in_one_line(self):
        for name, line in {
            "SECRET_KEY": "SECRET_KEY is not set",
            "CELERY_BROKER_URL": "{{ cookiecutter.__url_env }} is not set",
        }.items():
            with self.subTest(name):
                done = manage("check", **{name: ""})
                self.assertEqual(done.returncode, 2)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertIn(line, done.stderr)


class MemoryTests(SimpleTestCase):
    def test_supervise_loads_neither_django_nor_celery(self):
        """It is the first process of a container, and lives as long as that."""
        code = "import sys, operations.supervise; print({'django', 'celery'} & {*sys.modules})"
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=settings.BASE_DIR, capture_output=True, text=True)
        self.assertEqual(done.stdout.strip(), "set()", done.stderr)


class SuperviseTests(SimpleTestCase):
    """What supervise.py makes of programs that end. Nothing is started."""

    def setUp(self):
        self.enterContext(mock.patch.object(supervise.Supervisor, "failure", ""))
        self.running = supervise.SupervisorStates.RUNNING
        self.supervisor = supervise.Supervisor(SimpleNamespace(mood=self.running))

    def ends(self, *times: float, name="celery_worker", status=1):
        for second in times:
            config = SimpleNamespace(name=name)
            event = SimpleNamespace(process=SimpleNamespace(config=config, exitstatus=status))
            with mock.patch("time.monotonic", return_value=second):
                self.supervisor.count(event)

    def goes_on(self) -> bool:
        return self.supervisor.options.mood == self.running

    def test_a_program_that_ends_nine_times_in_ten_minutes_is_given_up(self):
        self.ends(*range(0, 80, 10))
        self.assertTrue(self.goes_on())
        self.ends(599)
        self.assertFalse(self.goes_on())
        self.assertIn("celery_worker could not be kept running", self.supervisor.failure)

    def test_a_program_that_ends_now_and_then_is_not(self):
        self.ends(*range(0, 86_400, 80))
        self.assertTrue(self.goes_on())

    def test_each_program_is_counted_by_itself(self):
        self.ends(*range(8), name="django")
        self.ends(*range(8), name="celery_worker")
        self.assertTrue(self.goes_on())

    def test_ends_with_status_0_and_by_a_signal_count(self):
        self.ends(*range(4), status=0)
        self.ends(*range(5), status=-1)
        self.assertFalse(self.goes_on())

    def test_a_worker_that_ends_itself_for_want_of_tasks_does_not(self):
        self.ends(*range(20), status=TAKES_NO_TASKS)
        self.assertTrue(self.goes_on())

    def test_a_stop_is_no_failure(self):
        """supervisord then gives up a program that was waiting for its next start."""
        self.supervisor.options.mood = supervise.SupervisorStates.SHUTDOWN
        process = SimpleNamespace(config=SimpleNamespace(name="celery_worker"))
        self.supervisor.give_up(SimpleNamespace(process=process))
        self.assertEqual(self.supervisor.failure, "")
