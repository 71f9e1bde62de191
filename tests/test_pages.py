"""The whole tenant, in any weather: pages, renewed tokens, retries."""

import json
import time

import pytest
from conftest import CALL_FAILED
from local_tenant import ADFS, GRAPH, HANG_UP, SCENARIOS, Answer

ASTRAY = CALL_FAILED + "the link to the next page leads astray: "
USERS = "https://{}/v1.0/users".format(GRAPH)


def ids(result):
    """Return the numbers of the users printed."""
    assert (result.status, result.stderr) == (0, "")
    return [int(user["id"][-12:]) for user in json.loads(result.stdout)["value"]]


@pytest.mark.py27
def test_1234_users_come_once_each_and_in_order_on_one_connection(tenant, run, document):
    tenant.users = 1234
    result = run()
    assert ids(result) == list(range(1, 1235))
    assert "@odata.nextLink" not in json.loads(result.stdout)
    assert tenant.steps().count("graph") == 13
    assert tenant.connections.count(GRAPH) == 1
    assert tenant.grants() == ["password"]


def test_pages_make_one_document(tenant, run, document):
    tenant.users = 250
    assert run() == (0, document(), "")


def test_a_larger_page_needs_fewer_requests(tenant, run):
    tenant.users = 2500
    result = run(endpoint=USERS + "?$top=999&$select=id,displayName")
    assert ids(result) == list(range(1, 2501))
    assert set(json.loads(result.stdout)["value"][0]) == {"id", "displayName"}
    assert tenant.steps().count("graph") == 3


@pytest.fixture
def pages(tenant):
    """Return a function that lets Graph give these pages in turn."""

    def pages(*answers):
        tenant.replace("graph", *(tenant.json(a) if isinstance(a, dict) else a for a in answers))

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


@pytest.mark.parametrize(
    "same", [USERS.replace("https://g", "HTTPS://G"), USERS.replace(".com", ".com:443")]
)
def test_case_and_the_default_port_do_not_make_another_origin(tenant, pages, run, same):
    pages({"value": [1], "@odata.nextLink": same + "?$skiptoken=2"}, {"value": [2]})
    assert json.loads(run().stdout)["value"] == [1, 2]


@pytest.mark.py27
@pytest.mark.parametrize(
    "astray",
    [
        "https://{}/v1.0/users".format(ADFS),
        "https://{}.example.com/v1.0/users".format(GRAPH),
        "https://user:password@{}/v1.0/users?a".format(GRAPH),
        "https://@{}/v1.0/users?a".format(GRAPH),
        "https://{}\\@{}/v1.0/users".format(GRAPH, ADFS),
        "https://{}:8443/v1.0/users".format(GRAPH),
        "http://{}/v1.0/users?a".format(GRAPH),
        "/v1.0/users?$skiptoken=2",
        USERS,
        "",
        None,
        1,
        [],
        {},
    ],
)
def test_a_link_that_leads_astray_gets_no_token(tenant, pages, run, astray):
    pages({"value": [1], "@odata.nextLink": astray})
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(ASTRAY)
    assert [r.step for r in tenant.requests].count("graph") == 1
    assert len(tenant.requests) == 5


@pytest.mark.parametrize("astray", ["https://[", "https://{}:port/".format(GRAPH)])
def test_a_link_that_cannot_be_read(tenant, pages, run, astray):
    pages({"value": [1], "@odata.nextLink": astray})
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert len(tenant.requests) == 5


@pytest.mark.py27
def test_a_link_that_repeats_ends_the_run_at_once(tenant, run):
    SCENARIOS["endless-pages"](tenant)
    result = run()
    assert (result.status, result.stderr) == (1, ASTRAY + link("again") + "\n")
    assert tenant.steps().count("graph") == 2


@pytest.mark.py27
@pytest.mark.parametrize("value", [None, {}, "users", 1])
def test_a_later_page_without_its_list(pages, run, value):
    pages({"value": [1], "@odata.nextLink": link(2)}, {"value": value})
    assert run() == (1, "", CALL_FAILED + "a page comes without its list\n")


def test_a_first_page_without_its_list(pages, run):
    pages({"@odata.nextLink": link(2)}, {"value": [1]})
    assert run() == (1, "", CALL_FAILED + "a page comes without its list\n")


@pytest.mark.py27
def test_a_page_refused_leaves_stdout_empty(tenant, pages, run):
    refusal = tenant.graph_error(None, 403, "Authorization_RequestDenied", "No more.")
    tenant.users = 500
    tenant.replace("graph", tenant.on_graph, tenant.on_graph, refusal)
    result = run()
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith(CALL_FAILED + "Forbidden\nContent: {")
    assert tenant.steps().count("graph") == 3


@pytest.mark.slow
@pytest.mark.parametrize("port, other", [("", ":443"), (":443", "")])
def test_a_page_at_another_spelling_of_the_origin_is_asked_again(tenant, run, port, other):
    first = {"value": [1], "@odata.nextLink": "https://{}{}/v1.0/users?a".format(GRAPH, other)}
    last = tenant.json({"value": [2]})
    tenant.replace("graph", tenant.json(first), Answer(429), HANG_UP, last)
    result = run(endpoint="https://{}{}/v1.0/users".format(GRAPH, port))
    assert json.loads(result.stdout)["value"] == [1, 2]
    assert tenant.steps().count("graph") == 4


# A listing that outlives its token.


@pytest.mark.py27
def test_a_token_that_expires_is_renewed_without_the_password(tenant, run):
    SCENARIOS["token-expires"](tenant)
    assert ids(run()) == list(range(1, 501))
    assert tenant.grants() == ["password"] + 4 * ["refresh_token"]


@pytest.mark.slow
def test_a_token_of_one_second_is_renewed_while_pages_take_longer(tenant, run):
    tenant.users, tenant.token_life, tenant.delay = 400, 1, 0.6
    assert ids(run()) == list(range(1, 401))
    assert tenant.grants() == ["password"] + 3 * ["refresh_token"]


def test_a_token_that_lasts_is_not_renewed(tenant, run):
    tenant.users = 300
    assert ids(run()) == list(range(1, 301))
    assert tenant.grants() == ["password"]


@pytest.mark.py27
@pytest.mark.parametrize("cause", ["alternate login", "no id token", "refresh refused"])
def test_the_password_is_sent_once_where_the_cache_has_nothing_to_give(tenant, run, cause):
    tenant.users, tenant.token_life = 300, 60
    if cause == "alternate login":
        SCENARIOS["alternate-login"](tenant)
    elif cause == "no id token":
        tenant.sends_id_token = False
    else:
        revoked = tenant.entra_error(Answer(), 50173, "The provided grant has expired.")
        tenant.replace("token", tenant.on_token, revoked)
    assert ids(run()) == list(range(1, 301))
    assert tenant.grants().count("password") == 1


# Weather.


@pytest.mark.py27
@pytest.mark.parametrize("status", [429, 503, 504])
def test_a_busy_graph_is_asked_again(tenant, run, document, status):
    tenant.replace("graph", Answer(status), then_happy=True)
    assert run().status == 0
    assert tenant.steps().count("graph") == 2
    assert tenant.steps().count("token") == 1


@pytest.mark.parametrize("header", ["soon", "-1", "1.5", "Sun, 99 Foo 2026", "0", ""])
def test_an_unreadable_retry_after_is_as_none(tenant, run, document, header):
    tenant.replace("graph", Answer(429, b"", {"Retry-After": header}), then_happy=True)
    assert run() == (0, document(), "")
    assert tenant.steps().count("graph") == 2


@pytest.mark.py27
def test_a_broken_connection_is_made_anew(tenant, run):
    tenant.users = 200
    tenant.replace("graph", tenant.on_graph, HANG_UP, then_happy=True)
    assert ids(run()) == list(range(1, 201))
    assert tenant.connections.count(GRAPH) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500, 501])
def test_what_is_no_weather_is_not_asked_again(tenant, run, status):
    tenant.replace("graph", Answer(status, b"{}"), then_happy=True)
    assert run().status == 1
    assert tenant.steps().count("graph") == 1


@pytest.mark.slow
def test_retry_after_is_waited_for(tenant, run, document):
    SCENARIOS["throttled"](tenant)
    arrived, answer = [], tenant.answer
    tenant.answer = lambda request: arrived.append(time.monotonic()) or answer(request)
    assert run() == (0, document(), "")
    assert tenant.steps().count("graph") == 3
    assert min(arrived[-2] - arrived[-3], arrived[-1] - arrived[-2]) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 503, 504])
def test_a_graph_that_stays_busy_is_asked_six_times_and_then_shown(tenant, run, status):
    tenant.replace("graph", tenant.graph_error(None, status, "Busy", "Come back later."))
    result = run()
    assert (result.status, result.stdout) == (1, "")
    assert '"message": "Come back later."' in result.stderr
    assert tenant.steps().count("graph") == 6


@pytest.mark.slow
def test_a_connection_that_breaks_and_breaks_is_told(tenant, run):
    tenant.replace("graph", HANG_UP)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert tenant.steps().count("graph") == 6
