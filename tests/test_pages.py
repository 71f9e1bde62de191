"""The whole tenant: pages, renewed tokens, a Graph that is busy for a moment."""

import json

import pytest
from conftest import CALL_FAILED
from tenant.proxy import HANG_UP, Answer, json_answer
from tenant.scenarios import SCENARIOS

ASTRAY = CALL_FAILED + "the link to the next page leads astray: "
GRAPH = "graph.microsoft.com"
USERS = "https://{}/v1.0/users".format(GRAPH)


def ids(result):
    """Return the numbers of the users printed."""
    assert (result.status, result.stderr) == (0, "")
    return [int(user["id"][-12:]) for user in json.loads(result.stdout)["value"]]


@pytest.mark.py27
def test_1234_users_come_once_each_and_in_order_on_one_connection(tenant, run):
    SCENARIOS["many-users"](tenant)
    result = run()
    assert ids(result) == list(range(1, 1235))
    assert "@odata.nextLink" not in json.loads(result.stdout)
    assert tenant.steps().count("graph") == 13
    assert tenant.proxy.connections.count(GRAPH) == 1
    assert tenant.grants() == ["password"]


def test_pages_make_one_document(tenant, run, document):
    tenant.directory.size = 250
    assert run() == (0, document(), "")


def test_a_larger_page_needs_fewer_requests(tenant, run):
    tenant.directory.size = 2500
    result = run(endpoint=USERS + "?$top=999&$select=id,displayName")
    assert ids(result) == list(range(1, 2501))
    assert set(json.loads(result.stdout)["value"][0]) == {"id", "displayName"}
    assert tenant.steps().count("graph") == 3


@pytest.fixture
def pages(tenant):
    """Return a function that lets Graph give these pages in turn."""

    def pages(*answers):
        tenant.replace("graph", *(json_answer(a) if isinstance(a, dict) else a for a in answers))

    return pages


def link(n):
    """Return a link to a page of the number."""
    return "{}?$skiptoken={}".format(USERS, n)


def test_an_empty_page_may_stand_in_between(pages, run, document):
    pages(
        {"value": [{"id": 1}], "@odata.nextLink": link(2)},
        {"value": [], "@odata.nextLink": link(3)},
        {"value": [{"id": 3}]},
    )
    assert run() == (0, document({"value": [{"id": 1}, {"id": 3}]}), "")


def test_other_keys_are_kept_and_the_last_page_wins(pages, run, document):
    pages(
        {"@odata.context": "c", "@odata.count": 2, "value": [1], "@odata.nextLink": link(2)},
        {"@odata.count": 3, "value": [2], "@odata.deltaLink": "d"},
    )
    expected = {"@odata.context": "c", "@odata.count": 3, "value": [1, 2], "@odata.deltaLink": "d"}
    assert run() == (0, document(expected), "")


def test_a_host_is_the_same_in_capitals(pages, run):
    pages({"value": [1], "@odata.nextLink": link(2).replace("//g", "//G")}, {"value": [2]})
    result = run(endpoint=USERS.replace("https", "HTTPS"))
    assert json.loads(result.stdout)["value"] == [1, 2]


@pytest.mark.py27
@pytest.mark.parametrize(
    "astray",
    [
        "https://sts.example.com/v1.0/users",
        "https://{}.example.com/v1.0/users".format(GRAPH),
        "http://{}/v1.0/users?a".format(GRAPH),
        "/v1.0/users?$skiptoken=2",
        USERS,
        "",
    ],
)
def test_a_link_that_leads_astray_gets_no_token(tenant, pages, run, astray):
    pages({"value": [1], "@odata.nextLink": astray})
    assert run() == (1, "", ASTRAY + astray + "\n")
    assert len(tenant.requests) == 5


@pytest.mark.parametrize("astray", [None, 1, {}, "https://["])
def test_a_link_that_is_none_ends_in_words(tenant, pages, run, astray):
    pages({"value": [1], "@odata.nextLink": astray})
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert len(tenant.requests) == 5


@pytest.mark.py27
def test_a_link_that_repeats_ends_the_run_at_once(tenant, run):
    SCENARIOS["endless-pages"](tenant)
    assert run() == (1, "", ASTRAY + link("again") + "\n")
    assert tenant.steps().count("graph") == 2


@pytest.mark.py27
@pytest.mark.parametrize("value", [None, {}, "users"])
@pytest.mark.parametrize("place", [0, 1])
def test_a_page_without_its_list_is_told(pages, run, value, place):
    answers = [{"value": [1], "@odata.nextLink": link(2)}, {"value": [2]}]
    answers[place]["value"] = value
    pages(*answers)
    assert run() == (1, "", CALL_FAILED + "a page comes without its list\n")


@pytest.mark.py27
def test_a_page_refused_leaves_stdout_empty(tenant, pages, run):
    tenant.directory.size = 500
    refusal = tenant.graph.error(403, "Authorization_RequestDenied", "No more.")
    pages(tenant.graph.on_graph, tenant.graph.on_graph, refusal)
    result = run()
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith(CALL_FAILED + "Forbidden\nContent: {")
    assert tenant.steps().count("graph") == 3


# A listing that outlives its token.


@pytest.mark.py27
def test_a_token_that_expires_is_renewed_without_the_password(tenant, run):
    SCENARIOS["token-expires"](tenant)
    assert ids(run()) == list(range(1, 501))
    assert tenant.grants() == ["password"] + 4 * ["refresh_token"]


def test_a_token_that_lasts_is_not_renewed(tenant, run):
    tenant.directory.size = 300
    assert ids(run()) == list(range(1, 301))
    assert tenant.grants() == ["password"]


@pytest.mark.py27
@pytest.mark.parametrize("cause", ["alternate login", "no id token", "refresh refused"])
def test_the_password_is_sent_once_where_the_cache_has_nothing_to_give(tenant, run, cause):
    tenant.directory.size, tenant.entra.token_life = 300, 60
    if cause == "alternate login":
        SCENARIOS["alternate-login"](tenant)
    elif cause == "no id token":
        tenant.entra.sends_id_token = False
    else:
        SCENARIOS["sign-in-ended"](tenant)
    assert ids(run()) == list(range(1, 301))
    assert tenant.grants().count("password") == 1


# Weather; what waits for real is in test_waiting.py.


@pytest.mark.py27
@pytest.mark.parametrize("answer", [Answer(429), Answer(503), Answer(504), HANG_UP])
def test_a_busy_or_broken_graph_is_asked_again(tenant, run, answer):
    tenant.replace("graph", answer, then_happy=True)
    assert ids(run()) == [1, 2, 3, 4, 5]
    assert tenant.steps().count("graph") == 2
    assert tenant.grants() == ["password"]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 501])
def test_what_is_no_weather_is_not_asked_again(tenant, run, status):
    tenant.replace("graph", Answer(status, b"{}"), then_happy=True)
    assert run().status == 1
    assert tenant.steps().count("graph") == 1
