"""What a run that fails prints: nothing on stdout, the reason on stderr, status 1."""

import json
import socket
import subprocess
import time

import pytest
import trustme
from conftest import CALL_FAILED, NO_SIGN_IN, interrupt, posix
from tenant.adfs import ASSERTION, RSTR
from tenant.proxy import HANG_UP, SILENCE, Answer, cut_off, garbled, json_answer
from tenant.scenarios import HTML, SCENARIOS

# No token.


@pytest.mark.py27
def test_a_wrong_password_prints_the_error_triple(tenant, run):
    SCENARIOS["wrong-password"](tenant)
    status, stdout, stderr = run()
    error, description, correlation_id = stderr.splitlines()
    assert (status, stdout, error) == (1, "", "invalid_grant")
    assert description.startswith("AADSTS50126: Error validating credentials due to invalid")
    step, request = tenant.requests[-1]
    assert step == "token"
    assert correlation_id == request.headers["client-request-id"]


def test_what_is_missing_in_an_error_is_none(tenant, run):
    tenant.replace("token", json_answer({"error": "temporarily_unavailable"}, 400))
    assert run() == (1, "", "temporarily_unavailable\nNone\nNone\n")


@pytest.mark.py27
def test_an_error_with_letters_outside_ascii_is_told_whole(tenant, run):
    text = "Application with identifier 'a' was not found in the directory 'Müller GmbH'."
    tenant.entra.refuse(700016, text, "unauthorized_client")
    result = run()
    assert (result.status, len(result.stderr.splitlines())) == (1, 3)
    assert "AADSTS700016: {} Trace ID".format(text) in result.stderr


# The sign-in breaks.


@pytest.mark.parametrize(
    "change, words",
    [
        ({"authority": "https://login.microsoftonline.com"}, "ValueError: Your given address"),
        ({"scope": ["offline_access"]}, "ValueError: "),
        ({"scope": [1]}, "TypeError: "),
        ({"username": "użytkownik@your_tenant.com"}, "UnicodeEncodeError: 'latin-1' <...>\n"),
    ],
)
def test_what_msal_does_not_take(run, change, words):
    result = run(**change)
    assert result.status == 1
    assert result.stderr.startswith(NO_SIGN_IN + words)


@pytest.mark.parametrize(
    "scenario, words",
    [
        ("unknown-tenant", "ValueError: Unable to get authority configuration"),
        ("personal-account", "ValueError: Unable to find wstrust endpoint from MEX"),
        (
            "federated-wrong-password",
            "RuntimeError: WsTrust server returned error in RSTR: "
            "{'reason': 'ID3242: The security token could not be authenticated or authorized.'",
        ),
    ],
)
def test_what_the_services_do_not_take(tenant, run, scenario, words):
    SCENARIOS[scenario](tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(NO_SIGN_IN + words)
    assert "token" not in tenant.steps()


@pytest.mark.parametrize("type_element", ["", "<t:TokenType>somewhere else</t:TokenType>"])
def test_an_assertion_that_msal_quotes_is_not_printed(tenant, run, type_element):
    tenant.entra.realm = "Federated"
    tenant.directory.secrets.add("the assertion")
    body = RSTR.format(assertion=ASSERTION.format("the assertion"))
    before, _, after = body.partition("<t:TokenType>")
    body = before + type_element + after.partition("</t:TokenType>")[2]
    tenant.replace("wstrust", Answer(200, body.encode()))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(NO_SIGN_IN + "RuntimeError: ")


@pytest.mark.parametrize("password", ["пароль", "pass\u20acword"])
def test_a_password_that_cannot_be_sent_is_not_quoted(tenant, run, password):
    SCENARIOS["federated"](tenant)
    tenant.directory.password = password
    tenant.directory.secrets.update(["пароль", "\u20ac", "\\u20ac"])
    result = run(password=password)
    # An old urllib3 cannot send it, a newer one can.
    assert result.status == 0 or result.stderr.startswith(NO_SIGN_IN + "UnicodeEncodeError: ")


FAULTS = {
    "500": Answer(500, b"<html>Internal Server Error</html>"),
    "html": HTML,
    "list": Answer(200, b"[]"),
    "hang-up": HANG_UP,
}


@pytest.mark.py27
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", ["discovery", "instance", "realm", "mex", "wstrust", "token"])
def test_a_broken_sign_in_service_ends_in_words(tenant, run, step, fault):
    if step in ("mex", "wstrust"):
        tenant.entra.realm = "Federated"
    tenant.replace(step, FAULTS[fault])
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(NO_SIGN_IN)
    assert tenant.requests[-1][0] == step
    if fault != "hang-up":  # MSAL's own session asks once more when a connection breaks.
        assert tenant.steps().count(step) == 1


@pytest.mark.parametrize("step", ["discovery", "instance", "token"])
def test_an_object_of_another_shape_ends_in_words(tenant, run, step):
    tenant.replace(step, json_answer({"unexpected": 1}))
    result = run()
    assert result.status == 1
    assert result.stderr == "None\nNone\nNone\n" or result.stderr.startswith(NO_SIGN_IN)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_password_is_not_sent_again_to_a_busy_service(tenant, run, status):
    tenant.replace("token", Answer(status, b"", {"Retry-After": "1"}))
    assert run().status == 1
    assert tenant.steps().count("token") == 1


# Graph refuses, or is not there.


@pytest.mark.py27
def test_a_refused_call_prints_what_graph_says(tenant, run):
    SCENARIOS["forbidden"](tenant)
    status, stdout, stderr = run()
    said, content = stderr.split("\n", 1)
    assert (status, stdout, said) == (1, "", CALL_FAILED + "Forbidden")
    assert content.startswith('Content: {\n  "error": {\n')
    assert json.loads(content[len("Content: ") :])["error"]["message"] == (
        "Insufficient privileges to complete the operation."
    )


@pytest.mark.py27
def test_a_refusal_with_letters_outside_ascii_is_told_whole(tenant, run):
    refusal = tenant.graph.error(403, "Authorization_RequestDenied", "Nicht für Zoë.")
    tenant.replace("graph", refusal)
    content = run().stderr.split("Content: ")[1]
    assert json.loads(content)["error"]["message"] == "Nicht für Zoë."


def test_a_refusal_without_a_phrase_shows_its_number(tenant, run):
    tenant.replace("graph", Answer(460, b"nothing here"))
    assert run() == (1, "", CALL_FAILED + "460\nContent: nothing here\n")


@pytest.mark.py27
def test_a_refusal_that_is_no_json_shows_its_first_kilobyte(tenant, run):
    page = "<html>Zürich" + "x" * 5000
    tenant.replace("graph", Answer(500, page.encode(), {"Content-Type": "text/html;charset=utf-8"}))
    expected = CALL_FAILED + "Internal Server Error\nContent: " + page[:1024] + "\n"
    assert run() == (1, "", expected)


@pytest.mark.py27
@pytest.mark.parametrize("status", [201, 204, 302, 400, 401, 404, 500])
def test_only_200_is_an_answer_and_no_redirect_is_followed(tenant, run, status):
    there = {"Location": "https://sts.example.com/elsewhere"}
    tenant.replace("graph", Answer(status, b"" if status == 204 else b"{}", there))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert len(tenant.requests) == 5


@pytest.mark.parametrize(
    "answer, words",
    [
        (HTML, "not a JSON object\nContent: <html><body>Sign in to the Wi-Fi</body></html>\n"),
        (Answer(), "not a JSON object\nContent: \n"),
        (Answer(200, b"[]"), "not a JSON object\nContent: []\n"),
        (cut_off(Answer(200, b'{"value": [1, 2, 3, 4, 5, 6, 7, 8, 9]}')), ""),
        (garbled(Answer(200, b"{" + b" " * 5000 + b"}")), ""),
    ],
)
def test_what_is_no_json_object_ends_in_words(tenant, run, answer, words):
    tenant.replace("graph", answer)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED + words)


# The network.


def test_a_dead_proxy(run):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = "http://127.0.0.1:{}".format(closed.getsockname()[1])
    result = run(env={"HTTPS_PROXY": dead, "https_proxy": dead})
    assert result.status == 1
    assert result.stderr.startswith(NO_SIGN_IN + "ProxyError: ")
    assert "refused" in result.stderr


def test_an_untrusted_certificate(tenant, run, tmp_path):
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    result = run(env={"REQUESTS_CA_BUNDLE": str(bundle)})
    assert result.status == 1
    assert result.stderr.startswith(NO_SIGN_IN)
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    assert tenant.requests == []


@pytest.mark.parametrize("scenario", ["unknown-tenant", "not-json", "forbidden"])
def test_verbose_shows_the_traceback_behind_an_error(tenant, run, scenario):
    SCENARIOS[scenario](tenant)
    result = run("-v")
    assert result.status == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert ("AADSTS90002" in result.stderr) == (scenario == "unknown-tenant")


@posix
@pytest.mark.parametrize("step", ["discovery", "graph"])
def test_ctrl_c_ends_the_run_quietly(tenant, start, step):
    tenant.replace(step, SILENCE)
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while step not in tenant.steps():
        assert process.poll() is None
        time.sleep(0.01)
    assert interrupt(process) == 130
    assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
