"""Microsoft Entra ID, at login.microsoftonline.com: discovery, user realms, and tokens."""

import re
import time
import uuid
from urllib.parse import unquote, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from .directory import ADFS, CLOUDS, TENANT_ID, b64, unb64
from .messages import find_step, json_answer
from .refusals import (
    ANY_USER,
    CLIENT_CREDENTIALS,
    DEVICE_CODE,
    NEW_DEVICE_CODE,
    PASSWORD,
    REASONS,
    REFRESH_TOKEN,
    REFRESH_WITHOUT_MFA,
    SAML,
    TENANT,
    Reason,
    Refusal,
)

ALIASES = {  # The other names of each cloud's sign-in host.
    "login.microsoftonline.com": ["login.windows.net", "login.microsoft.com", "sts.windows.net"],
    "login.microsoftonline.us": ["login.usgovcloudapi.net"],
    "login.partner.microsoftonline.cn": ["login.chinacloudapi.cn"],
}
WORLDWIDE = "login.microsoftonline.com"

OIDC_SCOPES = ("openid", "profile", "email", "offline_access")
# The app has consent for these permissions.
PERMISSIONS = ("User.Read", "User.ReadBasic.All", "User.Read.All")
PERMISSIONS_WITHOUT_CONSENT = """
    Application.Read.All Application.ReadWrite.All AuditLog.Read.All Calendars.Read
    Channel.ReadBasic.All ChannelMessage.Read.All Chat.Read Chat.ReadBasic Chat.ReadWrite
    Calendars.ReadWrite Contacts.Read Contacts.ReadWrite Device.Read.All
    DeviceManagementManagedDevices.Read.All Directory.AccessAsUser.All Directory.Read.All
    Directory.ReadWrite.All Domain.Read.All Files.Read Files.Read.All Files.ReadWrite
    Files.ReadWrite.All Group.Read.All Group.ReadWrite.All GroupMember.Read.All
    GroupMember.ReadWrite.All IdentityRiskyUser.Read.All Mail.Read Mail.ReadWrite Mail.Send
    MailboxSettings.Read Notes.Read.All OnlineMeetings.Read Organization.Read.All People.Read
    People.Read.All Policy.Read.All Presence.Read.All Reports.Read.All
    RoleManagement.Read.Directory SecurityEvents.Read.All Sites.Read.All Sites.ReadWrite.All
    Tasks.Read Tasks.ReadWrite Team.ReadBasic.All User.EnableDisableAccount.All User.Export.All
    User.Invite.All User.ManageIdentities.All User.ReadWrite User.ReadWrite.All
    UserAuthenticationMethod.Read.All
""".split()
GRAPH_ID = "00000003-0000-0000-c000-000000000000"
OTHER_RESOURCES = ("management.azure.com", "vault.azure.net", "outlook.office.com")

JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE_CODE_INTERVAL = 1  # Seconds between polls. Entra asks for 5, which is slow in tests.
DEVICE_CODE_PAGE = "https://www.microsoft.com/link"

ROUTES = (  # The method, the path, and the step of each request that Entra answers.
    ("GET", r"/.*/v2\.0/\.well-known/openid-configuration", "discovery"),
    ("GET", r"/common/discovery/instance", "instance"),
    ("GET", r"/common/userrealm/[^/]+", "realm"),
    ("POST", r"/[^/]+/oauth2/v2\.0/token", "token"),
    ("POST", r"/[^/]+/oauth2/v2\.0/devicecode", "devicecode"),
)


class Entra:
    """The Microsoft Entra ID service. Tests and scenarios change its attributes."""

    def __init__(self, directory):
        self.directory = directory
        self.hosts = [directory.login] + ALIASES[directory.login]
        if WORLDWIDE not in self.hosts:
            # MSAL 1.35 and earlier always send instance discovery requests to this host.
            self.hosts.append(WORLDWIDE)
        self.realm = "Managed"  # "Managed", "Federated", or "Unknown"
        # "13", "2005" for an AD FS without a MEX document, or "" for a service without WS-Trust
        self.ws_trust = "13"
        self.token_lifetime = 3600  # The lifetime of an access token, in seconds.
        self.audience = directory.graph  # The host that accepts the tokens for Graph.
        self.sends_id_token = True
        self._refusals = {}  # The Reason for each grant type that's refused.
        self._refresh_tokens_revoked_at = 0
        self._device_codes = {}  # For each device code, its scope and the number of polls.

    def refuse(self, code, text, error="invalid_grant", grant=ANY_USER):
        """From now on, use this AADSTS code to refuse correct token requests of the grant type."""
        self.refuse_for(Reason(code, text, error, grants=(grant,)))

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
        """Revoke all refresh tokens that exist, as a password change does."""
        self._refresh_tokens_revoked_at = self.directory.now()

    def step_of(self, request):
        """Return the step that the request belongs to, or None."""
        return find_step(ROUTES, request)

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
            body["error_uri"] = "https://{}/error?code={}".format(self.directory.login, reason.code)
        if reason.suberror:
            body["suberror"] = reason.suberror
        return json_answer(body, reason.status)

    def not_implemented(self, request):
        """Return the answer to a request with a path or method that isn't implemented."""
        text = "The local tenant doesn't implement {} https://{}{}. It implements GET for"
        text += " discovery and user realms, and POST for /TENANT/oauth2/v2.0/token and"
        text += " /TENANT/oauth2/v2.0/devicecode."
        text = text.format(request.method, request.host, request.path)
        return self.error(request, Reason(None, text, error="not_implemented", status=501))

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
                "userinfo_endpoint": "https://{}/oidc/userinfo".format(self.directory.graph),
                "issuer": "https://{}/{}/v2.0".format(self.directory.login, issuer_tenant),
                "cloud_instance_name": "microsoftonline.com",
                "msgraph_host": self.directory.graph,
            }
        )

    def on_instance(self, request):
        """Return the names of the sign-in hosts in all clouds."""
        metadata = []
        known_hosts = set()
        for login in CLOUDS:
            hosts = [login] + ALIASES[login]
            cache_name = "login.windows.net" if login == WORLDWIDE else login
            known_hosts.update(hosts)
            metadata.append(
                {"preferred_network": login, "preferred_cache": cache_name, "aliases": hosts}
            )
        try:
            host = urlsplit(request.query.get("authorization_endpoint", "")).hostname
        except ValueError:
            host = None
        if host not in known_hosts:
            return self.error(request, self.reason(50049))
        endpoint = "https://{}/common/v2.0/.well-known/openid-configuration".format(host)
        return json_answer(
            {"tenant_discovery_endpoint": endpoint, "api-version": "1.1", "metadata": metadata}
        )

    def on_realm(self, request):
        """Return who checks the password of a user: Entra or an AD FS."""
        username = unquote(request.path.rpartition("/")[2])
        realm = {
            "ver": "1.0",
            "account_type": self.realm,
            "domain_name": self.directory.domain,
            "cloud_instance_name": "microsoftonline.com",
            "cloud_audience_urn": "urn:federation:MicrosoftOnline",
        }
        if username.rpartition("@")[2].lower() != self.directory.domain.lower():
            return json_answer({"ver": "1.0", "account_type": "Unknown"})
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
            self._raise_refusal(NEW_DEVICE_CODE)
        except Refusal as refusal:
            return self.error(request, refusal.reason)
        device_code = "device-code-" + uuid.uuid4().hex
        user_code = uuid.uuid4().hex[:9].upper()
        self.directory.secrets.add(device_code)
        self._device_codes[device_code] = {"scope": scope, "polls": 0}
        message = "To sign in, use a web browser to open the page {} and enter the code {} to"
        message += " authenticate."
        return json_answer(
            {
                "user_code": user_code,
                "device_code": device_code,
                "verification_uri": DEVICE_CODE_PAGE,
                "expires_in": 900,
                "interval": DEVICE_CODE_INTERVAL,
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
        user_checks = {
            PASSWORD: self._check_password,
            REFRESH_TOKEN: self._check_refresh_token,
            SAML: self._check_assertion,
            DEVICE_CODE: self._check_device_code,
        }
        if grant not in user_checks and grant != CLIENT_CREDENTIALS:
            text = "The local tenant doesn't implement the grant type {}. It implements {}, and {}."
            text = text.format(grant, ", ".join(user_checks), CLIENT_CREDENTIALS)
            raise _not_implemented(text)
        self._check_client_id(form)
        if "client_secret" in form:
            text = "The local tenant doesn't implement client_secret. It implements"
            text += " client_assertion, which is signed with a certificate."
            raise _not_implemented(text)
        if grant == CLIENT_CREDENTIALS:
            self._check_app(request)
            self._raise_refusal(grant)
            return self._app_token()
        if "client_assertion" in form:
            text = "The local tenant implements client_assertion only for the grant type {}."
            raise _not_implemented(text.format(CLIENT_CREDENTIALS))

        scope = self._requested_scope(form)
        resource, permissions = self._read_scope(scope)
        user_checks[grant](request)
        with_mfa = grant == DEVICE_CODE
        if grant == REFRESH_TOKEN:
            with_mfa = self._read_refresh_token(form)["with_mfa"]
        if grant == REFRESH_TOKEN and not with_mfa:
            self._raise_refusal(REFRESH_WITHOUT_MFA)
        self._raise_refusal(grant, ANY_USER)
        self._check_consent(resource, permissions)
        return self._user_tokens(form, scope, with_mfa)

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
        this_cloud = [self.directory.login] + ALIASES[self.directory.login]
        known = request.host in this_cloud and self.directory.has_tenant(tenant)
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

    def _check_refresh_token(self, request):
        claims = self._read_refresh_token(request.form)
        if request.path.split("/")[1].lower() == "consumers":
            raise Refusal(self.reason(70000))  # Only personal accounts can use /consumers.
        if claims["iat"] <= self._refresh_tokens_revoked_at:
            raise Refusal(self.reason(50173))

    def _check_assertion(self, request):
        self._check_common(request)
        try:
            assertion = unb64(self._required(request.form, "assertion")).decode()
        except ValueError:
            assertion = None
        if assertion not in self.directory.assertions:
            raise Refusal(self.reason(50008))

    def _check_device_code(self, request):
        """Raise Refusal at the first poll. At the second one, the user has signed in."""
        device_code = request.form["device_code"]
        sign_in = self._device_codes[device_code]
        sign_in["polls"] += 1
        if sign_in["polls"] == 1:
            raise Refusal(self.reason(70016))
        del self._device_codes[device_code]

    def _check_app(self, request):
        """Raise Refusal unless the app proves its identity and asks for a Graph token."""
        form = request.form
        tenant = request.path.split("/")[1]
        if tenant.lower() in ("organizations", "common", "consumers"):
            raise Refusal(self.reason(50059))
        if not form.get("client_assertion"):
            raise Refusal(self.reason(7000218))
        if self._required(form, "client_assertion_type") != JWT_BEARER:
            text = "The local tenant implements only the client_assertion_type {}."
            raise _not_implemented(text.format(JWT_BEARER))
        endpoint = "https://{}{}".format(request.host, request.path)
        self._check_client_assertion(form["client_assertion"], endpoint)
        scope = self._required(form, "scope")
        if scope.lower() != "https://{}/.default".format(self.directory.graph):
            raise Refusal(self.reason(1002012, scope=scope))

    def _check_client_assertion(self, assertion, endpoint):
        """Raise Refusal unless the JWT is for the endpoint and is signed with the app's key."""
        if self.directory.certificate is None:
            problem = "The app has no certificate. Pass --certificate FILE to local_tenant.py"
            raise Refusal(self.reason(700027, problem=problem))
        certificate = x509.load_pem_x509_certificate(self.directory.certificate)
        thumbprints = {
            "x5t": b64(certificate.fingerprint(hashes.SHA1())),
            "x5t#S256": b64(certificate.fingerprint(hashes.SHA256())),
        }
        try:
            header = jwt.get_unverified_header(assertion)
        except jwt.PyJWTError as error:
            raise Refusal(self.reason(50027, problem=error)) from None
        sent_names = [name for name in thumbprints if name in header]
        matching = [n for n in sent_names if str(header[n]).rstrip("=") == thumbprints[n]]
        if not sent_names or matching != sent_names:
            raise Refusal(self.reason(700027, problem="The key was not found"))
        try:
            jwt.decode(
                assertion,
                certificate.public_key(),
                algorithms=["PS256", "RS256"],
                audience=endpoint,
                issuer=self.directory.client_id,
                options={"require": ["exp", "aud", "iss"]},
            )
        except jwt.InvalidSignatureError as error:
            raise Refusal(self.reason(700027, problem=error)) from None
        except jwt.PyJWTError as error:
            raise Refusal(self.reason(50027, problem=error)) from None

    # Scopes

    def _requested_scope(self, form):
        """Return the scope of the tokens that the form asks for.

        Raises Refusal if the scope, the device code, or the refresh token is missing or invalid.
        """
        if form["grant_type"] == DEVICE_CODE:
            sign_in = self._device_codes.get(self._required(form, "device_code"))
            if sign_in is None:
                reason = self.reason(70000)
                raise Refusal(reason._replace(error="bad_verification_code", suberror=""))
            return sign_in["scope"]
        if form["grant_type"] == REFRESH_TOKEN and not form.get("scope"):
            return self._read_refresh_token(form)["scope"]
        return self._required(form, "scope")

    def _read_refresh_token(self, form):
        """Return the claims of the refresh token in the form. Raises Refusal if it's invalid."""
        claims = self.directory.read("rt", self._required(form, "refresh_token"))
        if not claims:
            raise Refusal(self.reason(70000))
        return claims

    def _required(self, form, name):
        """Return a field of the form. Raises Refusal if it's missing or empty."""
        if not form.get(name):
            raise Refusal(self.reason(900144, name=name))
        return form[name]

    def _read_scope(self, scope):
        """Return the host of the resource and the permissions that the scope asks for.

        The permissions have Entra's spelling. Raises Refusal if the scope is invalid.
        """
        names = [name for name in scope.split() if name.lower() not in OIDC_SCOPES]
        if not names:
            text = "The local tenant doesn't implement a scope without permissions."
            raise _not_implemented(text)
        resources = set()
        permissions = []
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9._:/-]+", name):
                raise Refusal(self.reason(70011, scope=name))
            resource, _, permission = name.rpartition("/")
            resource = self._resource_host(resource)
            resources.add(resource)
            permissions += self._permissions(resource, permission)
        if len(resources) > 1:
            raise Refusal(self.reason(28000, scope=scope))
        return resources.pop(), permissions

    def _resource_host(self, resource):
        """Return the host of a resource, which is a URL or "". Raises Refusal if it's unknown."""
        host = urlsplit(resource).hostname
        if resource.lower() in ("", GRAPH_ID) or host == self.directory.graph:
            return self.directory.graph
        if host not in OTHER_RESOURCES:
            raise Refusal(self.reason(500011, resource=resource))
        return host

    def _permissions(self, resource, name):
        """Return the permissions that a name stands for. Raises Refusal if it's unknown."""
        if resource == self.directory.graph:
            known = list(PERMISSIONS) + PERMISSIONS_WITHOUT_CONSENT
            default = list(PERMISSIONS)
            resource_id = GRAPH_ID
        else:
            known = default = ["user_impersonation"]
            resource_id = resource
        if name.lower() == ".default":
            return default
        for permission in known:
            if permission.lower() == name.lower():
                return [permission]
        raise Refusal(self.reason(650053, scope=name, resource=resource_id))

    def _check_consent(self, resource, permissions):
        if resource != self.directory.graph:
            return
        if not set(permissions) <= set(PERMISSIONS):
            raise Refusal(self.reason(65001))

    # Token responses

    def _user_tokens(self, form, scope, with_mfa):
        """Return a token response for the user who signs in."""
        resource, permissions = self._read_scope(scope)
        oidc_scopes = scope.lower().split()
        audience = resource
        prefix = "https://{}/".format(resource)
        if resource == self.directory.graph:
            audience = self.audience
            prefix = ""
        granted = [prefix + permission for permission in permissions]
        granted += ["profile", "openid", "email"]
        access_token = self._access_token(audience, scp=permissions)
        response = {
            "token_type": "Bearer",
            "scope": " ".join(granted),
            "expires_in": self.token_lifetime,
            "ext_expires_in": self.token_lifetime,
            "access_token": access_token,
        }
        if "offline_access" in oidc_scopes:
            response["refresh_token"] = self.directory.issue("rt", scope=scope, with_mfa=with_mfa)
        if self.sends_id_token and "openid" in oidc_scopes:
            response["id_token"] = self._id_token()
        if self.sends_id_token and form.get("client_info") == "1":
            user_id = self.directory.person(0)["id"]
            response["client_info"] = b64({"uid": user_id, "utid": TENANT_ID})
        return response

    def _app_token(self):
        """Return a token response for the app itself."""
        return {
            "token_type": "Bearer",
            "expires_in": self.token_lifetime,
            "ext_expires_in": self.token_lifetime,
            "access_token": self._access_token(self.audience, roles=["User.Read.All"]),
        }

    def _access_token(self, audience, **permissions):
        expires = time.time() + self.token_lifetime
        return self.directory.issue("at", aud=audience, exp=expires, **permissions)

    def _id_token(self):
        now = int(time.time())
        user = self.directory.person(0)
        claims = {
            "aud": self.directory.client_id,
            "iss": "https://{}/{}/v2.0".format(self.directory.login, TENANT_ID),
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "name": user["displayName"],
            "preferred_username": user["userPrincipalName"],
            "oid": user["id"],
            "tid": TENANT_ID,
            "ver": "2.0",
        }
        id_token = ".".join([b64({"typ": "JWT", "alg": "none"}), b64(claims), b64(b"signature")])
        self.directory.secrets.add(id_token)
        return id_token


def _not_implemented(text):
    # MSAL hides the text of every answer with a status of 500 or higher, so the status isn't 501.
    return Refusal(Reason(None, text, error="not_implemented"))
