"""Entra, at login.microsoftonline.com: discovery, where a user's home is, and the tokens."""

import time
import uuid
from urllib.parse import urlsplit

from .directory import ADFS, TENANT_ID, b64, read_token, unb64
from .proxy import json_answer

DELEGATED = {"User.Read", "User.ReadBasic.All", "User.Read.All"}
CONSENTED = {"User.Read", "User.ReadBasic.All"}  # What .default stands for.
OIDC = {"openid", "profile", "offline_access"}
ALIASES = {
    "login.microsoftonline.com": ["login.windows.net", "login.microsoft.com", "sts.windows.net"]
}
SAML_GRANT = "urn:ietf:params:oauth:grant-type:saml1_1-bearer"


class Entra:
    """The service; its attributes are what a scenario or a test changes."""

    def __init__(self, directory):
        self.directory = directory
        self.hosts = [directory.login] + ALIASES.get(directory.login, [])
        self.realm = "Managed"  # or Federated, or Unknown
        self.ws_trust = "13"  # or 2005, for which Entra names the ADFS's endpoint itself
        self.token_life = 3600  # Seconds.
        self.audience = directory.graph  # Whom the access tokens are for.
        self.sends_id_token = True
        self.refusals = {}  # Of what would succeed otherwise, by the grant's name ("" is any).
        self.revoked_at = 0  # Refresh tokens from before this time are no good any more.

    def refuse(self, code, text, error="invalid_grant", status=400, grant="", **more):
        """Refuse with this AADSTS code what would succeed otherwise: one grant, or any."""
        self.refusals[grant] = dict(more, code=code, text=text, error=error, status=status)

    def revoke(self):
        """Forget all refresh tokens, as after a changed password."""
        self.revoked_at = time.time()

    def step_of(self, path):
        """Return which step of a run a request for the path is, or None."""
        for mark, step in [
            ("/.well-known/openid-configuration", "discovery"),
            ("/discovery/instance", "instance"),
            ("/userrealm/", "realm"),
            ("/oauth2/v2.0/token", "token"),
        ]:
            if mark in path:
                return step
        return None

    def error(self, request, code, text, error="invalid_grant", status=400, **more):
        """Return an error as Entra words it."""
        trace, stamp = str(uuid.uuid4()), time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        correlation = request.headers.get("client-request-id", str(uuid.uuid4()))
        description = "AADSTS{}: {} Trace ID: {} Correlation ID: {} Timestamp: {}".format(
            code, text, trace, correlation, stamp
        )
        body = {
            "error": error,
            "error_description": description,
            "error_codes": [code],
            "timestamp": stamp,
            "trace_id": trace,
            "correlation_id": correlation,
            "error_uri": "https://{}/error?code={}".format(self.directory.login, code),
        }
        return json_answer(dict(body, **more), status)

    def on_discovery(self, request):
        tenant = request.path.split("/")[1]
        if tenant.lower() not in {name.lower() for name in self.directory.tenants}:
            text = "Tenant '{}' not found. Check to make sure you have the correct tenant ID."
            return self.error(request, 90002, text.format(tenant), "invalid_tenant")
        base = "https://{}/{}".format(self.directory.login, tenant)
        return json_answer(
            {
                "token_endpoint": base + "/oauth2/v2.0/token",
                "authorization_endpoint": base + "/oauth2/v2.0/authorize",
                "device_authorization_endpoint": base + "/oauth2/v2.0/devicecode",
                "jwks_uri": base + "/discovery/v2.0/keys",
                "userinfo_endpoint": "https://{}/oidc/userinfo".format(self.directory.graph),
                "issuer": "https://{}/{{tenantid}}/v2.0".format(self.directory.login),
                "cloud_instance_name": "microsoftonline.com",
                "msgraph_host": self.directory.graph,
            }
        )

    def on_instance(self, request):
        asked = urlsplit(request.query.get("authorization_endpoint", "")).hostname
        if asked not in self.hosts:
            text = "Unknown or invalid instance."
            return self.error(request, 50049, text, "invalid_instance")
        metadata = {
            "preferred_network": self.hosts[0],
            "preferred_cache": self.hosts[-1],
            "aliases": self.hosts,
        }
        endpoint = "https://{}/common/.well-known/openid-configuration".format(self.hosts[0])
        return json_answer(
            {"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": [metadata]}
        )

    def on_realm(self, request):
        realm = {
            "ver": "1.0",
            "account_type": self.realm,
            "domain_name": self.directory.domain,
            "cloud_instance_name": "microsoftonline.com",
            "cloud_audience_urn": "urn:federation:MicrosoftOnline",
        }
        if self.realm == "Federated":
            adfs = "https://{}/adfs/services/trust/".format(ADFS)
            realm["federation_protocol"] = "WSTrust"
            realm["federation_active_auth_url"] = adfs + "2005/usernamemixed"
            if self.ws_trust == "13":
                realm["federation_metadata_url"] = adfs + "mex"
        return json_answer(realm)

    def on_token(self, request):
        form, directory = request.form, self.directory
        grant, scopes = form.get("grant_type"), set(form.get("scope", "").split()) - OIDC
        if form.get("client_id") != directory.client_id:
            text = "Application with identifier '{}' was not found in the directory."
            text = text.format(form.get("client_id"))
            return self.error(request, 700016, text, "unauthorized_client")
        audience, permissions = self.resource(scopes)
        if audience == directory.graph and not permissions <= DELEGATED or not permissions:
            text = "The provided value for the input parameter 'scope' is not valid."
            return self.error(request, 70011, text, "invalid_scope")
        if grant == "password":
            if request.path.split("/")[1] in ("common", "consumers"):
                text = "The grant type is not supported over the /common or /consumers endpoints."
                return self.error(request, 9001023, text, "invalid_request")
            if form.get("username", "").lower() != directory.username.lower():
                text = "The user account {} does not exist in the {} directory."
                text = text.format(form.get("username"), directory.domain)
                return self.error(request, 50034, text)
            if form.get("password") != directory.password:
                text = "Error validating credentials due to invalid username or password."
                return self.error(request, 50126, text)
        elif grant == "refresh_token":
            claims = read_token("rt", form.get("refresh_token", ""))
            if not claims or claims["iat"] <= self.revoked_at:
                text = "The provided grant has expired due to it being revoked."
                return self.error(request, 50173, text, suberror="bad_token")
        elif grant == SAML_GRANT:
            if unb64(form.get("assertion", "")).decode() not in directory.assertions:
                return self.error(request, 50008, "SAML token is invalid.")
        else:
            text = "The app requested an unsupported grant type '{}'."
            return self.error(request, 70003, text.format(grant), "unsupported_grant_type")
        refusal = self.refusals.get(grant) or self.refusals.get("")
        if refusal:
            return self.error(request, **refusal)
        return json_answer(self.grant(form["scope"], audience, permissions))

    def resource(self, scopes):
        """Return whom a token of these scopes is for, and its permissions there."""
        audience, permissions = self.audience, set()
        for scope in scopes:
            url, _, permission = scope.rpartition("/")
            audience = urlsplit(url).hostname or audience
            permissions |= CONSENTED if permission == ".default" else {permission}
        return audience, permissions

    def grant(self, said_scope, audience, permissions):
        """Return a token response."""
        directory, now = self.directory, int(time.time())
        claims = {
            "aud": directory.client_id,
            "iss": "https://{}/{}/v2.0".format(directory.login, TENANT_ID),
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "name": directory.person(0)["displayName"],
            "preferred_username": directory.account_name,
            "oid": directory.person(0)["id"],
            "tid": TENANT_ID,
            "ver": "2.0",
        }
        id_token = ".".join([b64({"typ": "JWT", "alg": "none"}), b64(claims), b64(b"signature")])
        directory.secrets.add(id_token)
        response = {
            "token_type": "Bearer",
            "scope": said_scope,
            "expires_in": self.token_life,
            "ext_expires_in": self.token_life,
            "access_token": directory.issue(
                "at", exp=time.time() + self.token_life, aud=audience, scp=sorted(permissions)
            ),
            "refresh_token": directory.issue("rt"),
        }
        if self.sends_id_token:
            response["id_token"] = id_token
            response["client_info"] = b64({"uid": claims["oid"], "utid": TENANT_ID})
        return response
