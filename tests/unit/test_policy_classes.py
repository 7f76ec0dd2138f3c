"""Every combination of answers has one of a few TLS policies, so that few need meet bad servers."""

import shutil
from collections import defaultdict

import pytest

from harness import policy_classes, refusals
from harness.answers import CONTEXT, ONE_AT_A_TIME, PRODUCT, ROWS, SERVICE, TARGETS, resolved
from harness.deployments import target_of
from harness.edits import change
from harness.policy_classes import CLASSES, STRICT, class_of
from harness.rendered_policies import Stores, derived, name_of, policies, rendered_defaults
from harness.tallies import proven


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return Stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def found(stores):
    """{Deployed: what its handshakes depend on} of every combination that is not refused."""
    return policies(ROWS, stores)


def problems(rows, found):
    """What is wrong with a policy: it is in no class, or not in the one that the facts say."""
    wrong = set()
    for each, policy in found.items():
        expected = class_of(rows[each.provider], each.strictness, each.scheme)
        try:
            name = name_of(policy)
        except ValueError as error:
            name = str(error)
        if name != expected:
            wrong.add(f"{each.provider}, {each.strictness}: {expected}, but it is {name}")
    return wrong


def unlike(found):
    """The classes in which not all are alike. They may differ in `optional` for `required`."""
    seen = defaultdict(list)
    for policy in found.values():
        mode = (policy["context"] or {}).get("verify_mode")
        if policy not in seen[name_of(policy), mode]:
            seen[name_of(policy), mode].append(policy)
    return {key: policies for key, policies in seen.items() if len(policies) > 1}


def test_each_combination_has_the_policy_that_its_facts_say(found):
    assert problems(ROWS, found) == set()
    proven(TLS_policies_computed=len(found))


def test_two_of_one_class_differ_in_nothing_that_a_handshake_depends_on(found):
    assert unlike(found) == {}


def test_every_process_of_every_combination_that_can_be_baked_is_among_them(found):
    reachable = {
        tuple(answers.values())
        for answers in PRODUCT
        if answers["deploy_target"] in ROWS[answers["redis_provider"]]["reachable_from"]
    }
    assert {(each.provider, each.strictness, each.target) for each in found} == reachable
    shared = {each.process for each in found if each.target == "render_services"}
    assert shared == {"my-service", "my-service-worker", "my-service-beat"}


def test_optional_differs_from_required_in_its_name_only(found):
    """Python's ssl asks for the same of a server, which always sends a certificate."""
    by_mode = defaultdict(dict)
    for policy in found.values():
        if policy["context"]:
            context = dict(policy["context"])
            mode = context.pop("verify_mode")
            by_mode[mode][name_of(policy)] = policy | {"context": context}
    assert by_mode["CERT_OPTIONAL"] == by_mode["CERT_REQUIRED"]
    assert by_mode["CERT_REQUIRED"].keys() == {"system_ca", "given_ca", "pinned"}


@pytest.mark.parametrize("name", CLASSES)
def test_who_meets_bad_servers_is_of_the_class(name, found):
    for strictness, provider in CLASSES[name].met_by.items():
        answer = policy_classes.rendered_strictness(ROWS[provider], strictness)
        met = {
            name_of(policy)
            for each, policy in found.items()
            if each.scheme == "rediss"
            and (each.provider, each.strictness) == (provider, strictness)
        }
        assert met == {name}
        # The answer that this row is baked with gives that strictness, or a pin will.
        rendered = resolved(redis_provider=provider, cert_strictness=answer)["__cert_reqs"]
        assert rendered == strictness or policy_classes.pinned_itself(ROWS[provider])


def test_those_who_meet_bad_servers_have_every_target():
    met = {provider for each in CLASSES.values() for provider in each.met_by.values()}
    assert {target_of(provider) for provider in met} == set(TARGETS)


def test_every_class_that_verifies_meets_them_with_both_answers():
    met = {name: tuple(each.met_by) for name, each in CLASSES.items()}
    assert met.pop("plain") == ()
    assert met.pop("not_verified") == ("none",)
    assert set(met.values()) == {STRICT}


def test_the_rows_of_a_class_refuse_the_same_kinds_of_servers():
    for strictness in STRICT:
        kinds = defaultdict(set)
        for row in ROWS.values():
            kinds[class_of(row, strictness, "rediss")].add(tuple(refusals.refused(row)))
        assert {len(each) for each in kinds.values()} == {1}


# What would be noticed


@pytest.mark.parametrize(
    ("provider", "fact", "wrong"),
    [
        # With neither a name nor a pin to go by, the service does not start.
        (
            "upstash",
            {"check_hostname": False},
            "upstash, required: pinned, but it is refused: REDIS_CERT_REQS=required without the",
        ),
        (
            "upstash",
            {"cert_reqs": "maybe"},
            "upstash, recommended: system_ca, but it is refused: REDIS_CERT_REQS is not one of",
        ),
        # Only a row that is pinned itself can be told by its environment to verify.
        (
            "upstash",
            {"cert_reqs": "none"},
            "upstash, required: system_ca, but it is not_verified",
        ),
    ],
)
def test_a_row_with_another_combination_of_facts_would_be_noticed(provider, fact, wrong, stores):
    rows = ROWS | {provider: ROWS[provider] | fact}
    assert any(problem.startswith(wrong) for problem in problems(rows, policies(rows, stores)))


@pytest.mark.parametrize(
    ("provider", "fact", "name"),
    [
        ("self_hosted", {"ca": "system"}, "system_ca"),
        ("upstash", {"ca": "own"}, "given_ca"),
        ("scalingo", {"check_hostname": False}, "pinned"),
    ],
)
def test_a_changed_fact_moves_a_row_to_another_class(provider, fact, name, stores):
    rows = ROWS | {provider: ROWS[provider] | fact}
    moved = policies(rows, stores)
    assert problems(rows, moved) == set()
    was = class_of(ROWS[provider], "required", "rediss")
    assert f"{provider}, required: {was}, but it is {name}" in problems(ROWS, moved)


# {what the service no longer does: (what is said of it, the line that does it, another line)}
WEAKENED = {
    "the host name is compared": (
        "system_ca, but it is none of",
        "context.check_hostname = trust.verified",
        "context.check_hostname = False",
    ),
    "the pin is all that is trusted": (
        "pinned, but it is given_ca",
        "trusting_the_pins(trust) if trust.pinned else trusting_the_system(trust)",
        "trusting_the_system(trust)",
    ),
    "a given CA is trusted": (
        "given_ca, but it is system_ca",
        "if trust.verified and trust.ca_certs:",
        "if not trust.verified and trust.ca_certs:",
    ),
    "old TLS is refused": (
        "not_verified, but it is none of",
        "context.minimum_version = ssl.TLSVersion.TLSv1_2",
        "context.minimum_version = ssl.TLSVersion.TLSv1",
    ),
}


@pytest.mark.parametrize("strength", WEAKENED)
def test_a_weaker_service_would_be_noticed(strength, stores, tmp_path):
    wrong, old, new = WEAKENED[strength]
    for folder in ("config", "redis_connection"):
        shutil.copytree(SERVICE / folder, tmp_path / folder)
    change(tmp_path / "redis_connection" / "context.py", {old: new})
    found = policies(ROWS, stores, tmp_path)
    assert any(wrong in problem for problem in problems(ROWS, found))


def test_a_difference_within_a_class_would_be_noticed(found):
    each = next(each for each in found if each.scheme == "rediss")
    other = found[each] | {"context": found[each]["context"] | {"verify_flags": 0}}
    assert len(unlike(found | {each: other})) == 1


# How they are computed


@pytest.mark.parametrize("answers", ONE_AT_A_TIME, ids=str)
def test_the_defaults_are_those_that_cookiecutter_renders(answers):
    context = resolved(**answers)
    assert rendered_defaults(
        CONTEXT | {key: context[key] for key in CONTEXT if key in context}
    ) == {variable: context[name] for variable, name in derived().items()}
