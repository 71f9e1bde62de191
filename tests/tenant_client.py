"""A client for the tests of the local tenant: requests, programs, and sign-ins with MSAL."""

import subprocess

import msal
import requests
from helpers import USERS, Result, decode, local_tenant_command
from tenant import LocalTenant
from tenant.scenarios import SCENARIOS

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


def own_tenant(scenario=None):
    """Return the local tenant of OWN in this scenario, not started yet."""
    tenant = LocalTenant(OWN)
    if scenario:
        SCENARIOS[scenario](tenant)
    return tenant


def new_session(tenant):
    """Return a requests.Session that uses the tenant."""
    session = requests.Session()
    session.trust_env = False
    env = tenant.environment()
    session.proxies = {"http": env["HTTP_PROXY"], "https": env["HTTPS_PROXY"]}
    session.verify = env["REQUESTS_CA_BUNDLE"]
    return session


def public_app(tenant, **options):
    """Return MSAL's PublicClientApplication in the tenant."""
    session = new_session(tenant)
    options.setdefault("authority", LOGIN_URL)
    return msal.PublicClientApplication(OWN["client_id"], http_client=session, **options)


def sign_in_with_password(app):
    """Return MSAL's result for the right password."""
    username, password = OWN["username"], OWN["password"]
    return app.acquire_token_by_username_password(username, password, OWN["scope"])


def sign_in_with_device_code(app):
    """Return MSAL's result for a device code sign-in."""
    flow = app.initiate_device_flow(OWN["scope"])
    if "error" in flow:
        return flow
    flow["interval"] = 0  # Don't wait between polls.
    return app.acquire_token_by_device_flow(flow)


def get(url, **headers):
    """Return a GET request."""
    return ["GET", url, None, headers]


def post(url, form, **headers):
    """Return a POST request."""
    return ["POST", url, form, headers]


def sign_in(scope="User.ReadBasic.All", url=TOKEN_URL, **changes):
    """Return a token request with the right password, or with changed form fields."""
    form = {
        "client_id": OWN["client_id"],
        "grant_type": "password",
        "username": OWN["username"],
        "password": OWN["password"],
        "scope": scope + " openid profile offline_access",
        "client_info": "1",
    }
    return post(url, dict(form, **changes))


def ask(*requests_to_send, users=None):
    """Send requests to a new tenant. Return the status and the JSON of the last answer.

    After a token request, later requests carry the access token.
    """
    tenant = own_tenant()
    if users is not None:
        tenant.directory.user_count = users
    with tenant:
        session = new_session(tenant)
        for method, url, form, headers in requests_to_send:
            response = session.request(method, url, data=form, headers=headers, timeout=30)
            answer = response.json() if response.content else None
            if answer and "access_token" in answer:
                session.headers["Authorization"] = "Bearer " + answer["access_token"]
    return response.status_code, answer
