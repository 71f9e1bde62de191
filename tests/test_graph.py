"""Graph: pages, refusals, transient errors, and access tokens that expire or are revoked."""

import json
import time

import pytest
import trustme
from helpers import (
    CALL_FAILED,
    GRAPH,
    IMPATIENT,
    LOGIN,
    NO_WAITS,
    TRIES,
    USERS,
    call_error,
    posix,
    sample,
    sign_in_error,
    user_numbers,
    users_of,
)
from tenant.messages import HANG_UP, SILENCE, Answer, cut_off, json_answer
from tenant.scenarios import SCENARIOS

# Pages

PAGE_2, PAGE_3 = [USERS + "?$skiptoken=" + number for number in "23"]


def page(users, link=None, **other_keys):
    """Return a page of users, which can have a link to the next page."""
    if link is not None:
        other_keys["@odata.nextLink"] = link
    return dict(other_keys, value=users)


@pytest.mark.py27
def test_all_pages_are_read_in_order_on_one_connection(tenant, run):
    SCENARIOS["many-users"](tenant)
    assert user_numbers(run()) == list(range(1, 1235))
    assert tenant.steps().count("graph") == 13
    assert tenant.server.connections.count(GRAPH + ":443") == 1
    assert tenant.grants() == ["password"]


DOCUMENTS = {  # The pages, and the document that the sample prints.
    "one object": ([{"displayName": "Zoë"}], {"displayName": "Zoë"}),
    "one page": ([page([1], a=1)], page([1], a=1)),
    "empty first page": ([page([], PAGE_2), page([2], PAGE_3), page([3])], page([2, 3])),
    "empty page between": ([page([1], PAGE_2), page([], PAGE_3), page([3])], page([1, 3])),
    "empty last page": ([page([1], PAGE_2), page([])], page([1])),
    "other keys": ([page([1], PAGE_2, a=1, b=1), page([2], b=2, c=2)], page([1, 2], a=1, b=2, c=2)),
    "uppercase link": ([page([1], PAGE_2.upper()), page([2])], page([1, 2])),
}


@pytest.mark.py27
@pytest.mark.parametrize("pages, printed", DOCUMENTS.values(), ids=DOCUMENTS)
def test_pages_become_one_document(tenant, run, pages, printed):
    tenant.replace("graph", *map(json_answer, pages))
    result = run()
    assert (result.status, json.loads(result.stdout)) == (0, printed)


WRONG_PAGES = {  # The pages, and a word in the error message.
    "back to the endpoint": ([page([1], USERS)], "repeats"),
    "to the page itself": ([page([1], PAGE_2), page([2], PAGE_2)], "repeats"),
    "loop": ([page([1], PAGE_2), page([2], PAGE_3), page([3], PAGE_2)], "repeats"),
    "null on a single page": ([page(None)], '"value"'),
    "string on a single page": ([page("Zoë")], '"value"'),
    "null on page 1": ([page(None, PAGE_2)], '"value"'),
    "nothing on page 1": ([{"@odata.nextLink": PAGE_2}], '"value"'),
    "null on page 2": ([page([1], PAGE_2), page(None)], '"value"'),
    "nothing on page 2": ([page([1], PAGE_2), {"id": 2}], '"value"'),
}
ELSEWHERE = [
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
]
for link in ELSEWHERE:
    WRONG_PAGES["link to {!r}".format(link)] = ([page([1], link)], "another host")


@pytest.mark.py27
@pytest.mark.parametrize("pages, word", WRONG_PAGES.values(), ids=WRONG_PAGES)
def test_wrong_page_or_next_link_ends_the_listing(tenant, run, pages, word):
    tenant.replace("graph", *map(json_answer, pages))
    assert word in call_error(run())
    assert tenant.steps().count("graph") == len(pages)
    assert tenant.server.connections == [LOGIN + ":443", GRAPH + ":443"]


# Refusals

ERROR = {"error": {"message": "Nicht für Zoë."}}
SHOWN_ERROR = json.dumps(ERROR, indent=2)
HTML = "<html>Zürich" + "x" * 5000
WEB_PAGE = Answer(200, HTML.encode(), {"Content-Type": "text/html; charset=utf-8"})
REFUSALS = {  # The answer, the reason, and the text under "Content:".
    "JSON": (json_answer(ERROR, 403), "Forbidden", SHOWN_ERROR),
    "no reason phrase": (Answer(460, b"nothing here"), "460", "nothing here"),
    "204": (Answer(204), "No Content", ""),
    "redirect": (Answer(302, b"", {"Location": "https://sts.example.com/"}), "Found", ""),
    "501": (Answer(501, b"[1]"), "Not Implemented", "[\n  1\n]"),
}


@pytest.mark.py27
@pytest.mark.parametrize("answer, reason, content", REFUSALS.values(), ids=REFUSALS)
def test_refusal_of_page_3_is_shown_without_a_retry(tenant, run, answer, reason, content):
    tenant.directory.user_count = 500
    tenant.replace("graph", tenant.graph.on_graph, tenant.graph.on_graph, answer)
    assert run() == (1, "", "{}{}\nContent: {}\n".format(CALL_FAILED, reason, content))
    assert tenant.steps().count("graph") == 3


def test_graph_with_an_untrusted_certificate_gets_no_token(tenant, run):
    tenant.server.context(tenant.directory.login)  # Entra's certificate is still trusted.
    tenant.server.authority = trustme.CA()
    assert "CERTIFICATE_VERIFY_FAILED" in call_error(run(constants=NO_WAITS))
    assert tenant.server.connections.count(GRAPH + ":443") == 1
    assert "graph" not in tenant.steps()


@posix
def test_netrc_does_not_replace_the_token(run, tmp_path):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine {} login somebody password something\n".format(GRAPH))
    netrc.chmod(0o600)
    users_of(run(env={"HOME": str(tmp_path), "NETRC": str(netrc)}))


# Transient errors

FAULTS = {  # The answer, and the text under "Content:" if there's a whole answer.
    "429": (json_answer(ERROR, 429), SHOWN_ERROR),
    "500": (json_answer(ERROR, 500), SHOWN_ERROR),
    "502": (Answer(502, b"<html>Bad Gateway</html>"), "<html>Bad Gateway</html>"),
    "503": (Answer(503), ""),
    "504": (Answer(504), ""),
    "error with status 200": (json_answer(ERROR), SHOWN_ERROR),
    "web page": (WEB_PAGE, HTML[:1024]),
    "empty": (Answer(200), ""),
    "list": (json_answer([1]), "[\n  1\n]"),
    "null": (json_answer(None), "null"),
    "cut off": (cut_off(json_answer({"value": list(range(2000))})), None),
    "hang up": (HANG_UP, None),
    "silence": (SILENCE, None),
}
faults = pytest.mark.parametrize("answer, content", FAULTS.values(), ids=FAULTS)


@faults
def test_transient_error_on_page_3_of_5_is_retried(tenant, run, answer, content):
    tenant.directory.user_count = 500
    on_graph = tenant.graph.on_graph
    tenant.replace("graph", on_graph, on_graph, answer, then_happy=True)
    assert user_numbers(run(constants=IMPATIENT)) == list(range(1, 501))
    assert tenant.steps().count("graph") == 6
    assert tenant.grants() == ["password"]


@faults
def test_error_that_persists_is_reported_after_all_retries(tenant, run, answer, content):
    tenant.replace("graph", answer)
    reason = call_error(run(constants=IMPATIENT))
    assert content is None or reason.partition("\nContent: ")[2] == content + "\n"
    assert tenant.steps().count("graph") == TRIES


WAITS = {  # The answer, RETRY_WAITS, and how long the sample waits at least.
    "503": (Answer(503), [0.05, 0.1, 0.2], [0.05, 0.1, 0.2]),
    "hang up": (HANG_UP, [0.05, 0.1, 0.2], [0.05, 0.1, 0.2]),
    "longer Retry-After": (Answer(429, headers={"Retry-After": "1"}), [0], [1]),
    "shorter Retry-After": (Answer(429, headers={"Retry-After": "0"}), [0.5], [0.5]),
}
AS_SHIPPED = (Answer(503), sample.RETRY_WAITS, sample.RETRY_WAITS)


@pytest.mark.parametrize(
    "answer, constant, minimum",
    [*WAITS.values(), pytest.param(*AS_SHIPPED, marks=pytest.mark.slow)],
    ids=[*WAITS, "as shipped"],
)
def test_sample_waits_before_each_retry(tenant, run, answer, constant, minimum):
    times = []

    def note_time(request):
        times.append(time.monotonic())
        return answer

    tenant.replace("graph", note_time)
    call_error(run(constants={"RETRY_WAITS": constant}))
    waits = [later - earlier for earlier, later in zip(times, times[1:])]
    assert len(waits) == len(minimum)
    assert all(wait >= least for wait, least in zip(waits, minimum))


RETRY_AFTER = {  # The header, and the number of requests if MAX_RETRY_AFTER is 0.
    "the maximum": ("0", TRIES),
    "above the maximum": ("1", 1),
    "nine digits": ("999999999", 1),
    "ten digits": ("1234567890", TRIES),
    "5,000 digits": ("9" * 5000, TRIES),
    "superscript": ("²", TRIES),
    "negative": ("-1", TRIES),
    "fraction": ("1.5", TRIES),
    "date": ("Wed, 25 Nov 2026 07:28:00 GMT", TRIES),
}


@pytest.mark.parametrize("retry_after, tries", RETRY_AFTER.values(), ids=RETRY_AFTER)
def test_only_seconds_above_the_maximum_end_the_retries(tenant, run, retry_after, tries):
    tenant.replace("graph", json_answer(ERROR, 429, Retry_After=retry_after))
    assert SHOWN_ERROR in call_error(run(constants=dict(NO_WAITS, MAX_RETRY_AFTER=0)))
    assert tenant.steps().count("graph") == tries


# Access tokens that expire or are revoked


@pytest.mark.py27
@pytest.mark.parametrize("scenario, renewals", [("token-expires", 4), ("token-revoked", 1)])
def test_rejected_token_is_renewed_without_the_password(tenant, run, scenario, renewals):
    SCENARIOS[scenario](tenant)
    assert user_numbers(run()) == list(range(1, 501))
    assert tenant.grants() == ["password"] + renewals * ["refresh_token"]
    assert tenant.steps().count("graph") == 5 + renewals


def test_second_401_for_a_page_is_reported(tenant, run):
    SCENARIOS["token-refused"](tenant)
    assert call_error(run()).startswith("Unauthorized\nContent: {")
    assert tenant.steps().count("graph") == 2


def test_no_token_request_is_made_while_graph_accepts_the_token(tenant, run):
    tenant.directory.user_count = 300
    # MSAL treats a token with less than five minutes left as expired.
    tenant.entra.token_lifetime = 250
    assert user_numbers(run()) == list(range(1, 301))
    assert tenant.grants() == ["password"]


@pytest.mark.parametrize(
    "failure, word",
    [(json_answer({"error": "invalid_grant"}, 400), "invalid_grant"), (Answer(503), "503")],
    ids=["refused", "outage"],
)
def test_renewal_that_fails_is_reported_as_a_failed_sign_in(tenant, run, failure, word):
    SCENARIOS["token-revoked"](tenant)
    tenant.replace("token", tenant.entra.on_token, failure)
    reason = sign_in_error(run())
    assert word in reason
    assert CALL_FAILED not in reason
