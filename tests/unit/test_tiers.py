"""The command line of ./script/test, after the installation."""

import pytest

from script import tiers


@pytest.mark.parametrize(
    ("line", "named", "options"),
    [
        ("", ["unit", "bake", "live"], []),
        ("--all", ["unit", "bake", "live"], ["--all"]),
        ("-x --durations=9", ["unit", "bake", "live"], ["-x", "--durations=9"]),
        ("live", ["live"], []),
        ("live unit", ["unit", "live"], []),
        ("bake --all -k upstash", ["bake"], ["--all", "-k", "upstash"]),
    ],
)
def test_a_line_names_tiers_and_then_options_of_pytest(line, named, options):
    assert tiers.chosen(line.split()) == (named, options)


def test_a_word_that_is_no_tier_is_refused():
    with pytest.raises(SystemExit, match="'fast' is no tier and no path: see ./script/test --help"):
        tiers.chosen(["unit", "fast"])


def test_a_red_tier_makes_the_whole_red_and_the_others_run(monkeypatch, capfd):
    monkeypatch.setattr(tiers, "command_of", lambda tier, options: ["test", tier, "=", "live"])
    monkeypatch.setattr(tiers.redis_server, "find_server", lambda: None)
    assert tiers.main(["bake", "live"]) == 1
    said = capfd.readouterr().out
    assert "bake: RED" in said
    assert "live: green" in said
    assert said.endswith("bake, live: RED: bake\n")
    assert "THE LIVE TESTS WERE SKIPPED for want of a redis-server" in said
    assert tiers.main(["live"]) == 0
