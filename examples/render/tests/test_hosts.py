"""What becomes of a request by its Host and Origin headers."""

import subprocess
import sys

from django.conf import settings
from django.test import Client, TestCase, override_settings
from django.urls import reverse

from .test_deployment import PRODUCTION

PROXY = {"x-forwarded-proto": "https"}


class OriginTests(TestCase):
    """Forms are taken from the host of the request, and from no other that is allowed."""

    url = reverse("login")

    def post(self, host: str, origin: str) -> int:
        client = Client(enforce_csrf_checks=True, headers=PROXY | {"host": host})
        page = client.get(self.url)
        form = {"username": "ada", "password": "x"}
        form["csrfmiddlewaretoken"] = page.context["csrf_token"]
        return client.post(self.url, form, headers={"origin": origin}).status_code

    @override_settings(
        ALLOWED_HOSTS=[".example.com", "example.org"],
        CSRF_TRUSTED_ORIGINS=["https://example.org:8443"],
    )
    def test_which_origins_are_taken(self):
        for host, origin in (
            ("www.example.com", "https://www.example.com"),
            ("www.example.com:8443", "https://www.example.com:8443"),
            ("example.org", "https://example.org"),
            ("example.org", "https://example.org:8443"),
        ):
            with self.subTest(host=host, origin=origin):
                self.assertEqual(self.post(host, origin), 200)
        for host, origin in (
            ("example.org", "https://example.org:9443"),
            ("www.example.com", "https://evil.example.com"),
            ("www.example.com", "https://example.com"),
            ("www.example.com", "http://www.example.com"),
            ("example.org", "https://www.example.com"),
        ):
            with self.subTest(host=host, origin=origin), self.assertLogs("django.security.csrf"):
                self.assertEqual(self.post(host, origin), 403)


class WrongHostTests(TestCase):
    def test_a_wrong_host_is_one_line_of_the_log(self):
        code = "from django.test import Client; c = Client(headers={'host': 'evil.example'})"
        code += "; print(c.get('/', secure=True).status_code)"
        done = subprocess.run(
            [sys.executable, "manage.py", "shell", "-v", "0", "--no-imports", "-c", code],
            cwd=settings.BASE_DIR,
            env=PRODUCTION,
            capture_output=True,
            text=True,
        )
        line, status = done.stdout.splitlines()
        self.assertEqual(status, "400")
        self.assertIn("Invalid HTTP_HOST header: 'evil.example'", line)
        self.assertNotIn("Traceback", done.stderr)
