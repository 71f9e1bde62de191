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
    GRAPH,
    IMPATIENT,
    LOGIN,
    NO_WAITS,
    PROMPT,
    SIGN_IN_FAILED,
    TRIES,
    call_error,
    expire_access_tokens,
    linux,
    posix,
    press_ctrl_c,
    read_terminal,
    sample,
    sign_in_error,
    users_of,
)
from tenant.adfs import ASSERTION, RSTR
from tenant.messages import HANG_UP, SILENCE, Answer, cut_off, json_answer
from tenant.scenarios import SCENARIOS, WEB_PAGE

MSAL_TRIES = 2  # If a connection breaks, MSAL itself sends the request once more.

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
    assert ["Authorization" in r.headers for _, r in tenant.requests] == [False] * 4 + [True]


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
    error, description, correlation_id = sign_in_error(run()).splitlines()
    assert error == "invalid_grant"
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


# A service or the network fails

FAULTS = {
    "refusal": json_answer({"error": "invalid_grant"}, 400),
    "429": Answer(429, headers={"Retry-After": "1"}),
    "503": Answer(503, b"<html>Unavailable</html>", {"Retry-After": "1"}),
    "web page": WEB_PAGE,
    "another object": json_answer({"unexpected": 1}),
    "cut off": cut_off(Answer(200, b'{"token_endpoint": "https://login.microsoftonline.com"}')),
    "silence": SILENCE,
    "hang up": HANG_UP,
}
FAULTS_IN_STEPS = {
    "discovery": ["503", "web page", "another object", "cut off", "silence", "hang up"],
    "instance": ["another object", "cut off"],
    "realm": ["cut off"],
    "mex": ["web page", "cut off"],
    "wstrust": ["503", "web page", "cut off", "silence"],
    "token": list(FAULTS),
}


@pytest.mark.parametrize(
    "step, fault", [(step, fault) for step in FAULTS_IN_STEPS for fault in FAULTS_IN_STEPS[step]]
)
def test_fault_is_reported_and_only_an_outage_before_the_sign_in_is_retried(
    tenant, run, step, fault
):
    tenant.entra.realm = "Federated" if step in ("mex", "wstrust") else "Managed"
    tenant.replace(step, FAULTS[fault])
    sign_in_error(run(constants=IMPATIENT))
    if step in ("wstrust", "token"):
        assert tenant.steps().count(step) == (MSAL_TRIES if fault == "hang up" else 1)
    if step == "discovery" and fault in ("silence", "hang up"):
        assert tenant.steps() == ["discovery"] * (MSAL_TRIES * TRIES)


def test_sample_waits_out_an_outage_before_the_sign_in(tenant, run):
    tenant.replace("discovery", *[HANG_UP] * (MSAL_TRIES * (TRIES - 1)), then_happy=True)
    users_of(run(constants=NO_WAITS))


def change_certificate(tenant):
    tenant.server.authority = trustme.CA()


PERMANENT = {  # What changes the tenant, and the cause that users search for.
    "unknown tenant": (SCENARIOS["unknown-tenant"], "AADSTS90002"),
    "SOCKS proxy": (SCENARIOS["socks-proxy"], "Missing dependencies for SOCKS support"),
    "web page": (lambda tenant: tenant.replace("discovery", WEB_PAGE), "Expecting value"),
    "untrusted certificate": (change_certificate, "CERTIFICATE_VERIFY_FAILED"),
    "proxy login": (SCENARIOS["proxy-login"], "407"),
}


@pytest.mark.parametrize("change, cause", PERMANENT.values(), ids=PERMANENT)
def test_permanent_error_is_reported_with_its_cause_and_not_retried(tenant, run, change, cause):
    change(tenant)
    assert cause in sign_in_error(run(constants=NO_WAITS))
    assert set(tenant.steps()) <= {"discovery"}
    assert len(tenant.server.connections) <= MSAL_TRIES


# requests uses the value of the second variable as the proxy for Graph only.
through_a_proxy = pytest.mark.parametrize(
    "variable, error",
    [("HTTPS_PROXY", sign_in_error), ("https://graph.microsoft.com_proxy", call_error)],
    ids=["sign-in", "Graph"],
)


@through_a_proxy
@pytest.mark.parametrize(
    "login", ["user:S3cret#x", "user:S3cret/x", "user:S3cret?x", "user:S3cret\\x", "user:[S3cret]"]
)
def test_proxy_login_that_is_not_percent_encoded_is_not_printed(run, variable, error, login):
    proxy = "http://{}@127.0.0.1:9".format(login)
    reason = error(run(constants=NO_WAITS, env={variable: proxy, variable.lower(): proxy}))
    assert ("proxy" in reason, "S3cret" in reason) == (True, False)


@linux
@through_a_proxy
def test_connecting_has_a_timeout_of_its_own(run, variable, error):
    connect, silence = sample.TIMEOUT
    assert connect == 10
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):  # They fill the queue, because nothing takes them out.
            client = sockets.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        proxy = "http://127.0.0.1:{}".format(listener.getsockname()[1])
        constants = dict(NO_WAITS, TIMEOUT=[0.1, silence])
        result = run(constants=constants, env={variable: proxy, variable.lower(): proxy})
    assert "connect timeout=0.1" in error(result)


# Secrets and characters in MSAL's exceptions


@pytest.mark.parametrize("token_type", ["", "<t:TokenType>unknown</t:TokenType>"])
def test_ad_fs_assertion_that_msal_quotes_is_not_printed(tenant, run, token_type):
    tenant.entra.realm = "Federated"
    tenant.directory.secrets.add("the assertion")
    answer = RSTR.format(assertion=ASSERTION.format("the assertion"))
    before, _, rest = answer.partition("<t:TokenType>")
    answer = before + token_type + rest.partition("</t:TokenType>")[2]
    tenant.replace("wstrust", Answer(200, answer.encode()))
    assert "<s:" not in sign_in_error(run())


def test_password_that_cannot_be_encoded_is_not_printed(tenant, run):
    SCENARIOS["federated"](tenant)
    tenant.directory.password = "pass\u20acword"
    tenant.directory.secrets.update(["\u20ac", "\\u20ac"])
    result = run(password="pass\u20acword")
    # Old releases of urllib3 can't encode this password. Newer ones can.
    assert result.status == 0 or sign_in_error(result)


def test_username_that_cannot_be_encoded_is_reported(run):
    assert "character" in sign_in_error(run(username="użytkownik@your_tenant.com"))


# No password


@pytest.mark.py27
@pytest.mark.parametrize(
    "change",
    [{"password": None}, {"password": "", "token_cache": "cache.json"}],
    ids=["missing", "empty, with a token cache"],
)
def test_missing_password_is_reported_with_the_settings_to_add(tenant, run, change):
    advice = sign_in_error(run(**change))
    assert '"password"' in advice
    assert '"token_cache"' in advice
    assert "token" not in tenant.steps()


@pytest.mark.py27
@pytest.mark.parametrize("keys", ["\n", "\x04"], ids=["Enter", "Ctrl+D"])
def test_prompt_without_an_answer_leads_to_the_same_advice(tenant, type_at_prompt, keys):
    result = type_at_prompt(keys, password=None, token_cache="cache.json")
    advice = result.stderr.partition(SIGN_IN_FAILED)[2]
    assert (result.status, '"password"' in advice, '"token_cache"' in advice) == (1, True, True)
    assert "token" not in tenant.steps()


@pytest.mark.py27
def test_typed_password_is_used_again_without_another_prompt(tenant, type_at_prompt):
    tenant.entra.sends_id_token = False  # Without it, MSAL saves no sign-in that can be renewed.
    SCENARIOS["token-revoked"](tenant)
    result = type_at_prompt(password=None)
    assert (result.status, result.stderr.count(PROMPT)) == (0, 1)
    assert len(json.loads(result.stdout)["value"]) == 500
    assert tenant.grants() == ["password", "password"]


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


def test_prompt_appears_neither_with_a_saved_sign_in_nor_with_a_wrong_password(type_at_prompt):
    assert PROMPT not in type_at_prompt(password="wrong").stderr
    assert type_at_prompt(token_cache="cache.json").status == 0
    result = type_at_prompt(password=None, token_cache="cache.json")
    assert (result.status, result.stderr) == (0, "")


@posix
@pytest.mark.parametrize("stream", ["stdin", "stderr"])
def test_no_prompt_appears_unless_stdin_and_stderr_are_terminals(start, stream):
    import pty

    master, slave = pty.openpty()
    streams = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE, stream: slave}
    process = start(password=None, stdout=subprocess.PIPE, **streams)
    os.close(slave)
    assert (process.stdout.read(), process.wait()) == (b"", 1)
    shown = read_terminal(master) if stream == "stderr" else process.stderr.read().decode()
    assert shown.startswith(SIGN_IN_FAILED)


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
