"""A client for the tests of the local tenant: requests, and the local tenant's command."""

import subprocess

import requests
from helpers import USERS, Result, decode, local_tenant_command
from tenant import LocalTenant

LOGIN_URL = "https://login.microsoftonline.com/contoso.example"
TOKEN_URL = LOGIN_URL + "/oauth2/v2.0/token"
GRAPH_URL = "https://graph.microsoft.com"
OWN = {
    "authority": LOGIN_URL,
    "client_id": "own_client_id",
    "username": "jane@contoso.example",
    "password": "own password",
    "scope": ["User.ReadBasic.All"],
    "endpoint": USERS,
}


def run_command(*arguments, stdout=subprocess.PIPE, env=None):
    """Run the local tenant's command. Return its exit status, stdout, and stderr."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": subprocess.PIPE}
    done = subprocess.run(local_tenant_command(*arguments), env=env, timeout=60, **streams)
    return Result(done.returncode, decode(done.stdout or b""), decode(done.stderr))


def new_session(tenant):
    """Return a requests.Session that uses the tenant."""
    session = requests.Session()
    session.trust_env = False
    env = tenant.environment()
    session.proxies = {"http": env["HTTP_PROXY"], "https": env["HTTPS_PROXY"]}
    session.verify = env["REQUESTS_CA_BUNDLE"]
    return session


def get(url, **headers):
    """Return a GET request."""
    return ["GET", url, None, headers]


def sign_in(scope="User.ReadBasic.All", url=TOKEN_URL, **changes):
    """Return a token request with the right password, or with changed form fields."""
    form = {
        "client_id": OWN["client_id"],
        "grant_type": "password",
        "username": OWN["username"],
        "password": OWN["password"],
        "scope": scope + " openid profile offline_access",
    }
    return ["POST", url, dict(form, **changes), {}]


def ask(*requests_to_send):
    """Send requests to a new tenant. Return the status and the JSON of the last answer.

    After a token request, later requests carry the access token.
    """
    with LocalTenant(OWN) as tenant:
        session = new_session(tenant)
        for method, url, form, headers in requests_to_send:
            response = session.request(method, url, data=form, headers=headers, timeout=30)
            answer = response.json()
            if "access_token" in answer:
                session.headers["Authorization"] = "Bearer " + answer["access_token"]
    return response.status_code, answer
