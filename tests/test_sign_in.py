"""The sign-in: what is sent, what the sample reports if there's no token, and the prompt.

The error triple is Entra's error, error_description, and correlation_id, one per line.
"""

import os
import subprocess

import pytest
import trustme
from helpers import (
    GRAPH,
    LOGIN,
    SIGN_IN_FAILED,
    posix,
    press_ctrl_c,
    read_terminal,
    users_of,
)
from tenant.adfs import ASSERTION, RSTR
from tenant.messages import HANG_UP, SILENCE, Answer, cut_off, json_answer
from tenant.scenarios import SCENARIOS, WEB_PAGE

PROMPT = "Password for your_username@your_tenant.com: "

# What is sent


@pytest.mark.py27
def test_one_run_sends_five_requests_on_two_connections(tenant, run):
    users_of(run())
    assert [(r.method, r.host, r.path) for _, r in tenant.requests] == [
        ("GET", LOGIN, "/organizations/v2.0/.well-known/openid-configuration"),
        ("GET", LOGIN, "/common/discovery/instance"),
        ("GET", LOGIN, "/common/userrealm/your_username@your_tenant.com"),
        ("POST", LOGIN, "/organizations/oauth2/v2.0/token"),
        ("GET", GRAPH, "/v1.0/users"),
    ]
    assert tenant.server.connections == [LOGIN + ":443", GRAPH + ":443"]


@pytest.mark.py27
def test_settings_are_sent_in_the_token_request(tenant, run):
    users_of(run())
    form = tenant.requests[3][1].form
    assert form["grant_type"] == "password"
    assert form["client_id"] == "your_client_id"
    assert form["username"] == "your_username@your_tenant.com"
    assert form["password"] == tenant.directory.password
    assert "User.ReadBasic.All" in form["scope"].split()


@pytest.mark.py27
def test_access_token_is_sent_only_to_graph(tenant, run):
    users_of(run())
    *to_entra, to_graph = [request for _, request in tenant.requests]
    scheme, _, token = to_graph.headers["Authorization"].partition(" ")
    assert scheme == "Bearer"
    assert token in tenant.directory.secrets
    assert all("Authorization" not in request.headers for request in to_entra)


@pytest.mark.py27
@pytest.mark.parametrize(
    "version, steps", [("13", ["mex", "wstrust", "token"]), ("2005", ["wstrust", "token"])]
)
def test_password_of_a_federated_account_is_sent_only_to_its_ad_fs(tenant, run, version, steps):
    tenant.entra.realm, tenant.entra.ws_trust = "Federated", version
    users_of(run())
    assert tenant.steps() == ["discovery", "instance", "realm", *steps, "graph"]
    password = tenant.directory.password.encode()
    assert [step for step, r in tenant.requests if password in r.body] == ["wstrust"]


# Entra refuses


@pytest.mark.py27
def test_wrong_password_prints_the_error_triple(tenant, run):
    SCENARIOS["wrong-password"](tenant)
    result = run()
    error, description, correlation_id = result.stderr.splitlines()
    assert result.status == 1
    assert error == SIGN_IN_FAILED + "invalid_grant"
    assert description.startswith("AADSTS50126: ")
    assert correlation_id == tenant.requests[-1][1].headers["client-request-id"]


@pytest.mark.py27
def test_missing_values_in_the_error_triple_are_printed_as_none(tenant, run):
    tenant.replace("token", json_answer({"error": "temporarily_unavailable"}, 400))
    assert run() == (1, "", SIGN_IN_FAILED + "temporarily_unavailable\nNone\nNone\n")


@pytest.mark.py27
def test_description_with_non_ascii_text_is_printed_in_full(tenant, run):
    tenant.entra.refuse(700016, "It isn't in the directory 'Müller GmbH'.", "unauthorized_client")
    result = run()
    assert (result.status, len(result.stderr.splitlines())) == (1, 3)
    assert "AADSTS700016: It isn't in the directory 'Müller GmbH'. Trace ID" in result.stderr


def test_refused_password_is_sent_only_once(tenant, run):
    SCENARIOS["mfa-required"](tenant)
    assert run().status == 1
    assert tenant.grants() == ["password"]


# MSAL raises an exception


@pytest.mark.parametrize(
    "change, word",
    [
        ({"authority": "https://login.microsoftonline.com"}, "address"),
        ({"scope": ["offline_access"]}, "offline_access"),
        ({"scope": [1]}, "int"),
        ({"username": "użytkownik@your_tenant.com"}, "latin-1"),
    ],
)
def test_settings_that_msal_refuses_are_reported(run, change, word):
    result = run(**change)
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert word in result.stderr


@pytest.mark.parametrize(
    "scenario, words",
    [
        ("unknown-tenant", "Unable to get authority configuration"),
        ("personal-account", "Unable to find wstrust endpoint from MEX"),
        ("federated-wrong-password", "ID3242: The security token could not be authenticated"),
    ],
)
def test_reason_for_an_msal_exception_is_printed(tenant, run, scenario, words):
    SCENARIOS[scenario](tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert words in result.stderr
    assert "token" not in tenant.steps()


@pytest.mark.parametrize("token_type", ["", "<t:TokenType>unknown</t:TokenType>"])
def test_ad_fs_assertion_that_msal_quotes_is_not_printed(tenant, run, token_type):
    tenant.entra.realm = "Federated"
    tenant.directory.secrets.add("the assertion")
    answer = RSTR.format(assertion=ASSERTION.format("the assertion"))
    before, _, rest = answer.partition("<t:TokenType>")
    answer = before + token_type + rest.partition("</t:TokenType>")[2]
    tenant.replace("wstrust", Answer(200, answer.encode()))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "<s:" not in result.stderr


@pytest.mark.parametrize("password", ["пароль", "pass\u20acword"])
def test_password_that_cannot_be_encoded_is_not_printed(tenant, run, password):
    SCENARIOS["federated"](tenant)
    tenant.directory.password = password
    tenant.directory.secrets.update(["пароль", "\u20ac", "\\u20ac"])
    result = run(password=password)
    # Old releases of urllib3 can't encode this password. Newer ones can.
    assert result.status == 0 or result.stderr.startswith(SIGN_IN_FAILED)


STEPS = ["discovery", "instance", "realm", "mex", "wstrust", "token"]
FAULTS = {
    "500": Answer(500, b"<html>Internal Server Error</html>"),
    "web page": WEB_PAGE,
    "hang up": HANG_UP,
    "cut off": cut_off(Answer(200, b'{"token_endpoint": "https://login.microsoftonline.com"}')),
}


@pytest.mark.parametrize(
    "step, fault",
    [
        *[(step, "cut off") for step in STEPS],
        *[(step, "web page") for step in ("discovery", "mex", "wstrust", "token")],
        ("discovery", "500"),
        ("token", "500"),
        ("token", "hang up"),
    ],
)
def test_broken_sign_in_service_is_reported(tenant, run, step, fault):
    if step in ("mex", "wstrust"):
        tenant.entra.realm = "Federated"
    tenant.replace(step, FAULTS[fault])
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert len(result.stderr) > len(SIGN_IN_FAILED) + 1
    assert tenant.requests[-1][0] == step


@pytest.mark.parametrize("step", ["discovery", "instance", "token"])
def test_unexpected_object_from_entra_is_reported(tenant, run, step):
    tenant.replace(step, json_answer({"unexpected": 1}))
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)


@pytest.mark.parametrize("step, status", [("wstrust", 503), ("token", 429), ("token", 503)])
def test_password_is_sent_only_once_to_a_busy_service(tenant, run, step, status):
    if step == "wstrust":
        tenant.entra.realm = "Federated"
    tenant.replace(step, Answer(status, b"", {"Retry-After": "1"}))
    assert run().status == 1
    assert tenant.steps().count(step) == 1


@pytest.mark.parametrize("step", ["discovery", "wstrust", "token"])
def test_silent_sign_in_service_is_reported_after_the_timeout(tenant, run, step):
    if step == "wstrust":
        tenant.entra.realm = "Federated"
    tenant.replace(step, SILENCE)
    result = run(constants={"TIMEOUT": 0.5})
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "timed out" in result.stderr.lower()
    if step in ("wstrust", "token"):
        assert tenant.steps().count(step) == 1


def test_unreachable_proxy_is_reported(tenant, run):
    SCENARIOS["no-network"](tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "refused" in result.stderr


def test_untrusted_certificate_is_reported(tenant, run, tmp_path):
    bundle = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(str(bundle))
    result = run(env={"REQUESTS_CA_BUNDLE": str(bundle)})
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "CERTIFICATE_VERIFY_FAILED" in result.stderr
    assert tenant.requests == []


# No password


@pytest.mark.py27
@pytest.mark.parametrize("password", [None, ""])
def test_missing_password_is_reported_with_the_settings_to_add(tenant, run, password):
    result = run(password=password)
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert '"password"' in result.stderr
    assert '"token_cache"' in result.stderr
    assert "token" not in tenant.steps()


def test_null_password_counts_as_missing(tenant, run, parameters):
    settings = b'{"password": null, "authority": "https://login.microsoftonline.com/organizations",'
    settings += b'"client_id": "your_client_id", "username": "your_username@your_tenant.com",'
    settings += b'"scope": ["User.ReadBasic.All"], "endpoint": "https://graph.microsoft.com/v1.0"}'
    result = run(path=parameters(settings))
    assert result.status == 1
    assert '"password"' in result.stderr


@pytest.mark.py27
def test_missing_password_with_a_token_cache_is_reported_with_what_to_do(run):
    result = run(password=None, token_cache="cache.json")
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "terminal" in result.stderr
    assert '"password"' not in result.stderr


@posix
def test_missing_password_is_reported_with_stdin_closed(start):
    process = start(password=None, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(0))
    assert process.stderr.read().decode().startswith(SIGN_IN_FAILED)
    assert process.wait() == 1


@posix
@pytest.mark.py27
def test_prompt_on_a_terminal_does_not_show_the_password(tenant, type_at_prompt):
    keys = tenant.directory.password.encode() + b"\n"
    result = type_at_prompt(keys, password=None)
    assert result.status == 0
    assert tenant.grants() == ["password"]
    if "Warning" not in result.stderr:  # Libraries can warn about an old Python.
        assert result.stderr == PROMPT + "\n"
    assert tenant.directory.password not in result.stderr


@posix
@pytest.mark.parametrize("stream", ["stdin", "stderr"])
def test_no_prompt_appears_unless_stdin_and_stderr_are_terminals(tenant, start, stream):
    import pty

    master, slave = pty.openpty()
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, stream: slave}
    process = start(password=None, stdout=subprocess.PIPE, **streams)
    os.close(slave)
    assert process.stdout.read() == b""
    assert process.wait() == 1
    shown = read_terminal(master) if stream == "stderr" else process.stderr.read().decode()
    assert shown.startswith(SIGN_IN_FAILED)


@posix
@pytest.mark.parametrize("keys", [b"\n", b"\x04"])
def test_empty_password_is_not_sent(tenant, type_at_prompt, keys):
    result = type_at_prompt(keys, password=None)
    assert (result.status, result.stdout) == (1, "")
    assert SIGN_IN_FAILED in result.stderr
    assert "token" not in tenant.steps()


@posix
def test_ctrl_c_at_the_prompt_exits_with_130(type_at_prompt):
    result = type_at_prompt(None, password=None)
    assert (result.status, result.stdout) == (130, "")
    assert result.stderr.strip() == PROMPT.strip()


@posix
@pytest.mark.parametrize("step", ["discovery", "graph"])
def test_ctrl_c_during_a_request_exits_with_130(tenant, start, step):
    import threading

    asked = threading.Event()

    def silence(request):
        asked.set()
        return SILENCE

    tenant.replace(step, silence)
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert asked.wait(20)
    assert press_ctrl_c(process) == 130
    assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
