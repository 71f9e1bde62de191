"""The sign-in: what is sent, what the sample reports if there's no token, and the prompt.

The error triple is Entra's error, error_description, and correlation_id, one per line.
"""

import contextlib
import json
import os
import socket
import subprocess
import threading

import pytest
import trustme
from helpers import (
    CALL_FAILED,
    GRAPH,
    GRAPH_PROXY,
    LOGIN,
    NO_WAITS,
    PROMPT,
    SIGN_IN_FAILED,
    TRIES,
    expire_access_tokens,
    linux,
    posix,
    press_ctrl_c,
    read_terminal,
    sample,
    shipped_settings,
    users_of,
)
from tenant.adfs import ASSERTION, RSTR
from tenant.messages import HANG_UP, SILENCE, Answer, cut_off, json_answer
from tenant.scenarios import SCENARIOS, WEB_PAGE

MSAL_TRIES = 2  # If a connection breaks, MSAL itself sends the request once more.

through_a_proxy = pytest.mark.parametrize(
    "variable, failed",
    [("HTTPS_PROXY", SIGN_IN_FAILED), (GRAPH_PROXY, CALL_FAILED)],
    ids=["sign-in", "Graph"],
)

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
    for key in ("client_id", "username", "password"):
        assert form[key] == shipped_settings()[key]
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
    tenant.entra.refuse(50126, "Das Kennwort für Zoë ist falsch.")
    result = run()
    error, description, correlation_id = result.stderr.splitlines()
    assert result.status == 1
    assert error == SIGN_IN_FAILED + "invalid_grant"
    assert description.startswith("AADSTS50126: Das Kennwort für Zoë ist falsch. ")
    assert correlation_id == tenant.requests[-1][1].headers["client-request-id"]


@pytest.mark.py27
@pytest.mark.parametrize(
    "answer, error",
    [(json_answer({"error": "busy"}, 400), "busy"), (json_answer({}), "None")],
    ids=["only an error", "empty object"],
)
def test_missing_values_in_the_error_triple_are_printed_as_none(tenant, run, answer, error):
    tenant.replace("token", answer)
    assert run() == (1, "", "{}{}\nNone\nNone\n".format(SIGN_IN_FAILED, error))


@pytest.mark.parametrize(
    "step, answer, count",
    [
        ("token", json_answer({"error": "invalid_grant"}, 400), 1),
        ("token", Answer(429, headers={"Retry-After": "1"}), 1),
        ("token", Answer(503, headers={"Retry-After": "1"}), 1),
        ("token", SILENCE, 1),
        ("token", HANG_UP, MSAL_TRIES),
        ("wstrust", Answer(503, headers={"Retry-After": "1"}), 1),
        ("wstrust", SILENCE, 1),
    ],
    ids=["refused", "429", "503", "silence", "hang up", "AD FS 503", "AD FS silence"],
)
def test_sample_never_repeats_a_sign_in(tenant, run, step, answer, count):
    tenant.entra.realm = "Federated" if step == "wstrust" else "Managed"
    tenant.replace(step, answer)
    result = run(constants=dict(NO_WAITS, TIMEOUT=[20, 0.5]))
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert tenant.steps().count(step) == count


# MSAL raises an exception


def test_username_that_cannot_be_encoded_is_reported(run):
    result = run(username="użytkownik@your_tenant.com")
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "character" in result.stderr


@pytest.mark.parametrize(
    "change, words",
    [
        (SCENARIOS["unknown-tenant"], "AADSTS90002"),
        (SCENARIOS["socks-proxy"], "Missing dependencies for SOCKS support"),
        (lambda tenant: tenant.replace("discovery", WEB_PAGE), "Expecting value"),
    ],
    ids=["unknown tenant", "SOCKS proxy", "web page"],
)
def test_cause_that_msal_hides_is_printed(tenant, run, change, words):
    change(tenant)
    result = run()
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert words in result.stderr
    assert "token" not in tenant.steps()


@through_a_proxy
@pytest.mark.parametrize(
    "login", ["user:S3cret#x", "user:S3cret/x", "user:S3cret?x", "user:S3cret\\x", "user:[S3cret]"]
)
def test_proxy_login_that_is_not_percent_encoded_is_not_printed(run, variable, failed, login):
    proxy = "http://{}@127.0.0.1:9".format(login)
    result = run(constants=NO_WAITS, env={variable: proxy, variable.lower(): proxy})
    assert result.status == 1
    assert result.stderr.startswith(failed)
    assert "proxy" in result.stderr
    assert "S3cret" not in result.stderr


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


# Broken services

SIGN_IN_STEPS = ["discovery", "instance", "realm", "mex", "wstrust", "token"]
FAULTS = {
    "500": Answer(500, b"<html>Internal Server Error</html>"),
    "web page": WEB_PAGE,
    "cut off": cut_off(Answer(200, b'{"token_endpoint": "https://login.microsoftonline.com"}')),
    "another object": json_answer({"unexpected": 1}),
}


@pytest.mark.parametrize(
    "step, fault",
    [
        *[(step, "cut off") for step in SIGN_IN_STEPS],
        *[(step, "web page") for step in ("discovery", "mex", "wstrust", "token")],
        *[(step, "another object") for step in ("discovery", "instance", "token")],
        ("discovery", "500"),
        ("token", "500"),
    ],
)
def test_broken_sign_in_service_is_reported(tenant, run, step, fault):
    if step in ("mex", "wstrust"):
        tenant.entra.realm = "Federated"
    tenant.replace(step, FAULTS[fault])
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert len(result.stderr) > len(SIGN_IN_FAILED) + 1


def test_sample_waits_out_an_outage_before_the_sign_in(tenant, run):
    broken = [HANG_UP] * (MSAL_TRIES * (TRIES - 1))
    tenant.replace("discovery", *broken, then_happy=True)
    users_of(run(constants=NO_WAITS))
    assert tenant.grants() == ["password"]


@pytest.mark.parametrize("answer", [HANG_UP, SILENCE], ids=["hang up", "silence"])
def test_persistent_outage_before_the_sign_in_is_reported_after_the_retries(tenant, run, answer):
    tenant.replace("discovery", answer)
    result = run(constants=dict(NO_WAITS, TIMEOUT=[20, 0.3]))
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert tenant.steps() == ["discovery"] * (MSAL_TRIES * TRIES)


@pytest.fixture
def silent_address():
    """The URL of a port that neither accepts nor refuses connections."""
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # They fill the queue, because nothing takes them out.
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        yield "http://127.0.0.1:{}".format(listener.getsockname()[1])


@linux
@through_a_proxy
def test_connecting_has_a_timeout_of_its_own(run, silent_address, variable, failed):
    _, silence = sample.TIMEOUT
    constants = dict(NO_WAITS, TIMEOUT=[0.1, silence])
    env = {variable: silent_address, variable.lower(): silent_address}
    result = run(constants=constants, env=env)
    assert result.status == 1
    assert result.stderr.startswith(failed)
    assert "connect timeout=0.1" in result.stderr


def change_certificate(tenant):
    tenant.server.authority = trustme.CA()


@pytest.mark.parametrize(
    "change, word",
    [(change_certificate, "CERTIFICATE_VERIFY_FAILED"), (SCENARIOS["proxy-login"], "407")],
    ids=["untrusted certificate", "proxy login"],
)
def test_permanent_network_error_is_not_retried(tenant, run, change, word):
    change(tenant)
    result = run(constants=NO_WAITS)
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert word in result.stderr
    assert tenant.requests == []
    assert len(tenant.server.connections) <= MSAL_TRIES


# No password


@pytest.mark.py27
@pytest.mark.parametrize(
    "change",
    [{"password": ""}, {"password": None}, {"password": "", "token_cache": "cache.json"}],
    ids=["empty", "null", "with a token cache"],
)
def test_missing_password_is_reported_with_the_settings_to_add(tenant, run, parameters, change):
    settings = dict(shipped_settings(), **change)
    result = run(path=parameters(json.dumps(settings).encode()))
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert '"password"' in result.stderr
    assert '"token_cache"' in result.stderr
    assert "token" not in tenant.steps()


@posix
def test_missing_password_is_reported_with_stdin_closed(run):
    result = run(password=None, preexec_fn=lambda: os.close(0))
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)


@posix
@pytest.mark.py27
def test_typed_password_signs_in_and_is_not_shown(tenant, type_at_prompt):
    result = type_at_prompt(password=None)
    assert result.status == 0
    assert result.stderr.count(PROMPT) == 1
    assert tenant.directory.password not in result.stderr
    assert tenant.grants() == ["password"]


@posix
@pytest.mark.py27
def test_prompt_after_a_refused_saved_sign_in_follows_entras_reason(
    tenant, run, type_at_prompt, cache
):
    users_of(run(token_cache="cache.json"))
    expire_access_tokens(cache)
    tenant.entra.revoke_refresh_tokens()
    result = type_at_prompt(password=None, token_cache="cache.json")
    assert result.status == 0
    assert "AADSTS50173" in result.stderr.partition(PROMPT)[0]
    assert tenant.grants() == ["password", "refresh_token", "password"]


@posix
def test_typed_password_is_used_again_without_another_prompt(tenant, type_at_prompt):
    tenant.entra.sends_id_token = False  # Without it, MSAL saves no sign-in that can be renewed.
    SCENARIOS["token-revoked"](tenant)
    result = type_at_prompt(password=None)
    assert result.status == 0
    assert len(json.loads(result.stdout)["value"]) == 500
    assert result.stderr.count(PROMPT) == 1
    assert tenant.grants() == ["password", "password"]


@posix
def test_wrong_password_in_the_settings_does_not_lead_to_a_prompt(type_at_prompt):
    result = type_at_prompt(password="wrong")
    assert (result.status, PROMPT in result.stderr) == (1, False)


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
@pytest.mark.parametrize("keys", ["\n", "\x04"], ids=["Enter", "Ctrl+D"])
def test_prompt_without_an_answer_is_reported_with_the_settings_to_add(
    tenant, type_at_prompt, keys
):
    result = type_at_prompt(keys, password=None, token_cache="cache.json")
    assert result.status == 1
    advice = result.stderr.partition(SIGN_IN_FAILED)[2]
    assert '"password"' in advice
    assert '"token_cache"' in advice
    assert "token" not in tenant.steps()


@posix
def test_ctrl_c_at_the_prompt_exits_with_130(type_at_prompt):
    result = type_at_prompt(None, password=None)
    assert (result.status, result.stdout) == (130, "")
    assert len(result.stderr.splitlines()) == 1


@posix
@pytest.mark.parametrize("step", ["discovery", "graph"])
def test_ctrl_c_during_a_request_exits_with_130(tenant, start, step):
    asked = threading.Event()

    def silence(request):
        asked.set()
        return SILENCE

    tenant.replace(step, silence)
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert asked.wait(20)
    assert press_ctrl_c(process) == 130
    assert (process.stdout.read(), process.stderr.read()) == (b"", b"")
