"""What must hold for a deployment, also after you have changed things."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings
from django.test import SimpleTestCase
from django.views.debug import get_default_exception_reporter_filter

ROOT = Path(settings.BASE_DIR)
PRODUCTION = {
    "PATH": os.environ["PATH"],
    "SECRET_KEY": "a long text that is only used here, 0123456789 abcdefghijklmnop",
    "ALLOWED_HOSTS": "www.example.com",
    "DATABASE_URL": "postgres://user:password@localhost:5432/db",
    "EMAIL_URL": "smtp+tls://user:password@localhost:587",
    "CELERY_BROKER_URL": "rediss://:password@redis.example.com:6379/0",
    "REDIS_CERT_REQS": "required",
    "REDIS_CHECK_HOSTNAME": "true",
    "REDIS_CA_CERTS": "",
    "DEBUG": "false",
}


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "manage.py", *arguments]
    env = PRODUCTION | variables
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


class ProductionTests(SimpleTestCase):
    def test_check_deploy_is_clean(self):
        done = manage("check", "--deploy", "--fail-level", "WARNING")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_check_deploy_warns_of_what_weakens_the_service(self):
        for variables, warning in (
            ({"REDIS_CERT_REQS": "none"}, "W001"),
            ({"REDIS_ALLOW_PLAINTEXT": "redis.example.com"}, "W002"),
            ({"EMAIL_URL": ""}, "W003"),
            ({"REDIS_MAX_CONNECTIONS": "5"}, "W004"),
            ({"DATABASE_URL": ""}, "W005"),
        ):
            with self.subTest(warning):
                done = manage("check", "--deploy", **variables)
                self.assertIn(f".{warning})", done.stderr)

    def test_celery_uses_the_url_that_was_checked_and_not_the_variable(self):
        url = "valkeys://:p%40ss@h:6379/0?ssl_cert_reqs=required"
        code = "from celery import current_app; c = current_app.connection_for_write()"
        code += "; print(c.as_uri(), c.ssl)"
        done = manage("shell", "--no-imports", "--command", code, CELERY_BROKER_URL=url)
        self.assertIn("rediss://:**@h:6379/0 ", done.stdout, done.stderr)
        self.assertIn("'ssl_check_hostname': True", done.stdout)

    def test_error_pages_hide_the_passwords_in_urls(self):
        shown = get_default_exception_reporter_filter().get_safe_settings()
        self.assertNotIn("redis:", shown["CELERY_BROKER_URL"])

    def test_a_variable_that_is_missing_is_named_in_one_line(self):
        for name, line in {
            "SECRET_KEY": "SECRET_KEY is not set",
            "CELERY_BROKER_URL": "{{ cookiecutter.__url_env }} is not set",
        }.items():
            with self.subTest(name):
                done = manage("check", **{name: ""})
                self.assertEqual(done.returncode, 1)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertIn(line, done.stderr)


class StopTests(SimpleTestCase):
    def test_everything_has_stopped_before_a_platform_kills_the_container(self):
        conf = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
        conf.read(ROOT / "supervisord.conf")
        programs = [conf[name] for name in conf.sections() if name.startswith("program:")]
        self.assertEqual(len(programs), 3)
        seconds = sum(program.getint("stopwaitsecs", 10) for program in programs)
        self.assertLessEqual(seconds, 28, "supervisord stops one program after the other")
        worker = conf.getint("program:celery_worker", "stopwaitsecs")
        self.assertLess(settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT, worker)

    def test_no_task_outlives_its_claim(self):
        visibility = settings.CELERY_BROKER_TRANSPORT_OPTIONS["visibility_timeout"]
        self.assertLess(settings.CELERY_TASK_SOFT_TIME_LIMIT, settings.CELERY_TASK_TIME_LIMIT)
        self.assertLess(settings.CELERY_TASK_TIME_LIMIT, visibility)

    def test_the_queue_is_never_evicted(self):
        blueprint = ROOT / "render.yaml"
        if blueprint.exists() and "type: keyvalue\n    name" in blueprint.read_text():
            self.assertIn("maxmemoryPolicy: noeviction", blueprint.read_text())
