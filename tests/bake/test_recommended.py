"""`recommended` is one of the other answers, to the byte, so the other two tell all of it."""

import pytest

from harness.answers import ROWS, STRICTNESS


@pytest.mark.parametrize("provider", ROWS)
def test_recommended_is_one_of_the_others_to_the_byte(baked, provider):
    files = {
        strictness: baked(redis_provider=provider, cert_strictness=strictness).files
        for strictness in STRICTNESS
    }
    assert files["recommended"] == files[ROWS[provider]["cert_reqs"]]
    assert files["required"] != files["optional"] != files["none"]
