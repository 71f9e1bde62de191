"""Graph: pages, refusals, transient errors, and access tokens that expire or are revoked."""

import json
import re
import time

import pytest
import trustme
from helpers import (
    CALL_FAILED,
    GRAPH,
    NO_WAITS,
    SIGN_IN_FAILED,
    USERS,
    document,
    expire_access_tokens,
    posix,
    user_numbers,
    users_of,
)
from tenant.adfs import ASSERTION, RSTR
from tenant.messages import HANG_UP, SILENCE, Answer, cut_off, garbled, json_answer
from tenant.scenarios import SCENARIOS, WEB_PAGE


def next_page(number):
    """Return a link to the page with this number."""
    return "{}?$skiptoken={}".format(USERS, number)


@pytest.fixture
def graph_answers(tenant):
    """Return a function that makes Graph give these answers, one after the other."""

    def graph_answers(*answers):
        answers = [json_answer(a) if isinstance(a, dict) else a for a in answers]
        tenant.replace("graph", *answers)

    return graph_answers


# Pages


@pytest.mark.py27
def test_all_pages_are_read_in_order_on_one_connection(tenant, run):
    SCENARIOS["many-users"](tenant)
    assert user_numbers(run()) == list(range(1, 1235))
    assert tenant.steps().count("graph") == 13
    assert tenant.server.connections.count(GRAPH + ":443") == 1
    assert tenant.grants() == ["password"]


@pytest.mark.py27
def test_printed_document_has_no_next_link(tenant, run):
    tenant.directory.user_count = 250
    result = run()
    users_of(result)
    assert set(json.loads(result.stdout)) == {"@odata.context", "value"}


def test_larger_pages_need_fewer_requests(tenant, run):
    tenant.directory.user_count = 2500
    users = users_of(run(endpoint=USERS + "?$top=999&$select=id,displayName"))
    assert len(users) == 2500
    assert set(users[0]) == {"id", "displayName"}
    assert tenant.steps().count("graph") == 3


@pytest.mark.parametrize("scope", [["user.readbasic.all"], ["User.Read User.ReadBasic.All"]])
def test_no_token_request_is_made_between_pages(tenant, run, scope):
    tenant.directory.user_count = 500
    assert len(users_of(run(scope=scope))) == 500
    assert tenant.grants() == ["password"]


def test_empty_page_in_the_middle_is_skipped(graph_answers, run):
    graph_answers(
        {"value": [{"id": 1}], "@odata.nextLink": next_page(2)},
        {"value": [], "@odata.nextLink": next_page(3)},
        {"value": [{"id": 3}]},
    )
    assert run() == (0, document({"value": [{"id": 1}, {"id": 3}]}), "")


def test_other_keys_are_kept_with_the_values_of_the_last_page(graph_answers, run):
    graph_answers(
        {"@odata.context": "c", "@odata.count": 2, "value": [1], "@odata.nextLink": next_page(2)},
        {"@odata.count": 3, "value": [2], "@odata.deltaLink": "d"},
    )
    printed = json.loads(run().stdout)
    assert printed == {
        "@odata.context": "c",
        "@odata.count": 3,
        "value": [1, 2],
        "@odata.deltaLink": "d",
    }


@pytest.mark.parametrize("answer", [{"displayName": "Zoë"}, {"value": "no list"}, {"value": [1]}])
def test_object_without_pages_is_printed_unchanged(tenant, run, answer):
    tenant.replace("graph", json_answer(answer))
    assert run(endpoint="https://graph.microsoft.com/v1.0/me") == (0, document(answer), "")
    assert tenant.requests[-1][1].path == "/v1.0/me"


def test_host_in_a_next_link_is_not_case_sensitive(graph_answers, run):
    link = next_page(2).replace("https://graph", "HTTPS://Graph")
    graph_answers({"value": [1], "@odata.nextLink": link}, {"value": [2]})
    assert users_of(run(endpoint=USERS.replace("microsoft", "Microsoft"))) == [1, 2]


@pytest.mark.py27
@pytest.mark.parametrize(
    "link",
    [
        "https://sts.example.com/v1.0/users",
        "https://graph.microsoft.com.example.com/v1.0/users",
        "https://graph.microsoft.com:444/v1.0/users",
        "http://graph.microsoft.com/v1.0/users",
        "https://sts.example.com\\@graph.microsoft.com/v1.0/users",
        "https://graph.microsoft.com\\@sts.example.com/v1.0/users",
        "https://graph.microsoft.com@sts.example.com/v1.0/users",
        "/v1.0/users?$skiptoken=2",
        "",
    ],
)
def test_next_link_to_another_host_is_not_followed(tenant, graph_answers, run, link):
    graph_answers({"value": [1], "@odata.nextLink": link}, {"value": [2]})
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "another host" in result.stderr
    assert len(tenant.requests) == 5
    assert tenant.server.connections[1:] == [GRAPH + ":443"]


@pytest.mark.parametrize("link", [1, {}])
def test_malformed_next_link_fails_with_a_message(tenant, graph_answers, run, link):
    graph_answers({"value": [1], "@odata.nextLink": link})
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert len(tenant.requests) == 5


@pytest.mark.py27
def test_page_that_links_to_itself_is_an_error(tenant, run):
    SCENARIOS["endless-pages"](tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "repeats" in result.stderr
    assert tenant.steps().count("graph") == 2


def test_link_back_to_the_endpoint_is_an_error(tenant, graph_answers, run):
    graph_answers({"value": [1], "@odata.nextLink": USERS})
    assert "repeats" in run().stderr
    assert tenant.steps().count("graph") == 1


def test_loop_of_two_pages_is_an_error(tenant, run):
    def page(request):
        other = "b" if request.query.get("$skiptoken") == "a" else "a"
        return json_answer({"value": [1], "@odata.nextLink": next_page(other)})

    tenant.replace("graph", page)
    result = run()
    assert result.status == 1
    assert "repeats" in result.stderr
    assert tenant.steps().count("graph") == 3


@pytest.mark.parametrize("place, value", [(0, None), (1, None), (1, 1)])
def test_page_without_a_list_fails_with_a_message(graph_answers, run, value, place):
    pages = [{"value": [1], "@odata.nextLink": next_page(2)}, {"value": [2]}]
    pages[place]["value"] = value
    graph_answers(*pages)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)


# Refusals


@pytest.mark.py27
def test_refusal_prints_what_graph_says(tenant, run):
    SCENARIOS["forbidden"](tenant)
    result = run()
    first, _, rest = result.stderr.partition("\n")
    assert (result.status, first) == (1, CALL_FAILED + "Forbidden")
    assert rest.startswith('Content: {\n  "error": {\n    "')
    error = json.loads(rest[len("Content: ") :])["error"]
    assert error["message"] == "Insufficient privileges to complete the operation."


@pytest.mark.py27
def test_refusal_with_non_ascii_text_is_printed_in_full(tenant, run):
    refusal = tenant.graph.error(403, "Authorization_RequestDenied", "Nicht für Zoë.")
    tenant.replace("graph", refusal)
    content = run().stderr.split("Content: ")[1]
    assert json.loads(content)["error"]["message"] == "Nicht für Zoë."


def test_refusal_without_a_reason_phrase_shows_the_status(tenant, run):
    tenant.replace("graph", Answer(460, b"nothing here"))
    assert run() == (1, "", CALL_FAILED + "460\nContent: nothing here\n")


def test_refusal_that_is_not_json_is_shown_up_to_1024_characters(tenant, run):
    page = "<html>Zürich" + "x" * 5000
    answer = Answer(404, page.encode(), {"Content-Type": "text/html; charset=utf-8"})
    tenant.replace("graph", answer)
    assert run() == (1, "", CALL_FAILED + "Not Found\nContent: " + page[:1024] + "\n")


@pytest.mark.py27
@pytest.mark.parametrize("status", [204, 302, 501])
def test_statuses_that_are_neither_200_nor_transient_are_errors_without_a_retry(
    tenant, run, status
):
    headers = {"Location": "https://sts.example.com/elsewhere"}
    tenant.replace("graph", Answer(status, b"" if status == 204 else b"{}", headers))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert tenant.steps().count("graph") == 1
    assert len(tenant.requests) == 5


@pytest.mark.py27
def test_refused_page_leaves_stdout_empty(tenant, graph_answers, run):
    tenant.directory.user_count = 500
    refusal = tenant.graph.error(403, "Authorization_RequestDenied", "No more.")
    graph_answers(tenant.graph.on_graph, tenant.graph.on_graph, refusal)
    result = run()
    assert (result.status, result.stdout) == (1, "")
    assert result.stderr.startswith(CALL_FAILED + "Forbidden\nContent: {")
    assert tenant.steps().count("graph") == 3


@pytest.mark.parametrize("body", [b"[]", b"null"])
def test_json_that_is_not_an_object_is_an_error(tenant, run, body):
    tenant.replace("graph", Answer(200, body))
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "JSON" in result.stderr


def test_graph_with_an_untrusted_certificate_gets_no_token(tenant, run):
    tenant.server.context(tenant.directory.login)  # Entra's certificate is still trusted.
    tenant.server.authority = trustme.CA()
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    assert "graph" not in tenant.steps()


@posix
def test_netrc_does_not_replace_the_token(run, tmp_path):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine {} login somebody password something\n".format(GRAPH))
    netrc.chmod(0o600)
    users_of(run(env={"HOME": str(tmp_path), "NETRC": str(netrc)}))


# Transient errors

BROKEN_OFF = cut_off(Answer(200, json.dumps({"value": list(range(2000))}).encode()))
NOT_TLS = garbled(Answer(200, b"{" + b" " * 5000 + b"}"))
TRANSIENT = {
    "429": Answer(429),
    "500": Answer(500, b'{"error": {"code": "UnknownError", "message": ""}}'),
    "502": Answer(502, b"<html>Bad Gateway</html>"),
    "503": Answer(503),
    "504": Answer(504),
    "hang up": HANG_UP,
    "broken off": BROKEN_OFF,
    "web page": WEB_PAGE,
    "empty": Answer(200),
    "Retry-After: 0": Answer(429, headers={"Retry-After": "0"}),
    "Retry-After date": Answer(503, headers={"Retry-After": "Wed, 25 Nov 2026 07:28:00 GMT"}),
}


@pytest.mark.parametrize("fault", ["503", "broken off"])
def test_transient_error_on_the_first_page_is_retried(tenant, run, fault):
    tenant.replace("graph", TRANSIENT[fault], then_happy=True)
    assert user_numbers(run(constants=NO_WAITS)) == [1, 2, 3, 4, 5]
    assert tenant.steps().count("graph") == 2
    assert tenant.grants() == ["password"]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_error_on_page_3_of_5_is_retried(tenant, run, fault):
    tenant.directory.user_count = 500
    page = tenant.graph.on_graph
    tenant.replace("graph", page, page, TRANSIENT[fault], then_happy=True)
    assert user_numbers(run(constants=NO_WAITS)) == list(range(1, 501))
    assert tenant.steps().count("graph") == 6
    assert tenant.grants() == ["password"]


@pytest.mark.parametrize("answer", [NOT_TLS, HANG_UP])
def test_connection_that_keeps_breaking_fails_with_a_message(tenant, run, answer):
    tenant.replace("graph", answer)
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert tenant.grants() == ["password"]


@pytest.mark.parametrize("status", [429, 500])
def test_outage_that_lasts_is_reported_after_four_requests(tenant, run, status):
    tenant.replace("graph", tenant.graph.error(status, "Busy", "Come back later."))
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert '"message": "Come back later."' in result.stderr
    assert tenant.steps().count("graph") == 4


def test_web_page_in_place_of_json_is_reported_after_four_requests(tenant, run):
    tenant.replace("graph", WEB_PAGE)
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "JSON" in result.stderr
    assert tenant.steps().count("graph") == 4


def test_silent_graph_is_asked_four_times(tenant, run):
    tenant.replace("graph", SILENCE)
    result = run(constants=dict(NO_WAITS, TIMEOUT=0.3))
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "timed out" in result.stderr.lower()
    assert tenant.steps().count("graph") == 4


def test_proxy_that_never_answers_is_asked_four_times(tenant, run):
    tenant.server.silent_hosts.add(tenant.directory.graph)
    result = run(constants=dict(NO_WAITS, TIMEOUT=0.3))
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert tenant.server.connections.count(GRAPH + ":443") == 4


@pytest.fixture
def arrivals(tenant):
    """Return a function that makes Graph repeat an answer.

    It returns a list that fills with the time when each request arrives.
    """

    def arrivals(answer):
        times = []

        def note(request):
            times.append(time.monotonic())
            return answer

        tenant.replace("graph", note)
        return times

    return arrivals


def gaps(times):
    """Return the seconds between the times."""
    return [later - earlier for earlier, later in zip(times, times[1:])]


@pytest.mark.parametrize("answer", [Answer(503), HANG_UP])
def test_sample_waits_before_each_retry(arrivals, run, answer):
    times = arrivals(answer)
    waits = [0.05, 0.1, 0.2]
    assert run(constants={"RETRY_WAITS": waits}).status == 1
    assert len(times) == 4
    assert all(gap >= wait for gap, wait in zip(gaps(times), waits))


def test_retry_after_makes_a_wait_longer(arrivals, run):
    times = arrivals(Answer(429, headers={"Retry-After": "1"}))
    assert run(constants={"RETRY_WAITS": [0], "MAX_RETRY_AFTER": 1}).status == 1
    assert len(times) == 2
    assert gaps(times)[0] >= 1


def test_retry_after_never_makes_a_wait_shorter(arrivals, run):
    times = arrivals(Answer(429, headers={"Retry-After": "0"}))
    assert run(constants={"RETRY_WAITS": [0.5]}).status == 1
    assert gaps(times)[0] >= 0.5


def test_run_ends_at_once_if_retry_after_is_too_long(tenant, run):
    SCENARIOS["throttled-for-an-hour"](tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "TooManyRequests" in result.stderr
    assert tenant.steps().count("graph") == 1


@pytest.mark.slow
def test_waits_are_at_least_2_4_and_8_seconds(arrivals, run):
    times = arrivals(Answer(503))
    assert run().status == 1
    assert len(times) == 4
    assert all(gap >= wait for gap, wait in zip(gaps(times), (2, 4, 8)))


# Access tokens that expire or are revoked


@pytest.mark.py27
def test_expired_token_is_renewed_for_each_page_without_the_password(tenant, run):
    SCENARIOS["token-expires"](tenant)
    assert user_numbers(run()) == list(range(1, 501))
    assert tenant.grants() == ["password"] + 4 * ["refresh_token"]


@pytest.mark.py27
def test_revoked_token_is_renewed_once(tenant, run):
    SCENARIOS["token-revoked"](tenant)
    assert user_numbers(run()) == list(range(1, 501))
    assert tenant.grants() == ["password", "refresh_token"]
    assert tenant.steps().count("graph") == 6


def test_revoked_saved_token_is_renewed(tenant, run):
    users_of(run(token_cache="cache.json"))
    tenant.graph.revoke_access_tokens()
    users_of(run(token_cache="cache.json", password=None))
    assert tenant.grants() == ["password", "refresh_token"]


def test_renewed_token_is_used_for_the_next_pages(tenant, run):
    SCENARIOS["token-revoked"](tenant)
    users_of(run())
    tokens = [r.headers["Authorization"] for step, r in tenant.requests if step == "graph"]
    assert tokens[:3] == [tokens[0]] * 3
    assert tokens[3:] == [tokens[3]] * 3
    assert tokens[0] != tokens[3]


def test_second_401_for_a_page_is_reported(tenant, run):
    SCENARIOS["token-refused"](tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED + "Unauthorized\nContent: {")
    assert "InvalidAuthenticationToken" in result.stderr
    assert tenant.steps().count("graph") == 2


def test_password_is_used_for_the_renewal_if_nothing_is_saved(tenant, run):
    tenant.entra.sends_id_token = False
    SCENARIOS["token-revoked"](tenant)
    assert user_numbers(run()) == list(range(1, 501))
    assert tenant.grants() == ["password", "password"]


def test_no_renewal_happens_while_graph_accepts_the_token(tenant, run):
    tenant.directory.user_count = 300
    # MSAL treats a token with less than five minutes left as expired.
    tenant.entra.token_lifetime = 250
    tenant.entra.refuse(70043, "The refresh token has expired.", grant="refresh_token")
    assert user_numbers(run()) == list(range(1, 301))
    assert tenant.grants() == ["password"]


def test_renewal_that_entra_refuses_is_reported_as_a_failed_sign_in(tenant, run):
    users_of(run(token_cache="cache.json"))
    tenant.graph.revoke_access_tokens()
    tenant.entra.refuse(50173, "The provided grant has expired due to it being revoked.")
    result = run(token_cache="cache.json", password=None)
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "AADSTS50173" in result.stderr
    assert CALL_FAILED not in result.stderr


def test_outage_during_a_renewal_is_reported_as_a_failed_sign_in(tenant, run):
    SCENARIOS["token-revoked"](tenant)
    tenant.replace("token", tenant.entra.on_token, Answer(503, b"<html>Unavailable</html>"))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "503" in result.stderr


def test_ad_fs_answer_is_not_printed_if_a_renewal_fails(tenant, run):
    tenant.entra.realm, tenant.entra.sends_id_token = "Federated", False
    SCENARIOS["token-revoked"](tenant)
    answer = RSTR.format(assertion=ASSERTION.format("the assertion"))
    answer = re.sub("<t:TokenType>.*</t:TokenType>", "", answer)  # MSAL quotes this answer.
    tenant.replace("wstrust", tenant.adfs.on_wstrust, Answer(200, answer.encode()))
    tenant.directory.secrets.add("the assertion")
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "<s:" not in result.stderr


def test_expired_token_in_the_cache_is_not_sent(tenant, run, cache):
    users_of(run(token_cache="cache.json"))
    expire_access_tokens(cache)
    users_of(run(token_cache="cache.json"))
    assert tenant.grants() == ["password", "refresh_token"]
    assert tenant.steps().count("graph") == 2
