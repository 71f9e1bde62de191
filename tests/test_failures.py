"""What a run that fails prints: nothing on stdout, the reason on stderr, status 1."""

import json
import socket
import subprocess
import time

import pytest
import trustme
from conftest import CALL_FAILED, interrupt, posix
from local_tenant import GRAPH, HANG_UP, HTML, LOGIN, SCENARIOS, SILENCE, Answer, cut_off, garbled


@pytest.mark.py27
def test_a_wrong_password_prints_the_error_triple(tenant, run):
    tenant.password = "another one"
    status, stdout, stderr = run()
    error, description, correlation_id = stderr.splitlines()
    assert (status, stdout, error) == (1, "", "invalid_grant")
    assert description.startswith("AADSTS50126: Error validating credentials due to invalid")
    assert correlation_id == tenant.requests[3].headers["client-request-id"]
    assert tenant.steps() == ["discovery", "instance", "realm", "token"]


def test_what_is_missing_in_an_error_is_none(tenant, run):
    tenant.replace("token", tenant.json({"error": "temporarily_unavailable"}, 400))
    assert run() == (1, "", "temporarily_unavailable\nNone\nNone\n")


@pytest.mark.py27
def test_missing_consent_prints_where_to_consent(tenant, run):
    SCENARIOS["no-consent"](tenant)
    status, stdout, stderr = run()
    lines = stderr.splitlines()
    assert (status, len(lines)) == (1, 4)
    assert lines[1].startswith("AADSTS65001: ")
    link = "Visit this to consent: https://{}/organizations/oauth2/v2.0/authorize?".format(LOGIN)
    assert lines[3].startswith(link)
    for part in ("client_id=your_client_id", "User.ReadBasic.All", "response_mode=form_post"):
        assert part in lines[3]


@pytest.mark.py27
def test_a_refused_call_prints_what_graph_says(tenant, run):
    SCENARIOS["forbidden"](tenant)
    status, stdout, stderr = run()
    said, content = stderr.split("\n", 1)
    assert (status, said) == (1, CALL_FAILED + "Forbidden")
    assert content.startswith('Content: {\n  "error": {\n')
    assert json.loads(content[len("Content: ") :])["error"]["message"] == (
        "Insufficient privileges to complete the operation."
    )


def test_a_refusal_without_a_phrase_shows_its_number(tenant, run):
    tenant.replace("graph", Answer(460, b"nothing here"))
    assert run() == (1, "", CALL_FAILED + "460\nContent: nothing here\n")


def test_a_refusal_that_is_no_json_shows_its_first_kilobyte(tenant, run):
    tenant.replace("graph", Answer(500, b"<html>" + b"x" * 5000, {"Content-Type": "text/html"}))
    expected = CALL_FAILED + "Internal Server Error\nContent: <html>" + "x" * 1018 + "\n"
    assert run() == (1, "", expected)


@pytest.mark.py27
@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 401, 404, 410])
def test_only_200_is_an_answer(tenant, run, status):
    body = b"" if status == 204 else b"{}"
    there = {"Location": "https://sts.example.com/elsewhere"}
    tenant.replace("graph", Answer(status, body, there))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert tenant.steps().count("graph") == 1
    assert len(tenant.requests) == 5


@pytest.mark.py27
def test_a_token_that_graph_refuses(tenant, run):
    tenant.uses = 0
    assert '"code": "InvalidAuthenticationToken"' in run().stderr


def test_an_unknown_tenant_shows_what_stands_behind_it(tenant, run):
    tenant.tenants.clear()
    stderr = run().stderr
    assert stderr.startswith("Could not sign in: ValueError: Unable to get authority configuration")
    assert "AADSTS90002: Tenant 'organizations' not found." in stderr


def test_an_authority_without_a_tenant(tenant, run):
    stderr = run(authority="https://{}".format(LOGIN)).stderr
    assert stderr.startswith("Could not sign in: ValueError: ")
    assert tenant.requests == []


def test_a_scope_that_msal_reserves(run):
    stderr = run(scope=["offline_access"]).stderr
    assert stderr.startswith("Could not sign in: ValueError: ")


@pytest.mark.parametrize(
    "scenario, words",
    [
        ("federated-wrong-password", "ID3242: The security token could not be authenticated"),
        ("personal-account", "Unable to find wstrust endpoint from MEX"),
    ],
)
def test_what_adfs_refuses(tenant, run, scenario, words):
    SCENARIOS[scenario](tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith("Could not sign in: ")
    assert words in result.stderr
    assert "token" not in tenant.steps()


FAULTS = {
    "500": Answer(500, b"<html>Internal Server Error</html>"),
    "html": HTML,
    "empty": Answer(),
    "list": Answer(200, b"[]"),
    "string": Answer(200, b'"a"'),
    "cut-off": cut_off(Answer(200, b'{"token_endpoint": "https://somewhere.example.com/"}')),
    "hang-up": HANG_UP,
    "garbled": garbled(Answer(200, b"{" + b" " * 5000 + b"}")),
}


@pytest.mark.py27
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("step", ["discovery", "instance", "realm", "mex", "wstrust", "token"])
def test_a_broken_sign_in_service_ends_in_words(tenant, run, step, fault):
    if step in ("mex", "wstrust"):
        tenant.realm = "Federated"
    tenant.replace(step, FAULTS[fault])
    result = run()
    assert result.status == 1
    assert result.stderr.startswith("Could not sign in: ")
    assert tenant.requests[-1].step == step
    assert tenant.steps().count(step) == 1


@pytest.mark.parametrize("step", ["discovery", "instance", "token"])
def test_an_object_of_another_shape_ends_in_words(tenant, run, step):
    tenant.replace(step, tenant.json({"unexpected": 1}))
    result = run()
    assert result.status == 1
    assert result.stderr == "None\nNone\nNone\n" or result.stderr.startswith("Could not sign in: ")


@pytest.mark.parametrize(
    "fault, words",
    [
        ("500", CALL_FAILED + "Internal Server Error\nContent: <html>Internal Server Error</html>"),
        ("html", CALL_FAILED + "the answer is not a JSON object\n"),
        ("empty", CALL_FAILED + "the answer is not a JSON object\n"),
        ("list", CALL_FAILED + "the answer is not a JSON object\n"),
        ("string", CALL_FAILED + "the answer is not a JSON object\n"),
        ("cut-off", CALL_FAILED),
        ("garbled", CALL_FAILED),
    ],
)
def test_a_broken_graph_ends_in_words(tenant, run, fault, words):
    tenant.replace("graph", FAULTS[fault])
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(words)


@pytest.mark.parametrize("status", [200, 403])
def test_an_answer_nested_too_deep_ends_in_words(tenant, run, status):
    tenant.replace("graph", Answer(status, b'{"a":' * 100000 + b"1" + b"}" * 100000))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)


@pytest.mark.parametrize("status", [500, 503, 429])
def test_sign_in_is_never_repeated(tenant, run, status):
    tenant.replace("token", Answer(status, b"", {"Retry-After": "1"}))
    assert run().status == 1
    assert tenant.steps().count("token") == 1


@pytest.mark.py27
@pytest.mark.parametrize("step", ["token", "wstrust"])
@pytest.mark.parametrize("where", ["https://{}/elsewhere", "http://{}/elsewhere", ""])
@pytest.mark.parametrize("status", [302, 307, 308])
def test_the_password_does_not_follow_a_redirect(tenant, run, step, where, status):
    tenant.realm = "Federated" if step == "wstrust" else "Managed"
    there = {"Location": where.format("sts.example.com")}
    tenant.replace(step, Answer(status, b"", there), then_happy=True)
    assert run().status == 1
    assert tenant.requests[-1].step == step
    assert tenant.steps().count(step) == 1


@pytest.mark.parametrize("spoil", ["{}\n", " {} "])
def test_a_blank_at_a_tokens_edge_does_no_harm(tenant, run, document, spoil):
    def spoilt(request):
        body = json.loads(tenant.on_token(request).body)
        return tenant.json(dict(body, access_token=spoil.format(body["access_token"])))

    tenant.replace("token", spoilt)
    assert run() == (0, document(), "")


def test_a_dead_proxy(tenant, run):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = "http://127.0.0.1:{}".format(closed.getsockname()[1])
    result = run(env={"HTTPS_PROXY": dead})
    assert result.status == 1
    assert result.stderr.startswith("Could not sign in: ProxyError: ")


@pytest.mark.parametrize("env", ["unknown", "missing"])
def test_an_untrusted_certificate(tenant, run, tmp_path, env):
    bundle = tmp_path / "ca.pem"
    if env == "unknown":
        trustme.CA().cert_pem.write_to_path(str(bundle))
    result = run(env={"REQUESTS_CA_BUNDLE": str(bundle)})
    assert result.status == 1
    assert result.stderr.startswith("Could not sign in: ")
    assert ("CERTIFICATE_VERIFY_FAILED" if env == "unknown" else str(bundle)) in result.stderr
    assert tenant.requests == []


@pytest.mark.slow
def test_an_untrusted_certificate_of_graph_gets_no_token(tenant, run):
    tenant.context(LOGIN)
    tenant._ca = trustme.CA()
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    assert "graph" not in tenant.steps()


def test_a_password_that_cannot_be_sent_is_not_quoted(tenant, run):
    SCENARIOS["federated"](tenant)
    tenant.password = "пароль"
    tenant.secrets.update(tenant.password)
    result = run("-v", password=tenant.password)
    assert result.status == 0 or result.stderr.splitlines()[-1] == (
        "Could not sign in: the username or the password has a character out of Latin-1"
    )


def test_a_username_that_cannot_be_sent_is_told(run):
    result = run(username="użytkownik@your_tenant.com")
    assert result.status == 1
    assert result.stderr == (
        "Could not sign in: the username or the password has a character out of Latin-1\n"
    )


@pytest.mark.py27
def test_an_error_with_letters_outside_ascii_is_told_whole(tenant, run):
    text = "Application with identifier 'a' was not found in the directory 'Müller GmbH'."
    tenant.refuse(700016, text, "unauthorized_client")
    result = run()
    assert (result.status, len(result.stderr.splitlines())) == (1, 3)
    assert "AADSTS700016: {} Trace ID".format(text) in result.stderr


@pytest.mark.py27
def test_a_refusal_with_letters_outside_ascii_is_told_whole(tenant, run):
    refusal = tenant.graph_error(None, 403, "Authorization_RequestDenied", "Nicht für Zoë.")
    tenant.replace("graph", refusal)
    content = run().stderr.split("Content: ")[1]
    assert json.loads(content)["error"]["message"] == "Nicht für Zoë."


@pytest.mark.parametrize("spoil", [lambda body: body + b"junk", lambda body: body[:-1]])
def test_tokens_in_an_answer_that_cannot_be_read_are_not_logged(tenant, run, spoil):
    def spoilt(request):
        answer = tenant.on_token(request)
        return answer._replace(body=spoil(answer.body))

    tenant.replace("token", spoilt)
    assert run("-v").status == 1


@pytest.mark.parametrize("scenario", ["wrong-password", "unknown-tenant", "not-json", "forbidden"])
def test_verbose_shows_more_and_no_secret(tenant, run, scenario):
    SCENARIOS[scenario](tenant)
    result = run("-v")
    assert result.status == 1
    assert "Starting new HTTPS connection" in result.stderr
    assert ("Traceback" in result.stderr) == (scenario != "wrong-password")


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


@pytest.mark.slow
@pytest.mark.parametrize("step", ["discovery", "instance", "realm", "wstrust", "token", "graph"])
def test_a_silent_server_ends_the_run(tenant, run, step):
    tenant.realm = "Federated" if step == "wstrust" else "Managed"
    tenant.replace(step, SILENCE)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED if step == "graph" else "Could not sign in: ")
    assert "timed out" in result.stderr.lower()
    assert tenant.steps().count(step) == (2 if step == "graph" else 1)


@pytest.mark.slow
def test_a_proxy_that_leads_nowhere_ends_the_run(tenant, run):
    tenant.silent_hosts.add(GRAPH)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(CALL_FAILED)
    assert tenant.connections == [LOGIN, GRAPH, GRAPH]
