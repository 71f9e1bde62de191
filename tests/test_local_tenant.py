"""Tests of the local tenant: its command, its refusals, and its scenarios."""

import datetime
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jwt
import msal
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID
from helpers import (
    NO_WAITS,
    USERS,
    Result,
    decode,
    files_in,
    local_tenant_command,
    posix,
    run_on_terminal,
    sample_command,
    shipped_settings,
    users_of,
)
from local_tenant import (
    DEFAULT_AUTHORITY,
    PARAMETERS,
    PLACEHOLDERS,
    copy_parameters,
    load,
    read_certificate,
    replace_placeholders,
)
from tenant import LocalTenant
from tenant.graph import PAGE_SIZE
from tenant.scenarios import SCENARIOS

TENANT = "contoso.example"
LOGIN_URL = "https://login.microsoftonline.com/" + TENANT
TOKEN_URL = LOGIN_URL + "/oauth2/v2.0/token"
GRAPH_URL = "https://graph.microsoft.com"
DEFAULT_SCOPE = GRAPH_URL + "/.default"
OWN = {
    "authority": LOGIN_URL,
    "client_id": "own_client_id",
    "username": "jane@contoso.example",
    "password": "own password",
    "scope": ["User.ReadBasic.All"],
    "endpoint": USERS,
}
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def run_program(*command, tenant=None):
    """Run a program, in the tenant if there's one. Return its exit status, stdout, and stderr."""
    env = tenant.environment() if tenant else None
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    )
    return Result(done.returncode, decode(done.stdout), decode(done.stderr))


def run_command(*arguments):
    """Run the local tenant's command. Return its exit status, stdout, and stderr."""
    return run_program(*local_tenant_command(*arguments))


@pytest.fixture
def write_parameters(tmp_path):
    """Return a function that writes a parameters file and returns its path.

    A setting that is None is left out.
    """

    def write(**changes):
        settings = dict(OWN, **changes)
        settings = {key: value for key, value in settings.items() if value is not None}
        path = tmp_path / "own.json"
        path.write_text(json.dumps(settings))
        return str(path)

    return write


def scenario_tenant(name):
    """Return a tenant in this scenario, not started yet."""
    tenant = LocalTenant(OWN)
    SCENARIOS[name](tenant)
    return tenant


def new_session(tenant):
    """Return a requests.Session that uses the tenant."""
    session = requests.Session()
    session.trust_env = False
    env = tenant.environment()
    session.proxies = {"http": env["HTTP_PROXY"], "https": env["HTTPS_PROXY"]}
    session.verify = env["REQUESTS_CA_BUNDLE"]
    return session


@pytest.fixture
def ask():
    """Return a function that sends requests to the tenant, and returns the last answer.

    The answer is the status and the JSON. After a token request, later requests carry the token.
    """

    def ask(*requests_to_send, users=None):
        with LocalTenant(OWN) as tenant:
            if users is not None:
                tenant.directory.user_count = users
            session = new_session(tenant)
            for method, url, form in requests_to_send:
                response = session.request(method, url, data=form, timeout=30)
                answer = response.json() if response.content else None
                if answer and "access_token" in answer:
                    session.headers["Authorization"] = "Bearer " + answer["access_token"]
        return response.status_code, answer

    return ask


def password_form(**changes):
    """Return the form of a password grant."""
    form = {
        "client_id": OWN["client_id"],
        "grant_type": "password",
        "username": OWN["username"],
        "password": OWN["password"],
        "scope": "User.ReadBasic.All openid profile offline_access",
        "client_info": "1",
    }
    form.update(changes)
    return form


def sign_in(scope="User.ReadBasic.All", **changes):
    """Return a token request."""
    changes["scope"] = scope + " openid profile offline_access"
    return ["POST", TOKEN_URL, password_form(**changes)]


def get(url):
    """Return a GET request."""
    return ["GET", url, None]


def error_codes(answer):
    """Return the AADSTS codes in Entra's answer."""
    return answer[1]["error_codes"]


# The command


def test_command_without_arguments_runs_the_sample():
    users = users_of(run_command())
    assert len(users) == 5
    assert users[0]["userPrincipalName"] == PLACEHOLDERS["username"]


def test_placeholders_match_the_shipped_parameters():
    shipped = shipped_settings()
    assert {key: shipped[key] for key in PLACEHOLDERS} == PLACEHOLDERS


def test_users_option_sets_the_number_of_users(write_parameters):
    users = users_of(run_command("--parameters", write_parameters(), "--users", "2"))
    names = [user["userPrincipalName"] for user in users]
    assert names == ["jane@contoso.example", "user1@contoso.example"]


@pytest.mark.parametrize("number", ["-5", "five"])
def test_invalid_number_of_users_is_a_usage_error(number):
    status, stdout, stderr = run_command("--users", number)
    assert (status, stdout) == (2, "")
    assert "usage:" in stderr and "Traceback" not in stderr


def test_list_shows_every_scenario_with_its_summary():
    status, stdout, _ = run_command("--list")
    assert status == 0
    lines = stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(SCENARIOS)
    assert all(len(line.split()) > 2 for line in lines)


@posix
def test_list_into_a_closed_pipe_prints_no_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        local_tenant_command("--list"), stdout=write_end, stderr=subprocess.PIPE, timeout=60
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("separator", [[], ["--"]])
def test_exit_status_is_the_exit_status_of_the_command(separator):
    assert run_command(*separator, sys.executable, "-c", "raise SystemExit(7)") == (7, "", "")


def test_command_gets_its_arguments_unchanged():
    code = "import sys; print(sys.argv[1:])"
    arguments = ["--list", "--", "--users", "-5"]
    _, stdout, _ = run_command("--", sys.executable, "-c", code, *arguments)
    assert stdout == "{}\n".format(arguments)


def test_command_that_does_not_exist_exits_with_127():
    status, stdout, stderr = run_command("no_such_command")
    assert (status, stdout, stderr.count("\n")) == (127, "", 1)
    assert "no_such_command" in stderr


def test_command_with_a_missing_parameters_file_is_a_usage_error(tmp_path):
    status, _, stderr = run_command("--parameters", str(tmp_path / "missing.json"), "curl")
    assert status == 2
    assert "missing.json" in stderr


def test_missing_trustme_is_reported_in_one_line(tmp_path):
    code = "raise ModuleNotFoundError(\"No module named 'trustme'\", name='trustme')"
    (tmp_path / "trustme.py").write_text(code)
    env = dict(os.environ, PYTHONPATH=str(tmp_path))
    done = subprocess.run(local_tenant_command(), env=env, capture_output=True, text=True)
    status, stdout, stderr = done.returncode, done.stdout, done.stderr
    assert (status, stdout, stderr.count("\n")) == (1, "", 1)
    assert "pip install" in stderr and "trustme" in stderr


@pytest.mark.parametrize("contents", ["[]", None])
def test_sample_reports_an_unusable_parameters_file(tmp_path, contents):
    path = tmp_path / "own.json"
    if contents is not None:
        path.write_text(contents)
    status, stdout, stderr = run_command("--parameters", str(path))
    assert (status, stdout) == (2, "")
    assert str(path) in stderr and "Traceback" not in stderr


@pytest.mark.parametrize("contents", ["", "[]", '{"authority": 1}'])
def test_unusable_settings_are_replaced_with_defaults(tmp_path, contents):
    path = tmp_path / "own.json"
    path.write_text(contents)
    config = load(str(path))
    assert config["authority"] == DEFAULT_AUTHORITY
    LocalTenant(config)


def test_sample_reports_a_malformed_authority(write_parameters):
    path = write_parameters(authority="https://[x")
    with LocalTenant(load(path)) as tenant:
        status, stdout, stderr = run_program(*sample_command(path), tenant=tenant)
    assert (status, stdout) == (1, "")
    assert "Could not sign in" in stderr and "Traceback" not in stderr


# test_readme.py also runs the command with each placeholder.
@pytest.mark.parametrize(
    "setting, code", [("client_id", 700016), ("username", 50034), ("password", 50126)]
)
def test_placeholder_in_the_file_is_refused(write_parameters, setting, code):
    path = write_parameters(**{setting: PLACEHOLDERS[setting]})
    with LocalTenant(replace_placeholders(load(path))) as tenant:
        form = password_form(**{setting: PLACEHOLDERS[setting]})
        answer = new_session(tenant).post(TOKEN_URL, form)
    assert answer.json()["error_codes"] == [code]


def test_password_is_local_if_the_file_has_none(write_parameters):
    assert load(write_parameters(password=None))["password"] == "local"


def test_token_cache_of_the_user_is_not_changed(write_parameters, tmp_path):
    cache = tmp_path / "cache.json"
    cache.write_text("{}")
    assert run_command("--parameters", write_parameters(token_cache="cache.json")).status == 0
    assert cache.read_text() == "{}"
    assert files_in(tmp_path) == ["cache.json", "own.json"]


def test_token_cache_with_an_absolute_path_is_in_the_temporary_folder_too(
    write_parameters, tmp_path
):
    path = write_parameters(token_cache=str(tmp_path / "cache.json"))
    folder = tmp_path / "temporary"
    folder.mkdir()
    copy = copy_parameters(path, str(folder))
    assert json.loads(Path(copy).read_text()) == dict(OWN, token_cache="cache.json")
    assert files_in(folder) == ["own.json"]


def test_saved_sign_in_works_in_the_next_tenant(write_parameters):
    for password in (OWN["password"], None):
        path = write_parameters(token_cache="cache.json", password=password)
        with LocalTenant(OWN) as tenant:
            users_of(run_program(*sample_command(path), tenant=tenant))


@posix
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signal_ends_the_command(name):
    signum = getattr(signal, name)
    code = "import time; print('ready', flush=True); time.sleep(50)"
    command = local_tenant_command(sys.executable, "-c", code)
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signum)
    # The pipe reaches its end only when the command has ended too.
    assert process.communicate(timeout=30)[0] == b""
    assert process.returncode == 128 + signum


@posix
def test_command_decides_what_ctrl_c_does():
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *args: sys.exit(5))
print("ready", flush=True)
time.sleep(50)
"""
    process = subprocess.Popen(
        local_tenant_command(sys.executable, "-c", code),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout.readline() == b"ready\n"
    os.killpg(process.pid, signal.SIGINT)
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 5


@posix
def test_terminal_shows_what_the_tenant_cannot_check(write_parameters):
    status, screen = run_on_terminal(local_tenant_command("--parameters", write_parameters()))
    assert status == 0
    assert "MFA" in screen.partition("Users from graph:")[0]


@posix
def test_terminal_shows_no_note_about_the_shipped_parameters():
    _, screen = run_on_terminal(local_tenant_command())
    assert screen.startswith("Users from graph:")


@posix
def test_terminal_shows_the_password_if_the_file_has_none(write_parameters):
    command = local_tenant_command("--parameters", write_parameters(password=None))
    status, screen = run_on_terminal(command, prompt="Password for", keys=b"local\n")
    assert status == 0
    assert '"local"' in screen


@posix
def test_shell_on_a_terminal_gets_a_greeting():
    command = local_tenant_command("sh")
    status, screen = run_on_terminal(command, prompt="Type exit", keys=b"exit 3\n")
    assert status == 3
    assert "login.microsoftonline.com" in screen


def test_shell_without_a_terminal_gets_no_greeting():
    if not shutil.which("sh"):
        pytest.skip("needs sh")
    assert run_command("sh", "-c", "exit 3") == (3, "", "")


# Programs that use the tenant


@posix  # On Windows, curl trusts only the certificates in the Windows certificate store.
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_reaches_graph(tenant):
    status, stdout, stderr = run_program("curl", "-sS", USERS, tenant=tenant)
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["error"]["code"] == "InvalidAuthenticationToken"


@posix
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
@pytest.mark.parametrize("url", ["https://example.com/", GRAPH_URL + ":8443/v1.0/users"])
def test_curl_gets_502_for_another_host_or_port(tenant, url):
    status, stdout, stderr = run_program("curl", "-sS", url, tenant=tenant)
    assert status != 0
    assert stdout == ""
    assert "502" in stderr


def test_urllib_reaches_graph(tenant):
    code = """
import sys, urllib.error, urllib.request
try:
    urllib.request.urlopen(sys.argv[1], timeout=30)
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
"""
    _, stdout, _ = run_program(sys.executable, "-c", code, USERS, tenant=tenant)
    assert stdout.startswith("401 ")
    assert "InvalidAuthenticationToken" in stdout


def test_plain_http_gets_502(tenant):
    assert new_session(tenant).get("http://example.com/").status_code == 502


@pytest.mark.skipif(not shutil.which("node"), reason="needs Node.js")
def test_node_reaches_graph(tenant):
    code = """
const http = require("http"), tls = require("tls");
const proxy = new URL(process.env.HTTPS_PROXY);
const host = "graph.microsoft.com";
const connect = http.request({host: proxy.hostname, port: proxy.port, method: "CONNECT",
                              path: host + ":443"});
connect.on("connect", (answer, socket) => {
    const secure = tls.connect({socket, servername: host}, () => {
        secure.write("GET /v1.0/users HTTP/1.1\\r\\nHost: " + host +
                     "\\r\\nConnection: close\\r\\n\\r\\n");
    });
    secure.on("data", (data) => process.stdout.write(data));
    secure.on("end", () => process.exit(0));
});
connect.end();
"""
    status, stdout, stderr = run_program("node", "-e", code, tenant=tenant)
    assert (status, stderr) == (0, "")
    assert stdout.startswith("HTTP/1.1 401")


# Entra: users


def test_password_grant_returns_all_tokens(ask):
    status, answer = ask(sign_in())
    assert status == 200
    assert set(answer) == {
        "token_type",
        "scope",
        "expires_in",
        "ext_expires_in",
        "access_token",
        "refresh_token",
        "id_token",
        "client_info",
    }


@pytest.mark.parametrize(
    "changes, status, code",
    [
        ({"client_id": "another"}, 400, 700016),
        ({"username": "joe@contoso.example"}, 400, 50034),
        ({"password": "another"}, 400, 50126),
        ({"password": ""}, 400, 900144),
        ({"grant_type": ""}, 400, 900144),
        ({"grant_type": "refresh_token", "refresh_token": "rt-broken"}, 400, 70000),
        ({"grant_type": "urn:ietf:params:oauth:grant-type:device_code"}, 400, 900144),
        (
            {"grant_type": "urn:ietf:params:oauth:grant-type:saml1_1-bearer", "assertion": "?"},
            400,
            50008,
        ),
    ],
)
def test_wrong_form_field_is_refused(ask, changes, status, code):
    answer = ask(["POST", TOKEN_URL, password_form(**changes)])
    assert (answer[0], error_codes(answer)) == (status, [code])


def test_unknown_tenant_gets_aadsts90002(ask):
    url = "https://login.microsoftonline.com/fabrikam.example/v2.0/"
    answer = ask(get(url + ".well-known/openid-configuration"))
    assert (answer[0], answer[1]["error"]) == (400, "invalid_tenant")
    assert error_codes(answer) == [90002]


def test_unknown_tenant_gets_no_token(ask):
    url = "https://login.microsoftonline.com/fabrikam.example/oauth2/v2.0/token"
    assert error_codes(ask(["POST", url, password_form()])) == [90002]


def test_common_authority_gets_aadsts9001023(ask):
    url = "https://login.microsoftonline.com/common/oauth2/v2.0/token"
    assert error_codes(ask(["POST", url, password_form()])) == [9001023]


def test_user_of_another_domain_has_an_unknown_realm(ask):
    url = "https://login.microsoftonline.com/common/userrealm/joe%40fabrikam.example"
    assert ask(get(url))[1]["account_type"] == "Unknown"


@pytest.mark.parametrize(
    "scope, error, code",
    [
        ("User.ReadBasic", "invalid_client", 650053),
        ("https://graph.microsoft.com/User.Raed", "invalid_client", 650053),
        ("User ReadBasic.All", "invalid_client", 650053),
        ("User.Read,User.ReadBasic.All", "invalid_scope", 70011),
        ("['User.Read']", "invalid_scope", 70011),
        ("https://graph.microsoft.example/User.Read", "invalid_resource", 500011),
        ("User.Read https://management.azure.com/.default", "invalid_scope", 28000),
        ("Directory.Read.All", "invalid_grant", 65001),
        ("User.Read Mail.Send", "invalid_grant", 65001),
        ("https://graph.microsoft.com/sites.read.all", "invalid_grant", 65001),
    ],
)
def test_invalid_or_unconsented_scope_is_refused(ask, scope, error, code):
    status, answer = ask(sign_in(scope))
    assert (status, answer["error"], answer["error_codes"]) == (400, error, [code])


def test_missing_consent_has_its_suberror(ask):
    assert ask(sign_in("Directory.Read.All"))[1]["suberror"] == "consent_required"


@pytest.mark.parametrize(
    "scope, granted",
    [
        ("User.ReadBasic.All", "User.ReadBasic.All"),
        ("user.readbasic.all", "User.ReadBasic.All"),
        ("https://graph.microsoft.com/User.Read.All", "User.Read.All"),
        ("00000003-0000-0000-c000-000000000000/User.Read", "User.Read"),
        ("User.Read User.ReadBasic.All", "User.Read User.ReadBasic.All"),
        (
            "https://graph.microsoft.com/.default",
            "User.Read User.ReadBasic.All User.Read.All",
        ),
    ],
)
def test_granted_scope_has_entras_spelling(ask, scope, granted):
    status, answer = ask(sign_in(scope))
    assert (status, answer["scope"]) == (200, granted + " profile openid email")


def test_graph_refuses_a_token_for_another_resource(ask):
    status, answer = ask(sign_in("https://management.azure.com/.default"), get(USERS))
    assert (status, answer["error"]["code"]) == (401, "InvalidAuthenticationToken")
    assert "Invalid audience" in answer["error"]["message"]


@pytest.mark.parametrize(
    "changes",
    [
        {"grant_type": "authorization_code", "code": "x"},
        {"client_secret": "secret"},
        {"grant_type": "client_credentials", "client_secret": "secret"},
        {"client_assertion": "x", "client_assertion_type": ASSERTION_TYPE},
        {"scope": "openid profile"},
    ],
)
def test_unimplemented_token_request_is_refused(ask, changes):
    status, answer = ask(["POST", TOKEN_URL, password_form(**changes)])
    assert (status, answer["error"]) == (400, "not_implemented")
    assert "local tenant" in answer["error_description"]


def test_msal_shows_that_a_client_secret_is_not_implemented():
    with LocalTenant(OWN) as tenant:
        result = app_token(tenant, "secret")
    assert "client_secret" in result["error_description"]
    assert "local tenant" in result["error_description"]


@pytest.mark.parametrize(
    "method, url",
    [
        ("GET", LOGIN_URL + "/oauth2/v2.0/authorize"),
        ("GET", LOGIN_URL + "/oauth2/token"),
        ("GET", TOKEN_URL),
        ("POST", LOGIN_URL + "/v2.0/.well-known/openid-configuration"),
        ("GET", "https://login.microsoftonline.com/"),
    ],
)
def test_unimplemented_request_to_entra_gets_501(ask, method, url):
    status, answer = ask([method, url, None])
    assert (status, answer["error"]) == (501, "not_implemented")
    assert "local tenant" in answer["error_description"]


def test_unimplemented_request_to_the_ad_fs_gets_501(tenant):
    assert new_session(tenant).get("https://sts.example.com/").status_code == 501


def test_instance_discovery_knows_all_clouds(ask):
    url = "https://login.microsoftonline.com/common/discovery/instance?authorization_endpoint="
    status, answer = ask(get(url + "https://login.microsoftonline.us/common/oauth2/authorize"))
    assert status == 200
    networks = {metadata["preferred_network"] for metadata in answer["metadata"]}
    assert {"login.microsoftonline.com", "login.microsoftonline.us"} <= networks


def test_instance_discovery_refuses_an_unknown_host(ask):
    url = "https://login.microsoftonline.com/common/discovery/instance?authorization_endpoint="
    assert ask(get(url + "https://login.example.com/"))[1]["error"] == "invalid_instance"


@pytest.mark.parametrize(
    "login, graph",
    [
        ("login.microsoftonline.us", "graph.microsoft.us"),
        ("login.partner.microsoftonline.cn", "microsoftgraph.chinacloudapi.cn"),
    ],
)
def test_sample_works_in_a_national_cloud(write_parameters, login, graph):
    path = write_parameters(
        authority="https://{}/{}".format(login, TENANT),
        scope=["https://{}/User.ReadBasic.All".format(graph)],
        endpoint="https://{}/v1.0/users".format(graph),
    )
    with LocalTenant(load(path)) as tenant:
        assert len(users_of(run_program(*sample_command(path), tenant=tenant))) == 5


# Entra: device code


def device_code_sign_in(tenant, cache=None):
    """Sign in with a device code, and return MSAL's result."""
    app = msal.PublicClientApplication(
        OWN["client_id"], authority=LOGIN_URL, token_cache=cache, http_client=new_session(tenant)
    )
    flow = app.initiate_device_flow(scopes=OWN["scope"])
    assert flow["user_code"] in flow["message"]
    flow["interval"] = 0  # Don't wait between polls.
    return app.acquire_token_by_device_flow(flow)


def test_sample_runs_from_a_device_code_sign_in_when_mfa_is_required(write_parameters, tmp_path):
    path = write_parameters(password=None, token_cache="cache.json")
    cache = msal.SerializableTokenCache()
    with scenario_tenant("mfa-required") as tenant:
        assert "access_token" in device_code_sign_in(tenant, cache)
        (tmp_path / "cache.json").write_text(cache.serialize())
        users = users_of(run_program(*sample_command(path), tenant=tenant))
    assert users[0]["userPrincipalName"] == OWN["username"]


@pytest.mark.parametrize("scenario, code", [("not-public", 7000218), ("conditional-access", 53003)])
def test_scenario_also_refuses_a_device_code_sign_in(scenario, code):
    with scenario_tenant(scenario) as tenant:
        assert device_code_sign_in(tenant)["error_codes"] == [code]


def poll(count):
    """Start a device code sign-in, and return the answers to this number of polls."""
    with LocalTenant(OWN) as tenant:
        session = new_session(tenant)
        form = {"client_id": OWN["client_id"], "scope": "User.Read offline_access"}
        answer = session.post(LOGIN_URL + "/oauth2/v2.0/devicecode", form).json()
        assert answer["expires_in"] == 900
        form["grant_type"] = "urn:ietf:params:oauth:grant-type:device_code"
        form["device_code"] = answer["device_code"]
        return [session.post(TOKEN_URL, form).json() for _ in range(count)]


def test_first_poll_is_pending():
    pending, tokens = poll(2)
    assert (pending["error"], pending["error_codes"]) == ("authorization_pending", [70016])
    assert "access_token" in tokens


def test_device_code_works_only_once():
    *_, tokens, refusal = poll(3)
    assert "access_token" in tokens
    assert refusal["error"] == "bad_verification_code"


# Entra: app-only


class Certificate:
    """A self-signed certificate with its key, in PEM."""

    def __init__(self):
        self.private_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "app")])
        today = datetime.datetime(2026, 1, 1)
        builder = x509.CertificateBuilder(name, name, self.private_key.public_key(), 1, today)
        builder = builder.not_valid_after(datetime.datetime(2046, 1, 1))
        self.certificate = builder.sign(self.private_key, hashes.SHA256())
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        self.key_pem = self.private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.thumbprint = self.certificate.fingerprint(hashes.SHA1()).hex()

    def pfx(self):
        """Return the certificate and its key as a PFX file."""
        return pkcs12.serialize_key_and_certificates(
            b"app", self.private_key, self.certificate, None, serialization.NoEncryption()
        )


@pytest.fixture(scope="session")
def certificate():
    """Return the app's certificate."""
    return Certificate()


@pytest.fixture(scope="session")
def other_certificate():
    """Return a certificate that isn't the app's."""
    return Certificate()


def key_credential(certificate, thumbprint_of=None):
    """Return MSAL's credential for the certificate."""
    thumbprint = (thumbprint_of or certificate).thumbprint
    return {"private_key": certificate.key_pem.decode(), "thumbprint": thumbprint}


def app_token(tenant, credential, scope=DEFAULT_SCOPE, authority=LOGIN_URL):
    """Return MSAL's result for the app itself."""
    app = msal.ConfidentialClientApplication(
        OWN["client_id"],
        authority=authority,
        client_credential=credential,
        http_client=new_session(tenant),
    )
    return app.acquire_token_for_client([scope])


@pytest.fixture
def app_tenant(certificate):
    """A running local tenant whose app has the certificate."""
    tenant = LocalTenant(OWN)
    tenant.directory.certificate = certificate.pem
    with tenant:
        yield tenant


@pytest.fixture
def get_as_app(app_tenant):
    """Return a function that calls Graph as the app and returns the response."""

    def get_as_app(credential, url=USERS):
        result = app_token(app_tenant, credential)
        assert not {"refresh_token", "id_token"} & set(result)
        session = new_session(app_tenant)
        session.headers["Authorization"] = "Bearer " + result["access_token"]
        return session.get(url)

    return get_as_app


def test_app_with_a_certificate_reads_all_properties(get_as_app, certificate):
    url = USERS + "?$select=displayName,department"
    response = get_as_app(key_credential(certificate), url)
    assert response.status_code == 200
    assert response.json()["value"][0]["department"]


def test_app_with_a_pfx_file_reads_the_users(get_as_app, certificate, tmp_path):
    version = tuple(int(part) for part in msal.__version__.split(".")[:2])
    if version < (1, 29):
        pytest.skip("needs MSAL 1.29")
    path = tmp_path / "app.pfx"
    path.write_bytes(certificate.pfx())
    assert get_as_app({"private_key_pfx_path": str(path)}).status_code == 200


def test_app_cannot_read_me(get_as_app, certificate):
    response = get_as_app(key_credential(certificate), GRAPH_URL + "/v1.0/me")
    assert response.status_code == 400


def test_app_with_an_unknown_thumbprint_gets_aadsts700027(app_tenant, other_certificate):
    result = app_token(app_tenant, key_credential(other_certificate))
    assert result["error_codes"] == [700027]


def test_app_with_the_wrong_key_gets_aadsts700027(app_tenant, certificate, other_certificate):
    credential = key_credential(other_certificate, thumbprint_of=certificate)
    assert app_token(app_tenant, credential)["error_codes"] == [700027]


def test_refusal_of_an_app_without_a_certificate_names_the_option(certificate):
    with LocalTenant(OWN) as tenant:
        result = app_token(tenant, key_credential(certificate))
    assert result["error_codes"] == [700027]
    assert "--certificate" in result["error_description"]


@pytest.mark.filterwarnings("ignore:Using /common or /organizations")
def test_app_must_name_its_tenant(app_tenant, certificate):
    result = app_token(app_tenant, key_credential(certificate), authority=DEFAULT_AUTHORITY)
    assert result["error_codes"] == [50059]


def test_app_must_ask_for_the_default_scope(app_tenant, certificate):
    scope = GRAPH_URL + "/User.Read.All"
    result = app_token(app_tenant, key_credential(certificate), scope=scope)
    assert result["error_codes"] == [1002012]


@pytest.mark.parametrize("scenario", ["not-public", "mfa-required", "account-disabled"])
def test_app_works_whatever_the_state_of_the_account(app_tenant, certificate, scenario):
    SCENARIOS[scenario](app_tenant)
    assert "access_token" in app_token(app_tenant, key_credential(certificate))


def test_token_loop_also_stops_the_app(app_tenant, certificate):
    SCENARIOS["token-loop"](app_tenant)
    assert app_token(app_tenant, key_credential(certificate))["error_codes"] == [50196]


@pytest.mark.parametrize(
    "claims, code",
    [
        ({"aud": "https://login.microsoftonline.com/another"}, 700023),
        ({"exp": 1000000000}, 700024),
        ({"iss": "another"}, 700021),
        ({"exp": None}, 700027),
    ],
)
def test_wrong_claim_in_a_client_assertion_is_refused(app_tenant, certificate, claims, code):
    payload = app_claims()
    payload.update(claims)
    payload = {name: value for name, value in payload.items() if value is not None}
    form = client_assertion_form(certificate, payload, {"x5t": x5t(certificate)})
    answer = new_session(app_tenant).post(TOKEN_URL, form)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert answer.json()["error_codes"] == [code]


def test_client_assertion_without_a_thumbprint_is_refused(app_tenant, certificate):
    form = client_assertion_form(certificate, app_claims(), {})
    answer = new_session(app_tenant).post(TOKEN_URL, form)
    assert answer.json()["error_codes"] == [700027]


POST = """
import json, sys, requests
print(requests.post(sys.argv[1], json.loads(sys.argv[2]), timeout=30).text)
"""


def app_claims():
    """Return the claims of a correct client assertion."""
    client_id = OWN["client_id"]
    return {"aud": TOKEN_URL, "iss": client_id, "sub": client_id, "exp": 4000000000}


def x5t(certificate):
    """Return the certificate's thumbprint as it appears in a JWT header."""
    return jwt.utils.base64url_encode(bytes.fromhex(certificate.thumbprint)).decode()


def client_assertion_form(certificate, payload, header):
    """Return the form of a token request with these claims in a client assertion."""
    return {
        "client_id": OWN["client_id"],
        "grant_type": "client_credentials",
        "scope": DEFAULT_SCOPE,
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": jwt.encode(payload, certificate.private_key, "RS256", header),
    }


@pytest.mark.parametrize("form", ["PEM with the key", "DER"])
def test_certificate_file_can_be_pem_or_der(certificate, tmp_path, form):
    path = tmp_path / "app.cer"
    if form == "DER":
        path.write_bytes(certificate.certificate.public_bytes(serialization.Encoding.DER))
    else:
        path.write_bytes(certificate.key_pem + certificate.pem)
    assert read_certificate(str(path)) == certificate.pem


def test_command_passes_the_certificate_to_the_tenant(certificate, write_parameters, tmp_path):
    file = tmp_path / "app.pem"
    file.write_bytes(certificate.pem)
    path = write_parameters()
    form = client_assertion_form(certificate, app_claims(), {"x5t": x5t(certificate)})
    options = ["--parameters", path, "--certificate", str(file)]
    post = [sys.executable, "-c", POST, TOKEN_URL, json.dumps(form)]
    status, stdout, stderr = run_command(*options, "--", *post)
    assert (status, stderr) == (0, "")
    assert "access_token" in json.loads(stdout)


def test_unusable_certificate_is_a_usage_error(tmp_path):
    path = tmp_path / "app.pem"
    path.write_bytes(b"not a certificate")
    status, _, stderr = run_command("--certificate", str(path))
    assert status == 2
    assert "app.pem" in stderr and "Traceback" not in stderr


# Graph


def test_graph_without_a_token_gets_401(ask):
    status, answer = ask(get(USERS))
    assert (status, answer["error"]["code"]) == (401, "InvalidAuthenticationToken")


def test_listing_users_needs_a_permission_for_it(ask):
    status, answer = ask(sign_in("User.Read"), get(USERS))
    assert (status, answer["error"]["code"]) == (403, "Authorization_RequestDenied")


def test_basic_permission_fills_only_the_basic_profile(ask):
    _, answer = ask(sign_in("User.ReadBasic.All"), get(USERS))
    filled = {name for name, value in answer["value"][0].items() if value}
    basic = {"displayName", "givenName", "id", "mail", "surname", "userPrincipalName"}
    assert filled == basic
    assert len(answer["value"][0]) == 11


def test_basic_permission_selects_other_properties_as_null(ask):
    _, answer = ask(sign_in(), get(USERS + "?$select=id,department,accountEnabled"))
    user = answer["value"][0]
    assert user["id"]
    assert (user["department"], user["accountEnabled"]) == (None, None)


def test_full_permission_fills_the_default_properties(ask):
    _, answer = ask(sign_in("User.Read.All"), get(USERS))
    user = answer["value"][0]
    assert user["jobTitle"] and user["businessPhones"] and user["officeLocation"]
    assert "department" not in user


def test_select_returns_each_implemented_property(ask):
    names = "department,accountEnabled,userType,createdDateTime,onPremisesSamAccountName,"
    names += "usageLocation,employeeId,companyName"
    _, answer = ask(sign_in("User.Read.All"), get(USERS + "?$select=" + names))
    user = answer["value"][0]
    assert set(user) == set(names.split(","))
    assert all(user.values())
    assert (user["userType"], user["accountEnabled"]) == ("Member", True)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", user["createdDateTime"])


def test_select_is_not_case_sensitive(ask):
    _, answer = ask(sign_in(), get(USERS + "?$select=DISPLAYNAME, id"))
    assert set(answer["value"][0]) == {"displayName", "id"}


def test_select_of_an_unknown_property_is_refused_in_graphs_words(ask):
    status, answer = ask(sign_in(), get(USERS + "?$select=displayName,departmnt"))
    assert (status, answer["error"]["code"]) == (400, "BadRequest")
    assert answer["error"]["message"] == (
        "Parsing OData Select and Expand failed: Could not find a property named 'departmnt' on"
        " type 'microsoft.graph.user'."
    )


@pytest.mark.parametrize("top", ["0", "1000", "-1", "all", ""])
def test_page_size_out_of_range_gets_400(ask, top):
    assert ask(sign_in(), get(USERS + "?$top=" + top))[0] == 400


def test_invalid_skip_token_gets_400(ask):
    assert ask(sign_in(), get(USERS + "?$skiptoken=x"))[0] == 400


def test_next_link_keeps_the_query(ask):
    _, answer = ask(sign_in("User.Read.All"), get(USERS + "?$top=2&$select=id,mail"))
    assert len(answer["value"]) == 2
    _, answer = ask(sign_in("User.Read.All"), get(answer["@odata.nextLink"]))
    assert [set(user) for user in answer["value"]] == [{"id", "mail"}, {"id", "mail"}]
    assert "$top=2" in answer["@odata.nextLink"]


def test_page_has_100_users_by_default(ask):
    _, answer = ask(sign_in(), get(USERS), users=101)
    assert (len(answer["value"]), PAGE_SIZE) == (100, 100)
    assert "@odata.nextLink" in answer


@pytest.mark.parametrize(
    "query, name",
    [
        ("top=5", "top"),
        ("$search=zoe", "$search"),
        ("$orderby=displayName", "$orderby"),
        ("$expand=manager", "$expand"),
        ("$count=true", "$count"),
        ("$select=manager", "manager"),
        ("$select=*", "*"),
        ("$filter=startswith(displayName,'Z')", "startswith"),
        ("$filter=userType eq 'Guest' or accountEnabled eq true", "or"),
        ("$filter=userType ne 'Guest'", "ne"),
        ("$filter=", "filter"),
    ],
)
def test_unimplemented_query_gets_501_and_is_named(ask, query, name):
    status, answer = ask(sign_in("User.Read.All"), get(USERS + "?" + query))
    assert status == 501
    assert name in answer["error"]["message"]
    assert "local tenant" in answer["error"]["message"]


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/v1.0/user"),
        ("GET", "/beta/users"),
        ("GET", "/v1.0/groups"),
        ("GET", "/v1.0/users/1"),
        ("POST", "/v1.0/users"),
        ("DELETE", "/v1.0/me"),
    ],
)
def test_unimplemented_request_to_graph_gets_501(ask, method, path):
    status, answer = ask(sign_in(), [method, GRAPH_URL + path, None])
    assert status == 501
    assert "GET /v1.0/users and GET /v1.0/me" in answer["error"]["message"]


@pytest.mark.parametrize(
    "filter_text, expected",
    [
        ("userType eq 'Guest'", [("Guest", True)]),
        ("accountEnabled eq false", [("Member", False)]),
        ("userType eq 'Member' and accountEnabled eq true", [("Member", True)] * 3),
        ("userType eq 'Guest' and accountEnabled eq false", []),
    ],
)
def test_filter_returns_the_users_that_match(ask, filter_text, expected):
    url = USERS + "?$select=userType,accountEnabled&$filter=" + filter_text
    _, answer = ask(sign_in("User.Read.All"), get(url))
    found = [(user["userType"], user["accountEnabled"]) for user in answer["value"]]
    assert found == expected


def test_filter_needs_the_full_permission(ask):
    status, answer = ask(sign_in(), get(USERS + "?$filter=accountEnabled eq true"))
    assert (status, answer["error"]["code"]) == (403, "Authorization_RequestDenied")


def test_filter_continues_on_the_next_page(ask):
    url = USERS + "?$top=2&$filter=userType eq 'Guest'"
    _, answer = ask(sign_in("User.Read.All"), get(url), users=15)
    assert len(answer["value"]) == 2
    request = get(answer["@odata.nextLink"])
    _, answer = ask(sign_in("User.Read.All"), request, users=15)
    assert len(answer["value"]) == 1
    assert "@odata.nextLink" not in answer


def test_user_principal_name_of_a_guest_contains_ext(ask):
    url = USERS + "?$filter=userType eq 'Guest'"
    _, answer = ask(sign_in("User.Read.All"), get(url))
    name = answer["value"][0]["userPrincipalName"]
    assert name.endswith("#EXT#@contoso.example")


def test_me_returns_the_user_who_signs_in(ask):
    status, answer = ask(sign_in("User.Read"), get(GRAPH_URL + "/v1.0/me"))
    assert (status, answer["userPrincipalName"]) == (200, OWN["username"])
    assert answer["jobTitle"]


def test_paging_of_me_is_refused(ask):
    assert ask(sign_in("User.Read"), get(GRAPH_URL + "/v1.0/me?$top=5"))[0] == 501


# Scenarios


@pytest.mark.parametrize("name", [n for n, scenario in SCENARIOS.items() if scenario.succeeds])
def test_scenario_lets_the_sample_succeed(tenant, run, name):
    SCENARIOS[name](tenant)
    assert len(users_of(run(constants=NO_WAITS))) == tenant.directory.user_count


# The sample would retry these answers for many seconds, so the test uses another client.
@pytest.mark.parametrize(
    "name, statuses",
    [
        ("graph-down", [503, 503, 503, 503]),
        ("not-json", [200, 200, 200, 200]),
        ("throttled", [429, 429, 200, 200]),
        ("graph-errors", [500, 502, 200, 200]),
    ],
)
def test_scenario_gives_its_answers_in_order(name, statuses):
    with scenario_tenant(name) as tenant:
        session = new_session(tenant)
        add_access_token(session)
        assert [session.get(USERS).status_code for _ in statuses] == statuses


def test_sign_in_ended_runs_the_sample_from_a_saved_sign_in(write_parameters, tmp_path):
    path = write_parameters(token_cache="cache.json")
    status, stdout, stderr = run_command("--parameters", path, "--scenario", "sign-in-ended")
    assert (status, stdout) == (1, "")
    assert "AADSTS70043" in stderr
    assert not (tmp_path / "cache.json").exists()


# The interface for other tests


def add_access_token(session, scope="User.ReadBasic.All"):
    """Sign in, and let the session send the access token. Return the token response."""
    response = session.post(TOKEN_URL, sign_in(scope)[2]).json()
    session.headers["Authorization"] = "Bearer " + response["access_token"]
    return response


def test_unknown_step_cannot_be_replaced():
    with pytest.raises(ValueError):
        LocalTenant(OWN).replace("grpah", lambda request: None)


def test_exception_in_a_service_is_printed(capfd):
    def broken_answer(request):
        raise OSError("broken answer")

    with LocalTenant(OWN) as tenant:
        tenant.replace("graph", broken_answer)
        assert new_session(tenant).get(USERS).status_code == 500
    assert "broken answer" in capfd.readouterr().err


def test_host_and_port_of_each_connection_are_recorded():
    with LocalTenant(OWN) as tenant:
        new_session(tenant).get(USERS)
        assert tenant.server.connections == ["graph.microsoft.com:443"]
        assert tenant.steps() == ["graph"]


def test_service_does_not_answer_on_another_port():
    with LocalTenant(OWN) as tenant:
        with pytest.raises(requests.exceptions.ProxyError):
            new_session(tenant).get(GRAPH_URL + ":8443/v1.0/users")
        assert tenant.server.connections == ["graph.microsoft.com:8443"]
        assert tenant.steps() == []


def test_revoked_access_token_gets_401_and_a_new_one_works():
    with LocalTenant(OWN) as tenant:
        session = new_session(tenant)
        add_access_token(session)
        tenant.graph.revoke_access_tokens()
        assert session.get(USERS).json()["error"]["code"] == "InvalidAuthenticationToken"
        add_access_token(session)
        assert session.get(USERS).status_code == 200


def test_revoked_refresh_token_gets_aadsts50173():
    with LocalTenant(OWN) as tenant:
        session = new_session(tenant)
        form = {"client_id": OWN["client_id"], "grant_type": "refresh_token"}
        form["refresh_token"] = add_access_token(session)["refresh_token"]
        assert session.post(TOKEN_URL, form).status_code == 200
        tenant.entra.revoke_refresh_tokens()
        assert session.post(TOKEN_URL, form).json()["error_codes"] == [50173]
        assert tenant.grants() == ["password", "refresh_token", "refresh_token"]


def test_load_returns_the_shipped_placeholders():
    config = load(PARAMETERS)
    assert {key: config[key] for key in PLACEHOLDERS} == PLACEHOLDERS
