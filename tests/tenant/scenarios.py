"""The scenarios: each changes a happy tenant, so that one thing can be rehearsed.

To add one, write an @scenario here: its name, with - for _, is the scenario's, and its docstring
what --list says of it. A failure also needs its row in the README's troubleshooting table; one in
which all works is named among FEATURES in test_readme.py.
"""

from .proxy import Answer, json_answer

SCENARIOS = {}
HTML = Answer(200, b"<html><body>Sign in to the Wi-Fi</body></html>", {"Content-Type": "text/html"})


def scenario(change):
    """Register a function that changes a tenant, under its name."""
    SCENARIOS[change.__name__.replace("_", "-")] = change
    return change


# The sign-in.


@scenario
def wrong_password(tenant):
    """Entra knows another password."""
    tenant.directory.password = "another one"


@scenario
def unknown_user(tenant):
    """Entra does not know the user."""
    tenant.directory.username = "somebody_else@" + tenant.directory.domain


@scenario
def unknown_app(tenant):
    """Entra does not know the client_id."""
    tenant.directory.client_id = "another_client_id"


@scenario
def not_public(tenant):
    """The app does not allow public client flows."""
    text = "The request body must contain the following parameter: 'client_assertion' or"
    text += " 'client_secret'."
    tenant.entra.refuse(7000218, text, "invalid_client", 401)


@scenario
def common_authority(tenant):
    """The authority is /common, where there is no password grant."""
    text = "The grant type is not supported over the /common or /consumers endpoints."
    tenant.entra.refuse(9001023, text, "invalid_request")


@scenario
def unknown_tenant(tenant):
    """There is no tenant of the authority's name."""
    tenant.directory.tenants.clear()


@scenario
def no_consent(tenant):
    """Nobody has consented to the delegated permission."""
    text = "The user or administrator has not consented to use the application with ID '{}'."
    text = text.format(tenant.directory.client_id)
    tenant.entra.refuse(65001, text, suberror="consent_required")


@scenario
def mfa_required(tenant):
    """The account must use multi-factor authentication."""
    text = "Due to a configuration change made by your administrator, or because you moved to a"
    text += " new location, you must use multi-factor authentication to access '{}'."
    tenant.entra.refuse(50076, text.format(tenant.directory.graph), suberror="basic_action")


@scenario
def conditional_access(tenant):
    """A Conditional Access policy blocks the sign-in."""
    text = "Access has been blocked by Conditional Access policies."
    tenant.entra.refuse(53003, text, suberror="message_only")


@scenario
def password_expired(tenant):
    """The password is right, and has expired."""
    tenant.entra.refuse(50055, "The password is expired.", suberror="user_password_expired")


@scenario
def account_locked(tenant):
    """Too many wrong passwords have locked the account."""
    text = "The account is locked, you've tried to sign in too many times."
    tenant.entra.refuse(50053, text)


@scenario
def sign_in_ended(tenant):
    """Each sign-in works, and a policy ends it before the next run could use it."""
    text = "The refresh token has expired or is invalid due to sign-in frequency checks by"
    text += " conditional access."
    tenant.entra.refuse(70043, text, grant="refresh_token", suberror="bad_token")
    tenant.entra.token_life = 60  # MSAL renews a token that has less than five minutes.


@scenario
def federated(tenant):
    """The account's home is an ADFS, and it all works."""
    tenant.entra.realm = "Federated"


@scenario
def federated_wrong_password(tenant):
    """The account's home is an ADFS, which knows another password."""
    tenant.entra.realm, tenant.directory.password = "Federated", "another one"


@scenario
def personal_account(tenant):
    """The account is a personal one: its realm has no WS-Trust endpoint."""
    tenant.entra.realm = "Federated"
    empty = b'<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/"/>'
    tenant.replace("mex", Answer(200, empty, {"Content-Type": "text/xml"}))


@scenario
def alternate_login(tenant):
    """The username is an alternate login ID, the account has another name, and it all works."""
    tenant.directory.account_name = "zoe.bronte@" + tenant.directory.domain


@scenario
def service_down(tenant):
    """Entra is down."""
    tenant.replace("discovery", Answer(503, b"<html><body>Service Unavailable</body></html>"))


# Graph.


@scenario
def forbidden(tenant):
    """The token is good, but not for the users."""
    text = "Insufficient privileges to complete the operation."
    tenant.replace("graph", tenant.graph.error(403, "Authorization_RequestDenied", text))


@scenario
def token_refused(tenant):
    """The token is for another resource."""
    tenant.entra.audience = "management.azure.com"


@scenario
def throttled(tenant):
    """Graph asks twice to wait for two seconds, and it all works."""
    busy = tenant.graph.error(429, "TooManyRequests", "Too many requests.", Retry_After="2")
    tenant.replace("graph", busy, busy, then_happy=True)


@scenario
def endless_pages(tenant):
    """A page's link leads back to the page."""
    page = tenant.graph.page()
    page["@odata.nextLink"] = "https://{}/v1.0/users?$skiptoken=again".format(
        tenant.directory.graph
    )
    tenant.replace("graph", json_answer(page))


@scenario
def many_users(tenant):
    """The tenant has 1,234 users, on 13 pages."""
    tenant.directory.size = 1234


@scenario
def token_expires(tenant):
    """Graph takes a token for one request, then it has to be renewed; all 500 users come."""
    tenant.directory.size, tenant.graph.uses, tenant.entra.token_life = 500, 1, 60


# The network.


@scenario
def untrusted_certificate(tenant):
    """A proxy shows certificates of an authority that is not known here."""
    tenant.trusted = False


@scenario
def not_json(tenant):
    """A web page comes in place of Graph's answer."""
    tenant.replace("graph", HTML)


@scenario
def no_network(tenant):
    """The way to the network is closed."""
    tenant.reachable = False


@scenario
def proxy_login(tenant):
    """The proxy wants a name and a password."""
    tenant.proxy.refusal = 407, "Proxy Authentication Required"
