"""The tests of this folder mostly wait: pytest-xdist runs them side by side."""

import pytest

from harness.faults.stage import Stage


@pytest.fixture
def stage(server_program, deployment, certificates, tmp_path_factory):
    """A `Stage`, on which a test puts a service and does it harm."""
    # A test's own folder has a long name, and the path of supervisord's socket must be short.
    folder = tmp_path_factory.mktemp("stage")
    with Stage(folder, deployment("render_public"), certificates) as stage:
        yield stage
