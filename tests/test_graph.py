"""Graph: pages, refusals, transient errors, and access tokens that expire or are revoked."""

import json
import time

import pytest
import trustme
from helpers import (
    CALL_FAILED,
    GRAPH,
    NO_WAITS,
    SIGN_IN_FAILED,
    TRIES,
    USERS,
    document,
    posix,
    sample,
    user_numbers,
    users_of,
)
from tenant.messages import HANG_UP, SILENCE, Answer, cut_off, json_answer
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
    result = run()
    assert user_numbers(result) == list(range(1, 1235))
    assert set(json.loads(result.stdout)) == {"@odata.context", "value"}
    assert tenant.steps().count("graph") == 13
    assert tenant.server.connections.count(GRAPH + ":443") == 1
    assert tenant.grants() == ["password"]


@pytest.mark.parametrize(
    "scope",
    [["user.readbasic.all"], ["User.Read User.ReadBasic.All"]],
    ids=["lowercase", "two in one string"],
)
def test_no_token_request_is_made_between_pages(tenant, run, scope):
    tenant.directory.user_count = 500
    assert len(users_of(run(scope=scope))) == 500
    assert tenant.grants() == ["password"]


@pytest.mark.py27
@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "middle", "last"])
def test_users_on_the_other_pages_are_kept_if_a_page_is_empty(graph_answers, run, place):
    pages = [{"value": [number], "@odata.nextLink": next_page(number)} for number in (1, 2, 3)]
    pages[place]["value"] = []
    del pages[-1]["@odata.nextLink"]
    graph_answers(*pages)
    assert users_of(run()) == [number for number in (1, 2, 3) if number != place + 1]


def test_other_keys_have_the_values_from_the_last_page(graph_answers, run):
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


@pytest.mark.parametrize(
    "answer", [{"displayName": "Zoë"}, {"value": [1]}], ids=["one object", "one page"]
)
def test_answer_without_a_next_link_is_printed_unchanged(tenant, graph_answers, run, answer):
    graph_answers(answer)
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
        1,
        {},
    ],
    ids=repr,
)
def test_next_link_to_another_host_is_not_followed(tenant, graph_answers, run, link):
    graph_answers({"value": [1], "@odata.nextLink": link}, {"value": [2]})
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "another host" in result.stderr
    assert len(tenant.requests) == 5
    assert tenant.server.connections[1:] == [GRAPH + ":443"]


@pytest.mark.py27
@pytest.mark.parametrize(
    "links",
    [[USERS], [next_page("a")] * 2, [next_page("a"), next_page("b"), next_page("a")]],
    ids=["back to the endpoint", "to the page itself", "loop of two pages"],
)
def test_next_link_that_repeats_is_not_followed(tenant, graph_answers, run, links):
    graph_answers(*[{"value": [1], "@odata.nextLink": link} for link in links])
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "repeats" in result.stderr
    assert tenant.steps().count("graph") == len(links)


LINK = {"@odata.nextLink": next_page(2)}
WITHOUT_A_LIST = {
    "null on a single page": [{"value": None}],
    "string on a single page": [{"value": "Zoë"}],
    "null on page 1": [dict(LINK, value=None)],
    "nothing on page 1": [LINK],
    "null on page 2": [dict(LINK, value=[1]), {"value": None}],
    "nothing on page 2": [dict(LINK, value=[1]), {"id": 2}],
}


@pytest.mark.py27
@pytest.mark.parametrize("case", WITHOUT_A_LIST)
def test_page_without_a_list_is_an_error(tenant, graph_answers, run, case):
    graph_answers(*WITHOUT_A_LIST[case])
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert '"value"' in result.stderr
    assert tenant.steps().count("graph") == len(WITHOUT_A_LIST[case])


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
def test_refusal_of_a_later_page_leaves_stdout_empty(tenant, graph_answers, run):
    tenant.directory.user_count = 500
    refusal = tenant.graph.error(403, "Authorization_RequestDenied", "Nicht für Zoë.")
    graph_answers(tenant.graph.on_graph, tenant.graph.on_graph, refusal)
    result = run()
    assert (result.status, result.stdout) == (1, "")
    content = json.loads(result.stderr.partition("Content: ")[2])
    assert content["error"]["message"] == "Nicht für Zoë."
    assert tenant.steps().count("graph") == 3


PAGE = "<html>Zürich" + "x" * 5000
LONG_WEB_PAGE = Answer(200, PAGE.encode(), {"Content-Type": "text/html; charset=utf-8"})


@pytest.mark.parametrize(
    "answer, reason, content",
    [
        (LONG_WEB_PAGE._replace(status=404), "Not Found", PAGE[:1024]),
        (Answer(460, b"nothing here"), "460", "nothing here"),
    ],
    ids=["404", "no reason phrase"],
)
def test_refusal_that_is_not_json_is_shown_up_to_1024_characters(
    graph_answers, run, answer, reason, content
):
    graph_answers(answer)
    assert run() == (1, "", "{}{}\nContent: {}\n".format(CALL_FAILED, reason, content))


@pytest.mark.py27
@pytest.mark.parametrize("status", [204, 302, 501])
def test_statuses_that_are_neither_200_nor_transient_are_errors_without_a_retry(
    tenant, graph_answers, run, status
):
    headers = {"Location": "https://sts.example.com/elsewhere"}
    graph_answers(Answer(status, b"" if status == 204 else b"{}", headers))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert len(tenant.requests) == 5


def test_graph_with_an_untrusted_certificate_gets_no_token(tenant, run):
    tenant.server.context(tenant.directory.login)  # Entra's certificate is still trusted.
    tenant.server.authority = trustme.CA()
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    assert tenant.server.connections.count(GRAPH + ":443") == 1
    assert "graph" not in tenant.steps()


@posix
def test_netrc_does_not_replace_the_token(run, tmp_path):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine {} login somebody password something\n".format(GRAPH))
    netrc.chmod(0o600)
    users_of(run(env={"HOME": str(tmp_path), "NETRC": str(netrc)}))


# Transient errors

ERROR = {"error": {"code": "InternalServerError", "message": "Zoë"}}
TRANSIENT = {
    "429": Answer(429),
    "500": Answer(500, b'{"error": {"code": "UnknownError", "message": ""}}'),
    "502": Answer(502, b"<html>Bad Gateway</html>"),
    "503": Answer(503),
    "504": Answer(504),
    "hang up": HANG_UP,
    "broken off": cut_off(Answer(200, json.dumps({"value": list(range(2000))}).encode())),
    "web page": WEB_PAGE,
    "empty": Answer(200),
    "error with status 200": json_answer(ERROR),
    "Retry-After: 0": Answer(429, headers={"Retry-After": "0"}),
}


@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_error_on_page_3_of_5_is_retried(tenant, run, fault):
    tenant.directory.user_count = 500
    page = tenant.graph.on_graph
    tenant.replace("graph", page, page, TRANSIENT[fault], then_happy=True)
    assert user_numbers(run(constants=NO_WAITS)) == list(range(1, 501))
    assert tenant.steps().count("graph") == 6
    assert tenant.grants() == ["password"]


LASTING = {  # The answer, and the text under "Content:".
    "429": (json_answer(ERROR, 429), json.dumps(ERROR, indent=2)),
    "500": (json_answer(ERROR, 500), json.dumps(ERROR, indent=2)),
    "error with status 200": (json_answer(ERROR), json.dumps(ERROR, indent=2)),
    "web page": (LONG_WEB_PAGE, PAGE[:1024]),
    "list": (json_answer([1]), "[\n  1\n]"),
    "null": (json_answer(None), "null"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_fault_that_persists_through_all_retries_is_reported_with_its_content(
    tenant, graph_answers, run, fault
):
    answer, content = LASTING[fault]
    graph_answers(answer)
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert result.stderr.partition("\nContent: ")[2] == content + "\n"
    assert tenant.steps().count("graph") == TRIES


@pytest.mark.parametrize("answer", [HANG_UP, SILENCE], ids=["hang up", "silence"])
def test_connection_that_keeps_breaking_is_reported_after_the_retries(tenant, run, answer):
    tenant.replace("graph", answer)
    result = run(constants=dict(NO_WAITS, TIMEOUT=[20, 0.3]))
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert tenant.steps().count("graph") == TRIES
    assert tenant.grants() == ["password"]


@pytest.fixture
def waits_of(tenant, run):
    """Return a function that makes Graph repeat an answer and returns the sample's waits.

    Each wait is the number of seconds between two requests.
    """

    def waits_of(answer, **constants):
        times = []

        def note(request):
            times.append(time.monotonic())
            return answer

        tenant.replace("graph", note)
        assert run(constants=constants).status == 1
        return [later - earlier for earlier, later in zip(times, times[1:])]

    return waits_of


@pytest.mark.parametrize("answer", [Answer(503), HANG_UP], ids=["503", "hang up"])
def test_sample_waits_before_each_retry(waits_of, answer):
    minimum = [0.05, 0.1, 0.2]
    waits = waits_of(answer, RETRY_WAITS=minimum)
    assert len(waits) == len(minimum)
    assert all(wait >= least for wait, least in zip(waits, minimum))


@pytest.mark.parametrize("retry_after, own_wait", [("1", 0), ("0", 0.5)], ids=["longer", "shorter"])
def test_sample_waits_for_the_longer_of_retry_after_and_its_own_wait(
    waits_of, retry_after, own_wait
):
    answer = Answer(429, headers={"Retry-After": retry_after})
    (wait,) = waits_of(answer, RETRY_WAITS=[own_wait])
    assert wait >= max(int(retry_after), own_wait)


@pytest.mark.slow
def test_waits_are_as_long_as_the_constants_say(waits_of):
    waits = waits_of(Answer(503))
    assert len(waits) == len(sample.RETRY_WAITS)
    assert all(wait >= least for wait, least in zip(waits, sample.RETRY_WAITS))


def test_run_ends_at_once_if_retry_after_is_above_the_maximum(tenant, run):
    seconds = str(sample.MAX_RETRY_AFTER + 1)
    tenant.replace("graph", tenant.graph.error(429, "TooManyRequests", "", Retry_After=seconds))
    result = run()
    assert result.status == 1
    assert "TooManyRequests" in result.stderr
    assert tenant.steps().count("graph") == 1


def test_sample_waits_if_retry_after_equals_the_maximum(tenant, run):
    busy = tenant.graph.error(429, "TooManyRequests", "", Retry_After="0")
    tenant.replace("graph", busy, then_happy=True)
    users_of(run(constants=dict(NO_WAITS, MAX_RETRY_AFTER=0)))


@pytest.mark.parametrize(
    "retry_after",
    ["²", "9" * 5000, "1234567890", "-301", "301.5", "Wed, 25 Nov 2026 07:28:00 GMT"],
    ids=["superscript", "5,000 digits", "ten digits", "negative", "fraction", "date"],
)
def test_retry_after_that_is_not_a_whole_number_of_seconds_is_ignored(tenant, run, retry_after):
    busy = tenant.graph.error(429, "TooManyRequests", "", Retry_After=retry_after)
    tenant.replace("graph", busy)
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert "TooManyRequests" in result.stderr
    assert tenant.steps().count("graph") == TRIES


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


def test_second_401_for_a_page_is_reported(tenant, run):
    SCENARIOS["token-refused"](tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED + "Unauthorized\nContent: {")
    assert "InvalidAuthenticationToken" in result.stderr
    assert tenant.steps().count("graph") == 2


def test_no_renewal_happens_while_graph_accepts_the_token(tenant, run):
    tenant.directory.user_count = 300
    # MSAL treats a token with less than five minutes left as expired.
    tenant.entra.token_lifetime = 250
    tenant.entra.refuse(70043, "The refresh token has expired.", grant="refresh_token")
    assert user_numbers(run()) == list(range(1, 301))
    assert tenant.grants() == ["password"]


@pytest.mark.parametrize(
    "failure, word",
    [
        (json_answer({"error": "invalid_grant", "error_description": "AADSTS50173"}, 400), "50173"),
        (Answer(503, b"<html>Unavailable</html>"), "503"),
    ],
    ids=["refused", "outage"],
)
def test_renewal_that_fails_is_reported_as_a_failed_sign_in(tenant, run, failure, word):
    SCENARIOS["token-revoked"](tenant)
    tenant.replace("token", tenant.entra.on_token, failure)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert word in result.stderr
    assert CALL_FAILED not in result.stderr
