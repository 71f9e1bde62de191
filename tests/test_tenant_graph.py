"""The local tenant's Graph, its server, and its interface for the tests."""

import base64
import json
import re
import shutil

import pytest
import requests
from helpers import GRAPH, NO_WAITS, USERS, posix, users_of
from tenant.scenarios import SCENARIOS
from tenant_client import (
    GRAPH_URL,
    LOGIN_URL,
    OWN,
    TOKEN_URL,
    ask,
    get,
    new_session,
    own_tenant,
    post,
    run_program,
    sign_in,
)

CLAIMS = {"aud": GRAPH, "iat": 4e9, "exp": 5e9, "scp": ["User.Read.All"]}
FORGED = "Bearer at-" + base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).decode()


def get_users(query="", users=None, permission="User.Read.All", **headers):
    """Sign in, and return the answer to a request for users."""
    return ask(sign_in(permission), get(USERS + query, **headers), users=users)


# Graph

UNSUPPORTED = (400, "Request_UnsupportedQuery")
DENIED = (403, "Authorization_RequestDenied")
INVALID_TOKEN = (401, "InvalidAuthenticationToken")
BASIC, MANAGEMENT = sign_in(), sign_in("https://management.azure.com/.default")
FULL = sign_in("User.Read.All")
REFUSED = {  # The requests, the answer's status and code, and a word in the message.
    "no token": ([get(USERS)], INVALID_TOKEN, "empty"),
    "forged token": ([get(USERS, Authorization=FORGED)], INVALID_TOKEN, "parsing"),
    "resource": ([MANAGEMENT, get(USERS)], INVALID_TOKEN, "audience"),
    "permission": ([sign_in("User.Read"), get(USERS)], DENIED, "privileges"),
    "filter": ([BASIC, get(USERS + "?$filter=accountEnabled eq true")], DENIED, "privileges"),
    "segment": ([BASIC, get(GRAPH_URL + "/v1.0/user")], (400, "BadRequest"), "segment 'user'"),
    "version": ([BASIC, get(GRAPH_URL + "/v2.0/users")], (400, "BadRequest"), "Invalid version"),
    "no version": ([BASIC, get(GRAPH_URL + "/users")], (400, "BadRequest"), "Invalid version"),
    "property": ([BASIC, get(USERS + "?$select=id,departmnt")], (400, "BadRequest"), "'departmnt'"),
    "premium property": (
        [FULL, get(USERS + "?$select=signInActivity")],
        (403, "Authentication_RequestFromNonPremiumTenantOrB2CTenant"),
        "premium",
    ),
    "skip token": ([BASIC, get(USERS + "?$skiptoken=x")], (400, "BadRequest"), "$skiptoken"),
    "search": ([FULL, get(USERS + '?$search="a"')], UNSUPPORTED, "ConsistencyLevel"),
    "endsWith": ([FULL, get(USERS + "?$filter=endsWith(mail,'a')")], UNSUPPORTED, "'endsWith'"),
    "ne": ([FULL, get(USERS + "?$filter=userType ne 'Guest'")], UNSUPPORTED, "'ne'"),
    "not": ([FULL, get(USERS + "?$filter=not(accountEnabled eq true)")], UNSUPPORTED, "'not'"),
}
for _top in ("0", "1000", "-1", "all", ""):
    REFUSED["page size " + _top] = ([BASIC, get(USERS + "?$top=" + _top)], UNSUPPORTED, "page size")


@pytest.mark.parametrize("requests_, refusal, word", REFUSED.values(), ids=REFUSED)
def test_graph_refuses_what_the_real_service_refuses(requests_, refusal, word):
    status, answer = ask(*requests_)
    assert (status, answer["error"]["code"]) == refusal
    assert word in answer["error"]["message"]


EVENTUAL = {"ConsistencyLevel": "eventual"}
ASSERTION = {"client_assertion": "x", "client_assertion_type": "jwt"}
NOT_IMPLEMENTED = {  # The request, and a word in the message.
    "grant type": (sign_in(grant_type="authorization_code"), "authorization_code"),
    "client secret": (sign_in(client_secret="secret"), "client_secret"),
    "user with an assertion": (sign_in(**ASSERTION), "client_assertion"),
    "no permission": (sign_in("profile"), "without permissions"),
    "authorize": (get(LOGIN_URL + "/oauth2/v2.0/authorize"), "/oauth2/v2.0/authorize"),
    "version 1": (get(LOGIN_URL + "/oauth2/token"), "/oauth2/token"),
    "method of Entra": (get(TOKEN_URL), "GET " + TOKEN_URL),
    "path": (get(GRAPH_URL + "/v1.0/groups"), "GET /v1.0/users and GET /v1.0/me"),
    "beta": (get(GRAPH_URL + "/beta/users"), "/beta/users"),
    "one user": (get(USERS + "/1"), "/v1.0/users/1"),
    "method of Graph": (post(USERS, {}), "POST /v1.0/users"),
    "option of me": (get(GRAPH_URL + "/v1.0/me?$top=5"), "$top"),
    "top": (get(USERS + "?top=5"), "top"),
    "orderby": (get(USERS + "?$orderby=displayName"), "$orderby"),
    "expand": (get(USERS + "?$expand=manager"), "$expand"),
    "count": (get(USERS + "?$count=true"), "$count"),
    "property": (get(USERS + "?$select=manager"), "manager"),
    "all properties": (get(USERS + "?$select=*"), "*"),
    "startswith": (get(USERS + "?$filter=startswith(displayName,'Z')"), "startswith"),
    "or": (get(USERS + "?$filter=userType eq 'Guest' or accountEnabled eq true"), " or "),
    "empty filter": (get(USERS + "?$filter="), "filter"),
    "search": (get(USERS + '?$search="a"', **EVENTUAL), "$search"),
    "ne": (get(USERS + "?$filter=userType ne 'Guest'", **EVENTUAL), " ne "),
}


@pytest.mark.parametrize("request_, word", NOT_IMPLEMENTED.values(), ids=NOT_IMPLEMENTED)
def test_what_is_not_implemented_is_refused_with_a_message_that_says_so(request_, word):
    status, answer = ask(FULL, request_)
    message = answer.get("error_description") or answer["error"]["message"]
    assert (status in (400, 501), "The local tenant" in message) == (True, True)
    assert word in message


def test_basic_permission_fills_only_the_basic_profile():
    _, answer = get_users(permission="User.ReadBasic.All")
    filled = {name for name, value in answer["value"][0].items() if value}
    assert filled == {"displayName", "givenName", "id", "mail", "surname", "userPrincipalName"}
    assert len(answer["value"][0]) == 11
    _, answer = get_users("?$select=DepartMent, accountEnabled", permission="User.ReadBasic.All")
    assert answer["value"][0] == {"department": None, "accountEnabled": None}


def test_full_permission_fills_the_default_properties_and_the_selected_ones():
    user = get_users()[1]["value"][0]
    assert user["jobTitle"] and user["businessPhones"] and user["officeLocation"]
    assert "department" not in user
    names = "department,accountEnabled,userType,createdDateTime,onPremisesSamAccountName,"
    names += "usageLocation,employeeId,companyName"
    user = get_users("?$select=" + names)[1]["value"][0]
    assert (set(user), all(user.values())) == (set(names.split(",")), True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", user["createdDateTime"])


def test_next_link_keeps_the_query():
    _, first = get_users("?$top=2&$select=id,userType&$filter=userType eq 'Guest'", users=15)
    _, second = ask(FULL, get(first["@odata.nextLink"]), users=15)
    users = first["value"] + second["value"]
    assert [set(user) for user in users] == [{"id", "userType"}] * 3
    assert "@odata.nextLink" not in second


@pytest.mark.parametrize(
    "filter_text, expected",
    [
        ("userType eq 'Guest'", [("Guest", True)]),
        ("accountEnabled eq false", [("Member", False)]),
        ("userType eq 'Member' and accountEnabled eq true", [("Member", True)] * 3),
    ],
)
def test_filter_returns_the_users_that_match(filter_text, expected):
    _, answer = get_users("?$select=userType,accountEnabled&$filter=" + filter_text)
    assert [(user["userType"], user["accountEnabled"]) for user in answer["value"]] == expected


def test_me_returns_the_user_who_signs_in():
    status, answer = ask(sign_in("User.Read"), get(GRAPH_URL + "/v1.0/me"))
    assert (status, answer["userPrincipalName"]) == (200, OWN["username"])
    assert answer["jobTitle"]


# Scenarios


@pytest.mark.parametrize("name", [n for n, scenario in SCENARIOS.items() if scenario.succeeds])
def test_scenario_lets_the_sample_succeed(tenant, run, name):
    SCENARIOS[name](tenant)
    assert len(users_of(run(constants=NO_WAITS))) == tenant.directory.user_count


# The sample would retry these answers for many seconds, so the test uses another client.
@pytest.mark.parametrize(
    "name, statuses", [("throttled", [429, 429, 200]), ("graph-errors", [500, 502, 200])]
)
def test_scenario_gives_its_answers_in_order(name, statuses):
    with own_tenant(name) as tenant:
        session = new_session(tenant)
        add_access_token(session)
        assert [session.get(USERS).status_code for _ in statuses] == statuses


# The server


def test_connection_to_another_host_or_port_is_refused():
    with own_tenant() as tenant:
        session = new_session(tenant)
        assert session.get("http://example.com/").status_code == 502
        for url in ("https://example.com/", GRAPH_URL + ":8443/v1.0/users"):
            with pytest.raises(requests.exceptions.ProxyError):
                session.get(url)
        assert tenant.server.connections == ["example.com:443", "graph.microsoft.com:8443"]
        assert tenant.steps() == []
        assert session.get("https://sts.example.com/").status_code == 501


@posix  # On Windows, curl trusts only the certificates in the Windows certificate store.
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_reaches_graph(tenant):
    status, stdout, stderr = run_program("curl", "-sS", USERS, tenant=tenant)
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["error"]["code"] == "InvalidAuthenticationToken"


@pytest.mark.parametrize("length", ["abc", "-1"])
def test_invalid_content_length_gets_400(tenant, length):
    response = new_session(tenant).get(USERS, headers={"Content-Length": length}, timeout=30)
    assert response.status_code == 400


# The interface for other tests


def add_access_token(session):
    """Sign in, and let the session send the access token."""
    _, url, form, _ = sign_in()
    response = session.post(url, form).json()
    session.headers["Authorization"] = "Bearer " + response["access_token"]


def test_unknown_step_cannot_be_replaced():
    with pytest.raises(ValueError):
        own_tenant().replace("grpah", lambda request: None)


def test_exception_in_a_service_is_printed(tenant, capfd):
    def broken_answer(request):
        raise OSError("broken answer")

    tenant.replace("graph", broken_answer)
    assert new_session(tenant).get(USERS).status_code == 500
    assert "broken answer" in capfd.readouterr().err
