"""The scenarios. Each one changes a tenant where everything works.

To add a scenario, write a function here and decorate it with @scenario. If the sample still
succeeds, use @scenario(succeeds=True). If the scenario shows only in a run from a saved sign-in,
use @scenario(saved_sign_in=True). The function's name is the scenario's name, with "-" in place of
"_". The first line of the docstring is what --list prints. Each scenario in which the sample fails
needs a row in the README's troubleshooting tables.
"""

from .entra import CLIENT_CREDENTIALS, DEVICE_CODE, SAML
from .graph import PAGE_SIZE
from .messages import Answer, cut_off, json_answer

SCENARIOS = {}
HTML = {"Content-Type": "text/html"}
WEB_PAGE = Answer(200, b"<html><body>Sign in to the Wi-Fi</body></html>", HTML)
FIVE_PAGES = 5 * PAGE_SIZE
USER_GRANTS = ("password", "refresh_token", SAML, DEVICE_CODE)


def scenario(change=None, *, succeeds=False, saved_sign_in=False):
    """Register a function that changes a tenant.

    If saved_sign_in is True, local_tenant.py signs in once, and then runs the sample from the
    saved sign-in, without a password.
    """

    def register(change):
        change.summary = change.__doc__.partition("\n")[0]
        change.succeeds = succeeds
        change.saved_sign_in = saved_sign_in
        SCENARIOS[change.__name__.replace("_", "-")] = change
        return change

    if change is None:
        return register
    return register(change)


# Sign-in: refused


@scenario
def wrong_password(tenant):
    """The password is wrong."""
    tenant.directory.password = "another password"


@scenario
def unknown_user(tenant):
    """The tenant doesn't have the user."""
    tenant.directory.username = "somebody_else@" + tenant.directory.domain


@scenario
def unknown_app(tenant):
    """The tenant doesn't have the app."""
    tenant.directory.client_id = "another_client_id"


@scenario
def not_public(tenant):
    """The app doesn't allow public client flows."""
    text = "The request body must contain the following parameter: 'client_assertion' or"
    text += " 'client_secret'."
    for grant in USER_GRANTS:
        tenant.entra.refuse(7000218, text, "invalid_client", 401, grant=grant)


@scenario
def common_authority(tenant):
    """The authority is /common, which doesn't check passwords."""
    text = "The grant type is not supported over the /common or /consumers endpoints. Please use"
    text += " the /organizations or tenant-specific endpoint."
    tenant.entra.refuse(9001023, text, "invalid_request", grant="password")


@scenario
def unknown_tenant(tenant):
    """The authority's tenant doesn't exist."""
    tenant.directory.tenants.clear()


@scenario
def no_consent(tenant):
    """Nobody has consented to the delegated permission."""
    text = "The user or administrator has not consented to use the application with ID '{}'."
    text = text.format(tenant.directory.client_id)
    tenant.entra.refuse(65001, text, suberror="consent_required")


@scenario
def mfa_required(tenant):
    """The account must use MFA. Device code sign-in works."""
    text = "Due to a configuration change made by your administrator, or because you moved to a"
    text += " new location, you must use multi-factor authentication to access '{}'."
    text = text.format(tenant.directory.graph)
    tenant.entra.refuse(50076, text, grant="password", suberror="basic_action")


@scenario
def external_mfa(tenant):
    """The account must use MFA from an external provider."""
    text = "External security challenge not satisfied. User will be redirected to another page or"
    text += " authentication provider to satisfy additional authentication challenges."
    tenant.entra.refuse(50158, text, suberror="basic_action")


@scenario
def conditional_access(tenant):
    """A Conditional Access policy blocks the sign-in."""
    text = "Access has been blocked by Conditional Access policies. The access policy does not"
    text += " allow token issuance."
    tenant.entra.refuse(53003, text, suberror="message_only")


@scenario
def security_defaults(tenant):
    """Security defaults block the sign-in."""
    text = "Access has been blocked by security defaults."
    tenant.entra.refuse(530035, text, suberror="message_only")


@scenario
def not_assigned(tenant):
    """The app requires assignment, and the user isn't assigned to it."""
    text = "Your administrator has configured the application ('{}') to block users unless they"
    text += " are specifically granted ('assigned') access to the application. The signed in user"
    text += " '{}' is blocked because they are not a direct member of a group with access, nor"
    text += " had access directly assigned by an administrator."
    directory = tenant.directory
    tenant.entra.refuse(50105, text.format(directory.client_id, directory.username))


@scenario
def other_tenant_account(tenant):
    """The account belongs to another tenant."""
    text = "User account '{}' from identity provider 'https://sts.windows.net/' does not exist in"
    text += " tenant '{}' and cannot access the application '{}' in that tenant."
    directory = tenant.directory
    text = text.format(directory.username, directory.domain, directory.client_id)
    tenant.entra.refuse(50020, text)


@scenario
def account_locked(tenant):
    """Too many wrong passwords have locked the account."""
    text = "The account is locked, you've tried to sign in too many times with an incorrect user"
    text += " ID or password."
    tenant.entra.refuse(50053, text)


@scenario
def account_disabled(tenant):
    """The account is disabled."""
    tenant.entra.refuse(50057, "The user account is disabled.")


@scenario
def password_expired(tenant):
    """The password has expired."""
    tenant.entra.refuse(50055, "The password is expired.", suberror="user_password_expired")


@scenario
def password_must_change(tenant):
    """The user must change their password because the account is at risk."""
    text = "User password is required to be changed due to conditional access or user risk."
    tenant.entra.refuse(50142, text)


@scenario(saved_sign_in=True)
def sign_in_ended(tenant):
    """Each sign-in works, but a policy ends it before the next run."""
    text = "The refresh token has expired or is invalid due to sign-in frequency checks by"
    text += " conditional access."
    tenant.entra.refuse(70043, text, grant="refresh_token", suberror="bad_token")
    tenant.entra.token_lifetime = 60  # MSAL renews a token with less than five minutes left.


@scenario
def token_loop(tenant):
    """The program has asked for too many tokens in a row."""
    text = "The server terminated an operation because it encountered a client request loop."
    for grant in ("", CLIENT_CREDENTIALS):
        tenant.entra.refuse(50196, text, grant=grant)


@scenario
def federated_wrong_password(tenant):
    """The AD FS refuses the password."""
    tenant.entra.realm = "Federated"
    tenant.directory.password = "another password"


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
    """An AD FS checks the password."""
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
def token_refused(tenant):
    """The access token is for another resource, so Graph refuses it."""
    tenant.entra.audience = "management.azure.com"


@scenario
def expired_page_token(tenant):
    """The listing takes too long: the link to the third page of five has expired."""
    tenant.directory.user_count = FIVE_PAGES
    text = "The specified page token value has expired and can no longer be included in your"
    text += " request."
    expired = tenant.graph.error(400, "Directory_ExpiredPageToken", text)

    def answer(request):
        if request.query.get("$skiptoken") == str(2 * PAGE_SIZE):
            return expired
        return tenant.graph.on_graph(request)

    tenant.replace("graph", answer)


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
def endless_pages(tenant):
    """The link to the next page repeats."""
    page = tenant.graph.page()
    link = "https://{}/v1.0/users?$skiptoken=again".format(tenant.directory.graph)
    page["@odata.nextLink"] = link
    tenant.replace("graph", json_answer(page))


# Graph: unusual cases that work


@scenario(succeeds=True)
def many_users(tenant):
    """The tenant has 1,234 users."""
    tenant.directory.user_count = 1234


@scenario(succeeds=True)
def token_expires(tenant):
    """Each access token expires after one page. The tenant has 500 users."""
    tenant.directory.user_count = FIVE_PAGES
    tenant.graph.requests_per_token = 1
    tenant.entra.token_lifetime = 60  # MSAL renews a token with less than five minutes left.


@scenario(succeeds=True)
def token_revoked(tenant):
    """The access token is revoked after the second page. The tenant has 500 users."""
    tenant.directory.user_count = FIVE_PAGES

    def answer_then_revoke(request):
        answer = tenant.graph.on_graph(request)
        tenant.graph.revoke_access_tokens()
        return answer

    tenant.replace("graph", tenant.graph.on_graph, answer_then_revoke, then_happy=True)


@scenario(succeeds=True)
def throttled(tenant):
    """Twice, Graph asks the program to wait for two seconds."""
    busy = tenant.graph.error(429, "TooManyRequests", "Too many requests.", Retry_After="2")
    tenant.replace("graph", busy, busy, then_happy=True)


@scenario(succeeds=True)
def broken_page(tenant):
    """The connection breaks once, in the middle of the third page of five."""
    tenant.directory.user_count = FIVE_PAGES

    def break_off(request):
        return cut_off(tenant.graph.on_graph(request))

    on_graph = tenant.graph.on_graph
    tenant.replace("graph", on_graph, on_graph, break_off, then_happy=True)


@scenario(succeeds=True)
def graph_errors(tenant):
    """Graph answers with status 500, then with status 502, and then works."""
    error = tenant.graph.error(500, "UnknownError", "")
    bad_gateway = Answer(502, b"<html><body>Bad Gateway</body></html>", HTML)
    tenant.replace("graph", error, bad_gateway, then_happy=True)


# The network


@scenario
def untrusted_certificate(tenant):
    """A proxy presents certificates from an unknown certificate authority."""
    tenant.trusted = False


@scenario
def not_json(tenant):
    """Graph's response is a web page instead of JSON."""
    tenant.replace("graph", WEB_PAGE)


@scenario
def no_network(tenant):
    """There's no network connection."""
    tenant.reachable = False


@scenario
def proxy_login(tenant):
    """The proxy asks for a username and a password."""
    tenant.server.refusal = (407, "Proxy Authentication Required")
