"""The tests of this folder mostly wait: pytest-xdist runs them side by side."""

import pytest

from harness.faults.stage import Stage


@pytest.fixture
def stage(server_program, deployment, certificates, tmp_path):
    """A `Stage`, on which a test puts a service and does it harm."""
    with Stage(tmp_path / "stage", deployment("render_public"), certificates) as stage:
        yield stage
