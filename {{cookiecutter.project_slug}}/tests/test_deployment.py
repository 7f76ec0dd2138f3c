"""What must hold for a deployment, also after you have changed things."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

from django.conf import settings
from django.test import SimpleTestCase

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
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env=PRODUCTION | variables,
        capture_output=True,
        text=True,
    )


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
        ):
            with self.subTest(warning):
                done = manage("check", "--deploy", **variables)
                self.assertIn(f".{warning})", done.stderr)

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

    def test_the_worker_gives_tasks_back_before_it_is_killed(self):
        self.assertLess(settings.CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT, 18)

    def test_no_task_outlives_its_claim(self):
        visibility = settings.CELERY_BROKER_TRANSPORT_OPTIONS["visibility_timeout"]
        self.assertLess(settings.CELERY_TASK_SOFT_TIME_LIMIT, settings.CELERY_TASK_TIME_LIMIT)
        self.assertLess(settings.CELERY_TASK_TIME_LIMIT, visibility)

    def test_the_queue_is_never_evicted(self):
        blueprint = ROOT / "render.yaml"
        if blueprint.exists() and "type: keyvalue\n    name" in blueprint.read_text():
            self.assertIn("maxmemoryPolicy: noeviction", blueprint.read_text())
