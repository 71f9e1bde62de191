"""The scenarios. Each one changes a tenant where everything works.

To add a scenario in which Entra refuses the sign-in, add a row to refusals.csv. For anything else,
write a function here and decorate it with @scenario. The function's name is the scenario's name,
with "-" in place of "_". The first line of the docstring is what --list prints. If the sample still
succeeds, use @scenario(succeeds=True). Each scenario in which the sample fails needs a row in the
README's troubleshooting tables.
"""

import functools

import trustme

from .adfs import WRONG_PASSWORD
from .graph import PAGE_SIZE
from .messages import Answer, json_answer
from .refusals import REASONS, REFUSES

SCENARIOS = {}  # For each name, a function that changes a tenant.
HTML = {"Content-Type": "text/html"}
WEB_PAGE = Answer(200, b"<html><head><meta></head><body>Sign in to the Wi-Fi</body></html>", HTML)
FIVE_PAGES = 5 * PAGE_SIZE
SHORT_LIFETIME = 60  # In seconds. MSAL renews a token with less than five minutes left.


def register(name, change, summary, succeeds=False, saved_sign_in=False):
    """Add a scenario, which is a function that changes a tenant.

    If saved_sign_in is True, local_tenant.py signs in once, and then runs the sample from the
    saved sign-in, without a password.
    """
    change.summary = summary
    change.succeeds = succeeds
    change.saved_sign_in = saved_sign_in
    SCENARIOS[name] = change


def scenario(change=None, *, succeeds=False):
    """Register a function as a scenario with the function's name."""
    if change is None:
        return functools.partial(scenario, succeeds=succeeds)
    summary = (change.__doc__ or "").partition("\n")[0]  # With -OO, there are no docstrings.
    register(change.__name__.replace("_", "-"), change, summary, succeeds)
    return change


# Sign-in: refused


def register_refusal(reason):
    """Register the scenario in which Entra refuses requests for this Reason."""
    saved_sign_in = reason.grants == REFUSES["saved sign-in"]

    def change(tenant):
        tenant.entra.refuse_for(tenant.entra.reason(reason.code))
        if saved_sign_in:
            tenant.entra.token_lifetime = SHORT_LIFETIME

    for name in (reason.scenario, "AADSTS{}".format(reason.code)):
        if name:
            register(name, change, reason.summary, saved_sign_in=saved_sign_in)


for reason in REASONS.values():
    if reason.grants:
        register_refusal(reason)


@scenario
def federated_wrong_password(tenant):
    """AD FS refuses the password."""
    tenant.entra.realm = "Federated"
    tenant.replace("wstrust", WRONG_PASSWORD)


@scenario
def federation_without_ws_trust(tenant):
    """The account signs in at a service that supports SAML but not WS-Trust."""
    tenant.entra.realm = "Federated"
    tenant.entra.ws_trust = ""


@scenario
def adfs_page(tenant):
    """AD FS answers every request with a web page."""
    tenant.entra.realm = "Federated"
    tenant.replace("mex", WEB_PAGE)
    tenant.replace("wstrust", WEB_PAGE)


@scenario
def personal_account(tenant):
    """The account is a personal one, which has no WS-Trust endpoint."""
    tenant.entra.realm = "Federated"
    empty = b'<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/"/>'
    tenant.replace("mex", Answer(200, empty, {"Content-Type": "text/xml"}))


@scenario
def service_down(tenant):
    """Entra answers every request with status 503."""
    down = Answer(503, b"<html><body>Service Unavailable</body></html>", HTML)
    for step in ("discovery", "instance", "realm", "token", "devicecode"):
        tenant.replace(step, down)


@scenario
def sign_in_page(tenant):
    """Entra's response is a web page instead of tokens."""
    tenant.replace("token", WEB_PAGE)


# Sign-in: unusual cases that work


@scenario(succeeds=True)
def federated(tenant):
    """AD FS checks the password."""
    tenant.entra.realm = "Federated"


@scenario(succeeds=True)
def alternate_login(tenant):
    """The username is an alternate login ID. The account has another name."""
    tenant.directory.account_name = "zoe.bronte@" + tenant.directory.domain


# Graph: refused or broken


@scenario
def forbidden(tenant):
    """Graph refuses to list the users."""
    text = "Insufficient privileges to complete the operation."
    tenant.replace("graph", tenant.graph.error(403, "Authorization_RequestDenied", text))


@scenario
def identity_not_found(tenant):
    """The app isn't registered in the user's tenant, or it has no consent there."""
    text = "The identity of the calling application could not be established."
    tenant.replace("graph", tenant.graph.error(401, "Authorization_IdentityNotFound", text))


@scenario
def token_refused(tenant):
    """The access token is for another resource, so Graph refuses it."""
    tenant.entra.audience = "management.azure.com"


@scenario
def expired_page_token(tenant):
    """The listing takes too long: the link to the third page of five has expired."""
    text = "The specified page token value has expired and can no longer be included in your"
    text += " request."
    expired = tenant.graph.error(400, "Directory_ExpiredPageToken", text)
    tenant.directory.user_count = FIVE_PAGES
    tenant.replace("graph", tenant.graph.on_graph, tenant.graph.on_graph, expired)


@scenario
def bad_page(tenant):
    """The second page of five has no list of users."""
    tenant.directory.user_count = FIVE_PAGES
    tenant.replace("graph", tenant.graph.on_graph, json_answer({"value": None}))


@scenario
def throttled_for_an_hour(tenant):
    """Graph asks the program to wait for an hour."""
    text = "Too many requests."
    busy = tenant.graph.error(429, "TooManyRequests", text, Retry_After="3600")
    tenant.replace("graph", busy)


@scenario
def graph_down(tenant):
    """Graph answers every request with status 503."""
    text = "The service is temporarily unavailable."
    tenant.replace("graph", tenant.graph.error(503, "serviceNotAvailable", text))


@scenario
def error_in_200(tenant):
    """Graph answers every request with an error, but the status is 200."""
    tenant.replace("graph", tenant.graph.error(200, "UnknownError", "An error occurred."))


@scenario
def endless_pages(tenant):
    """The link to the next page repeats."""
    page = tenant.graph.page()
    link = "https://{}/v1.0/users?$skiptoken=again".format(tenant.directory.graph)
    page["@odata.nextLink"] = link
    tenant.replace("graph", json_answer(page))


@scenario
def not_json(tenant):
    """Graph's response is a web page instead of JSON."""
    tenant.replace("graph", WEB_PAGE)


# Graph: unusual cases that work


@scenario(succeeds=True)
def many_users(tenant):
    """The tenant has 1,234 users."""
    tenant.directory.user_count = 1234


@scenario(succeeds=True)
def token_expires(tenant):
    """Each access token expires after one page. The tenant has 500 users."""
    tenant.directory.user_count = FIVE_PAGES
    tenant.replace("graph", functools.partial(answer_then_revoke, tenant))


@scenario(succeeds=True)
def token_revoked(tenant):
    """The access token is revoked after the second page. The tenant has 500 users."""
    tenant.directory.user_count = FIVE_PAGES
    revoke = functools.partial(answer_then_revoke, tenant)
    tenant.replace("graph", tenant.graph.on_graph, revoke, then_happy=True)


def answer_then_revoke(tenant, request):
    """Return Graph's answer, and revoke all access tokens."""
    answer = tenant.graph.on_graph(request)
    tenant.graph.revoke_access_tokens()
    return answer


@scenario(succeeds=True)
def throttled(tenant):
    """Twice, Graph asks the program to wait for one second."""
    busy = tenant.graph.error(429, "TooManyRequests", "Too many requests.", Retry_After="1")
    tenant.replace("graph", busy, busy, then_happy=True)


# The network


@scenario
def no_network(tenant):
    """There's no network connection."""
    tenant.proxy = "http://127.0.0.1:9"


@scenario
def proxy_login(tenant):
    """The proxy asks for a username and a password."""
    tenant.server.refusal = (407, "Proxy Authentication Required")


@scenario
def invalid_proxy(tenant):
    """The password in the proxy's URL has a "#" that isn't encoded."""
    tenant.directory.secrets.add("S3cret")
    tenant.proxy = "http://user:S3cret#x@127.0.0.1:{port}"


@scenario
def socks_proxy(tenant):
    """The proxy is a SOCKS proxy, which needs another package."""
    tenant.proxy = "socks5://127.0.0.1:9"


@scenario
def untrusted_certificate(tenant):
    """A proxy presents certificates from an unknown certificate authority."""
    tenant.ca_file = trustme.CA().cert_pem.bytes()


@scenario
def missing_ca_file(tenant):
    """REQUESTS_CA_BUNDLE names a file that doesn't exist."""
    tenant.ca_file = b""


@scenario
def unusable_ca_file(tenant):
    """REQUESTS_CA_BUNDLE names a file that isn't in PEM format."""
    tenant.ca_file = b"This isn't a certificate.\n"
