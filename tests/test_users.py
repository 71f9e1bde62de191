"""What a run that succeeds sends and prints."""

import json
import os
import subprocess

import pytest
from conftest import posix
from local_tenant import GRAPH, LOGIN, SAMPLE, Answer


@pytest.mark.py27
def test_one_run_makes_five_requests_on_two_connections(tenant, run):
    assert run().status == 0
    assert [(r.method, r.host, r.path) for r in tenant.requests] == [
        ("GET", LOGIN, "/organizations/v2.0/.well-known/openid-configuration"),
        ("GET", LOGIN, "/common/discovery/instance"),
        ("GET", LOGIN, "/common/userrealm/your_username@your_tenant.com"),
        ("POST", LOGIN, "/organizations/oauth2/v2.0/token"),
        ("GET", GRAPH, "/v1.0/users"),
    ]
    assert tenant.connections == [LOGIN, GRAPH]


@pytest.mark.py27
def test_the_settings_go_where_they_belong(tenant, run):
    run()
    form = tenant.requests[3].form
    assert form["client_id"] == "your_client_id"
    assert form["grant_type"] == "password"
    assert form["username"] == "your_username@your_tenant.com"
    assert form["password"] == tenant.password
    assert set(form["scope"].split()) >= {"User.ReadBasic.All"}
    assert tenant.requests[4].headers["Authorization"].startswith("Bearer at-")
    assert all("Authorization" not in r.headers for r in tenant.requests[:4])


@pytest.mark.parametrize("env", [{}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}])
def test_users_are_one_readable_json_document_in_utf8(run, document, env):
    result = run(env=env)
    assert result == (0, document(), "")
    assert "Zoë Brontë" in result.stdout


@pytest.mark.py27
def test_the_document_is_json_with_all_that_graph_said(tenant, run):
    result = run()
    assert (result.status, result.stderr) == (0, "")
    assert json.loads(result.stdout) == tenant.page({})


def test_on_a_terminal_the_words_of_the_seed_stand_before_the_users(on_terminal, document):
    assert on_terminal() == (0, "Users from graph: " + document())


@pytest.mark.parametrize("path", ["me", "users/zoe/displayName"])
def test_what_is_no_list_is_printed_as_it_is(tenant, run, document, path):
    answer = {"@odata.context": "somewhere", "value": "Zoë"}
    if path == "me":
        answer = tenant.person(0)
    tenant.replace("graph", tenant.json(answer))
    result = run(endpoint="https://{}/v1.0/{}".format(GRAPH, path))
    assert result == (0, document(answer), "")
    assert tenant.requests[-1].path == "/v1.0/" + path


def test_half_a_character_is_printed_as_the_json_escape_that_it_came_as(tenant, run):
    tenant.replace("graph", Answer(200, b'{"value": [{"displayName": "\\ud83d"}]}'))
    result = run()
    assert result.status == 0
    assert '"displayName": "\\ud83d"' in result.stdout


@pytest.mark.parametrize("realm", ["Unknown", "Managed"])
def test_any_realm_that_is_not_federated_is_signed_in_at_entra(tenant, run, document, realm):
    tenant.realm = realm
    assert run() == (0, document(), "")


def test_a_missing_realm_answer_is_as_managed(tenant, run, document):
    tenant.replace("realm", Answer(404))
    assert run() == (0, document(), "")


@pytest.mark.py27
@pytest.mark.parametrize(
    "version, steps", [("13", ["mex", "wstrust", "token"]), ("2005", ["wstrust", "token"])]
)
def test_a_federated_account_signs_in_at_its_adfs(tenant, run, version, steps):
    tenant.realm, tenant.ws_trust = "Federated", version
    assert run().status == 0
    assert tenant.steps() == ["discovery", "instance", "realm", *steps, "graph"]
    assert tenant.grants() == ["urn:ietf:params:oauth:grant-type:saml1_1-bearer"]
    entra = [r for r in tenant.requests if r.host == LOGIN]
    assert not any(tenant.password.encode() in r.body for r in entra)


@posix
def test_a_netrc_does_not_replace_the_token(tenant, run, tmp_path, document):
    netrc = tmp_path / ".netrc"
    netrc.write_text("default login somebody password something\n")
    netrc.chmod(0o600)
    assert run(env={"HOME": str(tmp_path), "NETRC": str(netrc)}) == (0, document(), "")
    assert tenant.requests[-1].headers["Authorization"].startswith("Bearer ")
    assert all("Authorization" not in r.headers for r in tenant.requests[:-1])


@posix
def test_a_reader_that_has_seen_enough_ends_the_run_quietly(tenant, start):
    tenant.users = 2000
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"{\n"
    process.stdout.close()
    assert process.wait() == 1
    assert process.stderr.read() == b""


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told(start):
    with open("/dev/full", "wb") as full:
        process = start(stdout=full, stderr=subprocess.PIPE)
        said = process.stderr.read().decode()
    assert process.wait() == 1
    assert said == "stdout cannot be written: [Errno 28] No space left on device\n"


@posix
def test_a_closed_stdout_is_told(start):
    process = start(stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    said = process.stderr.read().decode()
    assert process.wait() == 1
    assert said.startswith("stdout cannot be written: ")
    assert said.count("\n") == 1


@posix
def test_with_stderr_closed_an_error_does_not_turn_to_stdout(tenant, start):
    tenant.password = "another one"
    process = start(stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert process.stdout.read() == b""
    assert process.wait() == 1


@posix
def test_a_json_reader_takes_what_comes_through_a_pipe(command):
    argv, env = command()
    pipe = '"$@" | "$0" -m json.tool > /dev/null'
    assert subprocess.call(["bash", "-o", "pipefail", "-c", pipe, *argv[:1], *argv], env=env) == 0


def test_verbose_logs_the_steps_and_no_secret(tenant, run, document):
    tenant.realm = "Federated"
    result = run("-v")
    assert (result.status, result.stdout) == (0, document())
    assert "Starting new HTTPS connection" in result.stderr
    assert "get_accounts" in result.stderr


def test_importing_the_script_does_nothing(tenant, command):
    argv, env = command()
    code = "import runpy; runpy.run_path({!r}, run_name='sample')".format(str(SAMPLE))
    done = subprocess.run([argv[0], "-c", code], env=env, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert tenant.requests == []
