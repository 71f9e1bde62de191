"""The local tenant's Graph and its server, and what isn't implemented."""

import json
import shutil

import pytest
import requests
from helpers import GRAPH, NO_WAITS, USERS, posix, users_of
from tenant import LocalTenant
from tenant.directory import b64
from tenant.scenarios import SCENARIOS
from tenant_client import (
    GRAPH_URL,
    LOGIN_URL,
    OWN,
    ask,
    get,
    new_session,
    run_command,
    sign_in,
)

FORGED = "Bearer at-{}.x".format(b64({"aud": GRAPH, "exp": 5e9, "scp": ["User.Read.All"]}))

# Graph

UNSUPPORTED = (400, "Request_UnsupportedQuery")
DENIED = (403, "Authorization_RequestDenied")
INVALID_TOKEN = (401, "InvalidAuthenticationToken")
BASIC = sign_in()
FULL = sign_in("User.Read.All")
REFUSED = {  # The requests, the answer's status and code, and a word in the message.
    "no token": ([get(USERS)], INVALID_TOKEN, "empty"),
    "forged token": ([get(USERS, Authorization=FORGED)], INVALID_TOKEN, "parsing"),
    "permission": ([sign_in("User.Read"), get(USERS)], DENIED, "privileges"),
    "filter": ([BASIC, get(USERS + "?$filter=accountEnabled eq true")], DENIED, "privileges"),
    "page size 1000": ([BASIC, get(USERS + "?$top=1000")], UNSUPPORTED, "page size"),
    "search": ([FULL, get(USERS + '?$search="a"')], UNSUPPORTED, "ConsistencyLevel"),
    "endsWith": ([FULL, get(USERS + "?$filter=endsWith(mail,'a')")], UNSUPPORTED, "'endsWith'"),
    "not": ([FULL, get(USERS + "?$filter=not(accountEnabled eq true)")], UNSUPPORTED, "'not'"),
}


@pytest.mark.parametrize("requests_, refusal, word", REFUSED.values(), ids=REFUSED)
def test_graph_refuses_what_the_real_service_refuses(requests_, refusal, word):
    status, answer = ask(*requests_)
    assert (status, answer["error"]["code"]) == refusal
    assert word in answer["error"]["message"]


EVENTUAL = {"ConsistencyLevel": "eventual"}
NOT_IMPLEMENTED = {  # The request, and a word in the message.
    "grant type": (sign_in(grant_type="authorization_code"), "authorization_code"),
    "client secret": (sign_in(client_secret="secret"), "client_secret"),
    "user with an assertion": (sign_in(client_assertion="x"), "client_assertion"),
    "no permission": (sign_in("profile"), "without permissions"),
    "permission": (sign_in("Mail.Send"), "Mail.Send"),
    "authorize": (get(LOGIN_URL + "/oauth2/v2.0/authorize"), "/oauth2/v2.0/authorize"),
    "path": (get(GRAPH_URL + "/v1.0/groups"), "GET /v1.0/users and GET /v1.0/me"),
    "beta": (get(GRAPH_URL + "/beta/users"), "/beta/users"),
    "method of Graph": (["POST", USERS, {}, {}], "POST /v1.0/users"),
    "orderby": (get(USERS + "?$orderby=displayName"), "$orderby"),
    "property": (get(USERS + "?$select=manager"), "manager"),
    "or": (get(USERS + "?$filter=userType eq 'Guest' or accountEnabled eq true"), " or "),
    "ne": (get(USERS + "?$filter=userType ne 'Guest'", **EVENTUAL), " ne "),
}


@pytest.mark.parametrize("request_, word", NOT_IMPLEMENTED.values(), ids=NOT_IMPLEMENTED)
def test_what_is_not_implemented_is_refused_with_a_message_that_says_so(request_, word):
    status, answer = ask(FULL, request_)
    message = answer.get("error_description") or answer["error"]["message"]
    assert (status in (400, 501), "The local tenant" in message) == (True, True)
    assert word in message


def test_properties_that_the_permission_does_not_include_are_null():
    _, answer = ask(BASIC, get(USERS + "?$select=DepartMent, accountEnabled,mail"))
    mail = "jane@contoso.example"
    assert answer["value"][0] == {"department": None, "accountEnabled": None, "mail": mail}


def test_next_link_keeps_the_query():
    query = "?$top=2&$select=id,userType&$filter=accountEnabled eq true"
    _, first = ask(FULL, get(USERS + query))
    _, second = ask(FULL, get(first["@odata.nextLink"]))
    assert [user["id"][-1] for user in first["value"] + second["value"]] == ["1", "2", "4", "5"]
    assert {*second["value"][0]} == {"id", "userType"} and "@odata.nextLink" not in second


@pytest.mark.parametrize("name", [n for n, scenario in SCENARIOS.items() if scenario.succeeds])
def test_scenario_lets_the_sample_succeed(tenant, run, name):
    SCENARIOS[name](tenant)
    assert len(users_of(run(constants=NO_WAITS))) == tenant.directory.user_count


# The server


def test_connection_to_another_host_or_port_is_refused():
    with LocalTenant(OWN) as tenant:
        session = new_session(tenant)
        assert session.get("http://example.com/").status_code == 502
        for url in ("https://example.com/", GRAPH_URL + ":8443/v1.0/users"):
            with pytest.raises(requests.exceptions.ProxyError):
                session.get(url)
        assert tenant.requests == []
        assert session.get("https://sts.example.com/").status_code == 501


@posix  # On Windows, curl trusts only the certificates in the Windows certificate store.
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_reaches_graph():
    status, stdout, stderr = run_command("curl", "-sS", USERS)
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["error"]["code"] == "InvalidAuthenticationToken"


@pytest.mark.parametrize("length", ["abc", "-1"])
def test_invalid_content_length_gets_400(tenant, length):
    response = new_session(tenant).get(USERS, headers={"Content-Length": length}, timeout=30)
    assert response.status_code == 400
