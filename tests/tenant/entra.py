"""Microsoft Entra ID, at login.microsoftonline.com: discovery, user realms, and tokens."""

import re
import time
import uuid
from urllib.parse import unquote

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from .directory import ADFS, TENANT_ID, b64
from .messages import json_answer
from .refusals import (
    ANY_USER,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    PASSWORD,
    REASONS,
    REFRESH_TOKEN,
    REFRESH_WITHOUT_MFA,
    SAML,
    TENANT,
    Reason,
    Refusal,
)

WORLDWIDE = "login.microsoftonline.com"
ALIASES = {  # The names of each cloud's sign-in host.
    WORLDWIDE: [WORLDWIDE, "login.windows.net", "login.microsoft.com", "sts.windows.net"],
    "login.microsoftonline.us": ["login.microsoftonline.us"],
    "login.partner.microsoftonline.cn": ["login.partner.microsoftonline.cn"],
}

OIDC_SCOPES = ("openid", "profile", "email", "offline_access")
# The app has consent for these permissions.
PERMISSIONS = ("User.Read", "User.ReadBasic.All", "User.Read.All")
GRAPH_ID = "00000003-0000-0000-c000-000000000000"
DEVICE_CODE_PAGE = "https://www.microsoft.com/link"


class Entra:
    """The Microsoft Entra ID service. Tests and scenarios change its attributes."""

    routes = [
        (r"GET /.*/v2\.0/\.well-known/openid-configuration", "discovery"),
        (r"GET /common/discovery/instance", "instance"),
        (r"GET /common/userrealm/[^/]+", "realm"),
        (r"POST /[^/]+/oauth2/v2\.0/token", "token"),
        (r"POST /[^/]+/oauth2/v2\.0/devicecode", "devicecode"),
    ]

    def __init__(self, directory):
        self.directory = directory
        # MSAL 1.35 and earlier always send instance discovery requests to the worldwide host.
        self.hosts = [*ALIASES[directory.login], WORLDWIDE]
        self.realm = "Managed"  # "Managed", "Federated", or "Unknown"
        # "13", "2005" for an AD FS without a MEX document, or "" for a service without WS-Trust
        self.ws_trust = "13"
        self.token_lifetime = 3600  # The lifetime of an access token, in seconds.
        self.audience = directory.graph  # The host that accepts the tokens for Graph.
        self.sends_id_token = True
        self._refusals = {}  # The Reason for each grant type that's refused.
        self._revoked_tokens = set()
        self._device_codes = {}  # For each device code, its scope.

    def refuse(self, code, text, grant=ANY_USER):
        """From now on, use this AADSTS code to refuse correct token requests of the grant type."""
        self.refuse_for(Reason(code, text, grants=(grant,)))

    def refuse_for(self, reason):
        """From now on, use this Reason to refuse correct requests of its grant types."""
        for grant in reason.grants:
            self._refusals[grant] = reason

    def reason(self, code, **values):
        """Return the Reason with this AADSTS code. The values complete its text.

        Without a value, the text contains the directory's own client ID, username, or tenant.
        """
        defaults = {
            "client_id": self.directory.client_id,
            "username": self.directory.username,
            "tenant": self.directory.domain,
            "resource": GRAPH_ID,
            "scope": "User.ReadBasic.All",
        }
        reason = REASONS[code]
        return reason._replace(text=reason.text.format(**dict(defaults, **values)))

    def revoke_refresh_tokens(self):
        """Revoke all refresh tokens issued so far, as a password change does."""
        self._revoked_tokens = set(self.directory.secrets)

    def error(self, request, reason):
        """Return an error in Entra's format for this Reason."""
        trace_id = str(uuid.uuid4())
        timestamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        correlation_id = request.headers.get("client-request-id", str(uuid.uuid4()))
        body = {
            "error": reason.error,
            "error_description": reason.text,
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
        }
        if reason.code is not None:
            text = "AADSTS{}: {} Trace ID: {} Correlation ID: {} Timestamp: {}"
            text = text.format(reason.code, reason.text, trace_id, correlation_id, timestamp)
            body["error_description"] = text
            body["error_codes"] = [reason.code]
        if reason.suberror:
            body["suberror"] = reason.suberror
        return json_answer(body, reason.status)

    # Discovery

    def on_discovery(self, request):
        """Return the endpoints of the tenant."""
        try:
            self._check_authority_path(request)
            tenant = self._check_tenant(request)
        except Refusal as refusal:
            return self.error(request, refusal.reason._replace(error="invalid_tenant"))
        base = "https://{}/{}".format(request.host, tenant)
        issuer_tenant = "{tenantid}"
        if tenant.lower() not in ("organizations", "common"):
            issuer_tenant = TENANT_ID
        return json_answer(
            {
                "token_endpoint": base + "/oauth2/v2.0/token",
                "authorization_endpoint": base + "/oauth2/v2.0/authorize",
                "device_authorization_endpoint": base + "/oauth2/v2.0/devicecode",
                "jwks_uri": base + "/discovery/v2.0/keys",
                "issuer": "https://{}/{}/v2.0".format(self.directory.login, issuer_tenant),
            }
        )

    def on_instance(self, request):
        """Return the names of the sign-in hosts in all clouds."""
        authorization_endpoint = request.query.get("authorization_endpoint", "")
        host = authorization_endpoint.partition("://")[2].partition("/")[0]
        if not any(host in hosts for hosts in ALIASES.values()):
            return self.error(request, self.reason(50049))
        metadata = []
        for login, hosts in ALIASES.items():
            cache_name = "login.windows.net" if login == WORLDWIDE else login
            metadata.append(
                {"preferred_network": login, "preferred_cache": cache_name, "aliases": hosts}
            )
        endpoint = "https://{}/common/v2.0/.well-known/openid-configuration".format(host)
        return json_answer(
            {"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": metadata}
        )

    def on_realm(self, request):
        """Return who checks the password of a user: Entra or an AD FS."""
        username = unquote(request.path.rpartition("/")[2])
        if username.rpartition("@")[2].lower() != self.directory.domain.lower():
            return json_answer({"ver": "1.0", "account_type": "Unknown"})
        realm = {
            "ver": "1.0",
            "account_type": self.realm,
            "domain_name": self.directory.domain,
            "cloud_audience_urn": "urn:federation:MicrosoftOnline",
        }
        if self.realm == "Federated" and not self.ws_trust:
            realm["federation_protocol"] = "SAMLP"
        elif self.realm == "Federated":
            trust = "https://{}/adfs/services/trust/".format(ADFS)
            realm["federation_protocol"] = "WSTrust"
            realm["federation_active_auth_url"] = trust + "2005/usernamemixed"
            if self.ws_trust == "13":
                realm["federation_metadata_url"] = trust + "mex"
        return json_answer(realm)

    # Tokens

    def on_devicecode(self, request):
        """Start a device code sign-in."""
        scope = request.form.get("scope", "")
        try:
            self._check_tenant(request)
            self._check_client_id(request.form)
            self._read_scope(scope)
        except Refusal as refusal:
            return self.error(request, refusal.reason)
        device_code = "device-code-" + uuid.uuid4().hex
        user_code = uuid.uuid4().hex[:9].upper()
        self.directory.secrets.add(device_code)
        self._device_codes[device_code] = scope
        message = "To sign in, use a web browser to open the page {} and enter the code {} to"
        message += " authenticate."
        return json_answer(
            {
                "user_code": user_code,
                "device_code": device_code,
                "verification_uri": DEVICE_CODE_PAGE,
                "expires_in": 900,
                "interval": 5,
                "message": message.format(DEVICE_CODE_PAGE, user_code),
            }
        )

    def on_token(self, request):
        """Return tokens, or the reason why there are none."""
        try:
            return json_answer(self._issue_tokens(request))
        except Refusal as refusal:
            return self.error(request, refusal.reason)

    def _issue_tokens(self, request):
        """Return the token response as a dict. Raises Refusal if Entra refuses the request."""
        form = request.form
        self._check_tenant(request)
        grant = self._required(form, "grant_type")
        checks = {  # Each function returns the requested scope and whether the sign-in has MFA.
            PASSWORD: self._check_password,
            REFRESH_TOKEN: self._check_refresh_token,
            SAML: self._check_assertion,
            DEVICE_CODE: self._check_device_code,
        }
        if grant not in checks and grant != CLIENT_CREDENTIALS:
            raise _not_implemented("the grant type " + grant)
        self._check_client_id(form)
        if "client_secret" in form:
            raise _not_implemented("client_secret. It implements client_assertion")
        if grant == CLIENT_CREDENTIALS:
            self._check_app(request)
            self._raise_refusal(grant)
            return self._token_response(roles=["User.Read.All"])
        if "client_assertion" in form:
            raise _not_implemented("client_assertion when a user signs in")

        scope, with_mfa = checks[grant](request)
        permissions = self._read_scope(scope)
        if grant == REFRESH_TOKEN and not with_mfa:
            self._raise_refusal(REFRESH_WITHOUT_MFA)
        self._raise_refusal(grant, ANY_USER)
        return self._user_tokens(form, scope, permissions, with_mfa)

    def _raise_refusal(self, *grants):
        """Raise Refusal if refuse() or refuse_for() has set a Reason for one of the grant types."""
        for grant in grants:
            if grant in self._refusals:
                raise Refusal(self._refusals[grant])

    def _check_authority_path(self, request):
        """Raise Refusal if the path starts with more than a tenant: MSAL adds the rest."""
        path = request.path[: -len("/v2.0/.well-known/openid-configuration")]
        if path.count("/") != 1:
            text = "The authority 'https://{0}{1}' is wrong. It must end with the tenant, for"
            text += " example 'https://{0}/organizations', without a '/' or '/v2.0' after it."
            raise Refusal(Reason(None, text.format(request.host, path), status=404))

    def _check_tenant(self, request):
        """Return the tenant in the request's path. Raises Refusal if there's no such tenant."""
        tenant = request.path.split("/")[1]
        this_cloud = request.host in ALIASES[self.directory.login]
        known = this_cloud and tenant.lower() in self.directory.tenants
        if not known or TENANT in self._refusals:
            raise Refusal(self.reason(90002, tenant=tenant))
        return tenant

    def _check_client_id(self, form):
        client_id = self._required(form, "client_id")
        if client_id != self.directory.client_id:
            raise Refusal(self.reason(700016, client_id=client_id))

    def _check_common(self, request):
        """Raise Refusal if the path's tenant can't check passwords."""
        if request.path.split("/")[1].lower() in ("common", "consumers"):
            raise Refusal(self.reason(9001023))

    def _check_password(self, request):
        self._check_common(request)
        username = self._required(request.form, "username")
        password = self._required(request.form, "password")
        if username.lower() != self.directory.username.lower():
            raise Refusal(self.reason(50034, username=username))
        # With this flow, Entra doesn't accept a password that starts or ends with a space.
        if password != password.strip() or not self.directory.accepts(password):
            raise Refusal(self.reason(50126))
        return self._required(request.form, "scope"), False

    def _check_refresh_token(self, request):
        token = self._required(request.form, "refresh_token")
        claims = self.directory.read("rt", token)
        # Only personal accounts can use /consumers.
        if not claims or request.path.split("/")[1].lower() == "consumers":
            raise Refusal(self.reason(70000))
        if token in self._revoked_tokens:
            raise Refusal(self.reason(50173))
        return request.form.get("scope") or claims["scope"], claims["with_mfa"]

    def _check_assertion(self, request):
        self._check_common(request)
        assertion = self._required(request.form, "assertion").rstrip("=")
        if assertion not in self.directory.assertions:
            raise Refusal(self.reason(50008))
        return self._required(request.form, "scope"), False

    def _check_device_code(self, request):
        # The user has already signed in.
        scope = self._device_codes.pop(self._required(request.form, "device_code"), None)
        if scope is None:
            reason = self.reason(70000)
            raise Refusal(reason._replace(error="bad_verification_code", suberror=""))
        return scope, True

    def _check_app(self, request):
        """Raise Refusal unless the app proves its identity and asks for a Graph token."""
        form = request.form
        tenant = request.path.split("/")[1]
        if tenant.lower() in ("organizations", "common", "consumers"):
            raise Refusal(self.reason(50059))
        if not form.get("client_assertion"):
            raise Refusal(self.reason(7000218))
        try:
            endpoint = "https://{}{}".format(request.host, request.path)
            self._check_client_assertion(form["client_assertion"], endpoint)
        except jwt.PyJWTError as error:
            raise Refusal(self.reason(700027, problem=error)) from None
        scope = self._required(form, "scope")
        if scope.lower() != "https://{}/.default".format(self.directory.graph):
            raise Refusal(self.reason(1002012, scope=scope))

    def _check_client_assertion(self, assertion, endpoint):
        """Raise PyJWTError unless the JWT is for the endpoint and is signed with the app's key."""
        if self.directory.certificate is None:
            text = "The app has no certificate. Pass --certificate FILE to local_tenant.py"
            raise jwt.InvalidTokenError(text)
        certificate = load_certificate(self.directory.certificate)
        thumbprints = {
            "x5t": b64(certificate.fingerprint(hashes.SHA1())),
            "x5t#S256": b64(certificate.fingerprint(hashes.SHA256())),
        }
        header = jwt.get_unverified_header(assertion)
        sent = {name: str(header[name]).rstrip("=") for name in thumbprints if name in header}
        if not sent or not sent.items() <= thumbprints.items():
            raise jwt.InvalidTokenError("The key was not found")
        jwt.decode(
            assertion,
            certificate.public_key(),
            algorithms=["PS256", "RS256"],
            audience=endpoint,
            issuer=self.directory.client_id,
            options={"require": ["exp", "aud", "iss"]},
        )

    def _required(self, form, name):
        """Return a field of the form. Raises Refusal if it's missing or empty."""
        if not form.get(name):
            raise Refusal(self.reason(900144, name=name))
        return form[name]

    def _read_scope(self, scope):
        """Return the permissions in the scope, in Entra's spelling. Raises Refusal if unknown."""
        permissions = []
        for name in scope.split():
            if name.lower() in OIDC_SCOPES:
                continue
            if not re.fullmatch(r"[A-Za-z0-9._:/-]+", name):
                raise Refusal(self.reason(70011, scope=name))
            resource, _, permission = name.rpartition("/")
            graph = "https://" + self.directory.graph
            if resource.lower() not in ("", GRAPH_ID, graph):
                raise self._unknown_permission(500011, resource=resource)
            permissions += self._permissions(permission)
        if not permissions:
            raise _not_implemented("a scope without permissions")
        return permissions

    def _permissions(self, name):
        """Return the permissions that a name stands for. Raises Refusal if it's unknown."""
        if name.lower() == ".default":
            return list(PERMISSIONS)
        for permission in PERMISSIONS:
            if permission.lower() == name.lower():
                return [permission]
        raise self._unknown_permission(650053, scope=name)

    def _unknown_permission(self, code, **values):
        """Return the Refusal of a permission that the local tenant doesn't know."""
        reason = self.reason(code, **values)
        text = reason.text + " The local tenant knows only these permissions of Microsoft Graph: "
        return Refusal(reason._replace(text=text + ", ".join(PERMISSIONS) + "."))

    # Token responses

    def _user_tokens(self, form, scope, permissions, with_mfa):
        """Return a token response for the user who signs in."""
        response = self._token_response(scp=permissions)
        response["scope"] = " ".join([*permissions, "profile", "openid", "email"])
        oidc_scopes = scope.lower().split()
        if "offline_access" in oidc_scopes:
            response["refresh_token"] = self.directory.issue("rt", scope=scope, with_mfa=with_mfa)
        if self.sends_id_token and "openid" in oidc_scopes:
            response["id_token"] = self._id_token()
        if self.sends_id_token and form.get("client_info") == "1":
            user_id = self.directory.person(0)["id"]
            response["client_info"] = b64({"uid": user_id, "utid": TENANT_ID})
        return response

    def _token_response(self, **claims):
        """Return a token response with an access token that has these claims."""
        expires = time.time() + self.token_lifetime
        return {
            "token_type": "Bearer",
            "expires_in": self.token_lifetime,
            "ext_expires_in": self.token_lifetime,
            "access_token": self.directory.issue("at", aud=self.audience, exp=expires, **claims),
        }

    def _id_token(self):
        now = int(time.time())
        user = self.directory.person(0)
        claims = {
            "aud": self.directory.client_id,
            "iss": "https://{}/{}/v2.0".format(self.directory.login, TENANT_ID),
            "iat": now,
            "exp": now + 3600,
            "preferred_username": user["userPrincipalName"],
            "oid": user["id"],
            "tid": TENANT_ID,
        }
        id_token = ".".join([b64({"typ": "JWT", "alg": "none"}), b64(claims), b64(b"signature")])
        self.directory.secrets.add(id_token)
        return id_token


def _not_implemented(what):
    # MSAL hides the text of every answer with a status of 500 or higher, so the status isn't 501.
    text = "The local tenant doesn't implement {}.".format(what)
    return Refusal(Reason(None, text, error="not_implemented"))


def load_certificate(contents):
    """Return the certificate in a PEM file, or in a DER file as Windows exports it.

    Raises ValueError if there's none.
    """
    if b"-----BEGIN" in contents:
        return x509.load_pem_x509_certificate(contents)
    return x509.load_der_x509_certificate(contents)
