"""What a Redis, a network, a clock, a mail server and a deploy can do to a running service."""

import pytest

pytest.register_assert_rewrite("harness.faults.stage", "harness.faults.refusing")
