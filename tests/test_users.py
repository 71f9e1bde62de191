"""What a run that succeeds sends and prints."""

import json
import os
import subprocess

import pytest
from conftest import posix
from tenant.proxy import Answer, json_answer

LOGIN, GRAPH = "login.microsoftonline.com", "graph.microsoft.com"


@pytest.mark.py27
def test_one_run_makes_five_requests_on_two_connections(tenant, run):
    assert run().status == 0
    assert [(r.method, r.host, r.path) for _, r in tenant.requests] == [
        ("GET", LOGIN, "/organizations/v2.0/.well-known/openid-configuration"),
        ("GET", LOGIN, "/common/discovery/instance"),
        ("GET", LOGIN, "/common/userrealm/your_username@your_tenant.com"),
        ("POST", LOGIN, "/organizations/oauth2/v2.0/token"),
        ("GET", GRAPH, "/v1.0/users"),
    ]
    assert tenant.proxy.connections == [LOGIN, GRAPH]


@pytest.mark.py27
def test_the_settings_go_where_they_belong(tenant, run):
    run()
    *before, token, graph = [request for _, request in tenant.requests]
    assert token.form["client_id"] == "your_client_id"
    assert token.form["grant_type"] == "password"
    assert token.form["username"] == "your_username@your_tenant.com"
    assert token.form["password"] == tenant.directory.password
    assert "User.ReadBasic.All" in token.form["scope"].split()
    assert graph.headers["Authorization"].startswith("Bearer at-")
    assert all("Authorization" not in r.headers for r in [*before, token])


@pytest.mark.parametrize("env", [{}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}])
def test_users_are_one_readable_json_document_in_utf8(run, document, env):
    result = run(env=env)
    assert result == (0, document(), "")
    assert '  "displayName": "Zoë Brontë"' in result.stdout


@pytest.mark.py27
def test_the_document_is_json_with_all_that_graph_said(tenant, run):
    result = run()
    assert (result.status, json.loads(result.stdout)) == (0, tenant.graph.page())


def test_on_a_terminal_the_words_of_the_seed_stand_before_the_users(on_terminal, document):
    assert on_terminal() == (0, "Users from graph: " + document())


@pytest.mark.parametrize("answer", [{"displayName": "Zoë"}, {"@odata.context": "c", "value": "Z"}])
def test_what_is_no_list_is_printed_as_it_is(tenant, run, document, answer):
    tenant.replace("graph", json_answer(answer))
    result = run(endpoint="https://{}/v1.0/me".format(GRAPH))
    assert result == (0, document(answer), "")
    assert tenant.requests[-1][1].path == "/v1.0/me"


def test_half_a_character_is_printed_as_the_json_escape_that_it_came_as(tenant, run):
    tenant.replace("graph", Answer(200, b'{"value": [{"displayName": "\\ud83d"}]}'))
    result = run()
    assert result.status == 0
    assert '"displayName": "\\ud83d"' in result.stdout


@pytest.mark.py27
@pytest.mark.parametrize(
    "version, steps", [("13", ["mex", "wstrust", "token"]), ("2005", ["wstrust", "token"])]
)
def test_a_federated_accounts_password_goes_to_its_adfs_alone(tenant, run, version, steps):
    tenant.entra.realm, tenant.entra.ws_trust = "Federated", version
    assert run().status == 0
    assert tenant.steps() == ["discovery", "instance", "realm", *steps, "graph"]
    password = tenant.directory.password.encode()
    assert [step for step, r in tenant.requests if password in r.body] == ["wstrust"]


@posix
def test_a_netrc_does_not_replace_the_token(run, tmp_path, document):
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine {} login somebody password something\n".format(GRAPH))
    netrc.chmod(0o600)
    assert run(env={"HOME": str(tmp_path), "NETRC": str(netrc)}) == (0, document(), "")


@posix
def test_a_reader_that_has_seen_enough_ends_the_run_in_one_line(tenant, start):
    tenant.directory.size = 2000
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"{\n"
    process.stdout.close()
    assert process.stderr.read() == b"stdout cannot be written: [Errno 32] Broken pipe\n"
    assert process.wait() == 1


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("users", [1, 2000])
def test_a_full_disk_is_told_in_one_line(tenant, start, users):
    tenant.directory.size = users
    with open("/dev/full", "wb") as full:
        process = start(stdout=full, stderr=subprocess.PIPE)
        said = process.stderr.read().decode()
    assert process.wait() == 1
    assert said == "stdout cannot be written: [Errno 28] No space left on device\n"


@posix
def test_a_closed_stdout_is_told_in_one_line(start):
    process = start(stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    said = process.stderr.read().decode()
    assert process.wait() == 1
    assert said.startswith("stdout cannot be written: ")
    assert said.count("\n") == 1


@posix
def test_with_stderr_closed_an_error_does_not_turn_to_stdout(tenant, start):
    tenant.directory.password = "another one"
    process = start(stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert process.stdout.read() == b""
    assert process.wait() == 1


def test_verbose_logs_the_steps(run, document):
    result = run("-v")
    assert (result.status, result.stdout) == (0, document())
    assert "https://login.microsoftonline.com:443" in result.stderr
    assert "get_accounts" in result.stderr
