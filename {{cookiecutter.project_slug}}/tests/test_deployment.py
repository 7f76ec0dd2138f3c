"""What must hold for a deployment, also after you have changed settings or files."""

import argparse
import contextlib
import io
import os
import re
import shutil
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
from gunicorn.config import Config as GunicornConfig

from config.database_url import read_database_url
from operations import supervise
from operations.watchdog import TAKES_NO_TASKS

from . import deployment_files

URL = "rediss://:password@redis.example.com:6379/0"
PRODUCTION = {
    "PATH": os.environ["PATH"],
    "SECRET_KEY": "a long text that is only used here, 0123456789 abcdefghijklmnop",
    "ALLOWED_HOSTS": "www.example.com",
    "DATABASE_URL": "postgres://user:password@localhost:5432/db",
    "EMAIL_URL": "smtp+tls://user:password@localhost:587",
    "DEFAULT_FROM_EMAIL": "service@example.com",
    "CELERY_BROKER_URL": URL,
    "REDIS_CERT_REQS": "required",
    "REDIS_CHECK_HOSTNAME": "true",
    "REDIS_CA_CERTS": "",
    "DEBUG": "false",
}
WEAK = {"REDIS_CERT_REQS": "none", "REDIS_ALLOW_PLAINTEXT": "*.example.com", "EMAIL_URL": ""}
# Seconds that supervisord itself needs, after the last of its programs has stopped.
SUPERVISORD_STOPS = 2


def run(*command: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a command in the environment of production, with some variables changed."""
    env = PRODUCTION | variables
    return subprocess.run(command, cwd=settings.BASE_DIR, env=env, capture_output=True, text=True)


def manage(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    return run(sys.executable, "manage.py", *arguments, **variables)


def deployment_warnings() -> set[str]:
    """The ids of all that `check --deploy` reports in this process."""
    return {warning.id for warning in run_checks(include_deployment_checks=True)}


class ProductionTests(SimpleTestCase):
    def test_check_deploy_is_clean(self):
        done = manage("check", "--deploy", "--fail-level", "WARNING")
        found = set(re.findall(r"^\S+ \((\w+\.\w+)\) ", done.stderr, re.MULTILINE))
        # The static files are collected when the service is built.
        self.assertLessEqual(found, {"operations.W013"}, done.stderr)
        self.assertEqual(done.returncode, int(bool(found)), done.stderr)

    def test_check_deploy_warns_of_variables_that_weaken_the_service(self):
        done = manage("check", "--deploy", **WEAK, REDIS_MAX_CONNECTIONS="5", DATABASE_URL="")
        for number in range(1, 6):
            self.assertIn(f".W{number:03})", done.stderr)

    def test_check_deploy_warns_of_tasks_that_outlast_their_claim(self):
        options = current_app.conf.broker_transport_options
        with mock.patch.dict(options, visibility_timeout=1):
            self.assertIn("operations.W006", deployment_warnings())

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

    def test_check_deploy_judges_the_secret_key(self):
        for key, weak in {
            "qgNwTIUTRQY6l3kZc0yVvDDnV0mGOWkE2TzJ7bBx5nQ=": False,  # as Render makes them
            "0123456789abcdef" + "3c5f9a7be1d204860b7d" * 2: False,
            "q" * 50: True,
            "abc" * 20: True,
            "correct-horse-battery-staple-1-" * 2: True,
            "aabb" * 12 + "ccddeeff": True,
            "qgNwTIUTRQY6l3kZc0yVvDDnV0mGOWkE2TzJ7bBx5nQ"[:43]: True,
            "django-insecure-" + "qgNwTIUTRQY6l3kZc0yVvDDnV0mGOWkE2TzJ7bBx": True,
            "only-for-development" + "qgNwTIUTRQY6l3kZc0yVvDDnV0mGOWkE2TzJ": True,
            "change_me_qgNwTIUTRQY6l3kZc0yVvDDnV0mGOWkE2TzJ7bBx": True,
            "Your Secret Key that is long, and that nobody has changed": True,
        }.items():
            with self.subTest(key), override_settings(SECRET_KEY=key):
                self.assertEqual("operations.W011" in deployment_warnings(), weak)

    def test_check_deploy_warns_of_a_public_database_that_is_not_verified(self):
        public, file = "postgres://u:p@db.example.com/n", __file__
        for url, warned in {
            public: True,
            f"{public}?sslmode=require": True,
            f"{public}?sslmode=verify-full&sslrootcert=system": False,
            f"{public}?sslmode=verify-ca&sslrootcert={file}": False,
            f"{public}?sslrootcert=system": False,
            "postgres://u:p@8.8.8.8/n": True,
            "postgres://u:p@db.internal,db.example.com/n": True,
            "postgres://u:p@db.internal/n?hostaddr=8.8.8.8": True,
            "postgres://u:p@dpg-abc123-a/n": False,
            "postgres://u:p@10.1.2.3/n": False,
            "postgres://u@%2Frun%2Fpostgresql/n": False,
            "sqlite:////srv/db.sqlite3": False,
        }.items():
            with self.subTest(url):
                database = read_database_url("DATABASE_URL", url)
                with mock.patch.dict(settings.DATABASES, default=database):
                    self.assertEqual("operations.W012" in deployment_warnings(), warned)
                    with mock.patch.dict(os.environ, PGSSLMODE="verify-full"):
                        sslmode = "sslmode=require" in url
                        self.assertEqual("operations.W012" in deployment_warnings(), sslmode)

    def test_check_deploy_warns_of_static_files_that_are_not_collected(self):
        storage = "whitenoise.storage.CompressedManifestStaticFilesStorage"
        with tempfile.TemporaryDirectory() as folder:
            storages = settings.STORAGES | {"staticfiles": {"BACKEND": storage}}
            with override_settings(STORAGES=storages, STATIC_ROOT=folder):
                self.assertIn("operations.W013", deployment_warnings())
                Path(folder, "staticfiles.json").write_text('{"version": "1.1", "paths": {}}')
                self.assertNotIn("operations.W013", deployment_warnings())
        self.assertNotIn("operations.W013", deployment_warnings())  # with DEBUG

    def test_check_deploy_warns_of_e_mails_that_are_not_sent(self):
        for name, warned in {"console": True, "locmem": True, "dummy": True, "smtp": False}.items():
            backend = f"django.core.mail.backends.{name}.EmailBackend"
            with self.subTest(name), override_settings(EMAIL_BACKEND=backend):
                self.assertEqual("operations.W003" in deployment_warnings(), warned)

    def test_all_variables_that_are_wrong_are_named_at_once(self):
        wrong = {
            "SECRET_KEY": "",
            "ALLOWED_HOSTS": "https://s3cret.example",
            "DATABASE_URL": "postgres://u:s3cret@h/n?pgbouncer=true",
            "EMAIL_URL": "smtp://u:s3cret@mail.example.com:587/?tls=True",
            "DEFAULT_FROM_EMAIL": "s3cret",
            "CELERY_BROKER_URL": "sentinel://:s3cret@h",
            "PORT": "s3cret",
            "WEB_CONCURRENCY": "0",
        }
        for command in (["manage.py", "check"], ["manage.py", "migrate"], ["-m", "celery", "-A"]):
            arguments = [*command, "config", "beat"] if "celery" in command else command
            with self.subTest(command):
                done = run(sys.executable, *arguments, **wrong)
                self.assertEqual(done.returncode, 2, done.stderr)
                names = [line.split()[0] for line in done.stderr.splitlines()]
                self.assertEqual(sorted(names), sorted(wrong), done.stderr)
                self.assertNotIn("s3c", done.stderr + done.stdout)

    def test_a_platforms_host_name_is_enough(self):
        done = manage("check", ALLOWED_HOSTS="", RENDER_EXTERNAL_HOSTNAME="x.onrender.com")
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_in_development_no_host_needs_to_be_given(self):
        for hosts in ("", "*"):
            done = manage("check", DEBUG="true", ALLOWED_HOSTS=hosts)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_forms_are_taken_from_the_port_of_a_proxy_that_passes_on_the_name_alone(self):
        code = (
            "from django.conf import settings as s; print(s.ALLOWED_HOSTS, s.CSRF_TRUSTED_ORIGINS)"
        )
        hosts = ".example.com,example.org:8443"
        done = manage("shell", "-v", "0", "-c", code, ALLOWED_HOSTS=hosts)
        expected = "['.example.com', 'example.org'] ['https://example.org:8443']"
        self.assertEqual(done.stdout.strip(), expected, done.stderr)

    def test_the_default_database_is_in_this_folder_whatever_its_name(self):
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, "c++ a%20b?c#d'e")
            ignored = shutil.ignore_patterns("node_modules", "tests", ".*", "db.sqlite3")
            shutil.copytree(settings.BASE_DIR, folder, ignore=ignored)
            done = subprocess.run(
                [sys.executable, "manage.py", "migrate", "--verbosity", "0"],
                cwd=folder,
                env=PRODUCTION | {"DATABASE_URL": ""},
                capture_output=True,
                text=True,
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(Path(folder, "db.sqlite3").exists())

    def test_a_variable_that_is_missing_is_named_in_one_line(self):
        for name, line in {
            "SECRET_KEY": "SECRET_KEY is not set",
            "ALLOWED_HOSTS": "ALLOWED_HOSTS is not set",
            "DEFAULT_FROM_EMAIL": "DEFAULT_FROM_EMAIL is not set",
            "CELERY_BROKER_URL": f"{settings.PROVIDERS_URL_NAME} is not set",
        }.items():
            with self.subTest(name):
                done = manage("check", **{name: ""})
                self.assertEqual(done.returncode, 2)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
                self.assertIn(line, done.stderr)


class WebTests(SimpleTestCase):
    """gunicorn.conf.py, as gunicorn reads it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        done = run(sys.executable, "-m", "gunicorn", "--print-config", "config.wsgi")
        cls.printed = done.stdout + done.stderr
        lines = [line.partition("=") for line in done.stdout.splitlines()]
        cls.gunicorn = {name.strip(): value.strip() for name, _, value in lines}

    def test_gunicorn_reads_gunicorn_conf_py(self):
        for name, value in {
            "threads": settings.WEB_THREADS,
            "preload_app": True,
            "control_socket_disable": True,
        }.items():
            with self.subTest(name):
                message = f"{name} in gunicorn.conf.py\n{self.printed}"
                self.assertEqual(self.gunicorn.get(name), str(value), message)

    def test_an_empty_or_wrong_port_is_none_for_gunicorn(self):
        """An empty one counts as not set. A wrong one is refused by the settings, after this."""
        for port, bind in {
            "": "127.0.0.1:8000",
            " ": "127.0.0.1:8000",
            "http": "127.0.0.1:8000",
            "8080": "0.0.0.0:8080",
        }.items():
            with self.subTest(port):
                done = run(
                    sys.executable, "-m", "gunicorn", "--print-config", "config.wsgi", PORT=port
                )
                self.assertRegex(done.stdout, rf"\nbind += \['{bind}'\]\n", done.stderr)

    def test_gunicorn_refuses_a_wrong_port_as_all_others_do(self):
        done = run(sys.executable, "-m", "gunicorn", "config.wsgi", PORT="http")
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stderr, "PORT is not a whole number from 1 to 65535: give one.\n")

    def test_no_command_says_another_number_of_threads(self):
        """Connections to Redis are counted from the number in gunicorn.conf.py."""
        for process in deployment_files.web_processes():
            with self.subTest(str(process)):
                threads = self.options_of(process).threads or settings.WEB_THREADS
                message = f"{process} has {threads} threads: say it in gunicorn.conf.py alone."
                self.assertEqual(threads, settings.WEB_THREADS, message)

    def test_open_requests_end_before_gunicorn_is_killed(self):
        for process in deployment_files.web_processes():
            with self.subTest(str(process)):
                graceful = self.options_of(process).graceful_timeout
                graceful = graceful or int(self.gunicorn["graceful_timeout"])
                message = (
                    f"{process} is killed after {process.seconds_to_stop} s, but open requests get "
                    f"{graceful} s: lower graceful_timeout in gunicorn.conf.py, or grant more."
                )
                self.assertGreater(process.seconds_to_stop, graceful, message)

    def options_of(self, process: deployment_files.Process) -> argparse.Namespace:
        """Return the options of a gunicorn command as gunicorn reads them, None where not given."""
        _, _, arguments = process.command.partition("gunicorn ")
        parser = GunicornConfig().parser()
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                options, _ = parser.parse_known_args(arguments.split())
        except SystemExit:
            reason = said.getvalue().splitlines()[-1]  # below a list of all options
            raise self.failureException(
                f"gunicorn cannot read the command of {process}. {reason}"
            ) from None
        return options


class StopTests(SimpleTestCase):
    """A deploy stops everything, and platforms kill what needs longer than they wait."""

    def test_a_worker_hands_back_its_tasks_before_it_is_killed(self):
        soft_shutdown = current_app.conf.worker_soft_shutdown_timeout
        longest_task = current_app.conf.task_time_limit or 0
        for process in deployment_files.worker_processes():
            with self.subTest(str(process)):
                needed = soft_shutdown if process.hands_back_its_tasks else longest_task
                message = (
                    f"{process} is killed after {process.seconds_to_stop} s, before its tasks are "
                    f"handed back ({needed} s). In supervisord.conf set stopsignal=QUIT, and "
                    "stopwaitsecs above CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT. Elsewhere begin the "
                    "command with `env REMAP_SIGTERM=SIGQUIT`, and raise maxShutdownDelaySeconds "
                    "in render.yaml or STOP_GRACE in tests/deployment_files.py."
                )
                self.assertGreater(process.seconds_to_stop, needed, message)

    def test_supervisord_stops_everything_before_the_platform_kills_it(self):
        """It stops one group of programs after another."""
        groups = deployment_files.supervised_groups()
        waits = [max(program.seconds_to_stop for program in group) for group in groups]
        needed = sum(waits) + SUPERVISORD_STOPS
        granted = self.seconds_for_supervisord()
        message = (
            f"To stop takes up to {needed} s (all stopwaitsecs of supervisord.conf, and "
            f"{SUPERVISORD_STOPS} s for supervisord), but the platform waits {granted} s. Lower "
            "stopwaitsecs, or raise maxShutdownDelaySeconds in render.yaml (at most "
            f"{deployment_files.RENDER_LONGEST_DELAY}), elsewhere STOP_GRACE in "
            "tests/deployment_files.py."
        )
        self.assertLessEqual(needed, granted, message)

    def seconds_for_supervisord(self) -> int:
        processes = deployment_files.blueprint_processes()
        supervised = [process for process in processes if process.is_supervisord]
        delays = [process.seconds_to_stop for process in supervised or processes]
        return max(delays, default=deployment_files.STOP_GRACE)


class QueueTests(SimpleTestCase):
    def test_the_redis_in_render_yaml_never_drops_a_queued_task(self):
        for redis in deployment_files.queues_in_blueprint(settings.PROVIDERS_URL_NAME):
            policy = redis.get("maxmemoryPolicy", deployment_files.RENDER_POLICY)
            message = (
                f"render.yaml: {redis['name']} holds the queue, and drops it when memory is full. "
                f"Write maxmemoryPolicy: noeviction (Render's default is "
                f"{deployment_files.RENDER_POLICY})."
            )
            self.assertFalse(policy.startswith("allkeys"), message)


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
