"""Microsoft Entra ID, at login.microsoftonline.com: discovery, user realms, and tokens."""

import re
import time
import uuid
from urllib.parse import unquote, urlsplit

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from .directory import ADFS, CLOUDS, TENANT_ID, b64, read_token, unb64
from .messages import json_answer

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

DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
SAML = "urn:ietf:params:oauth:grant-type:saml1_1-bearer"
CLIENT_CREDENTIALS = "client_credentials"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
DEVICE_CODE_INTERVAL = 1  # Seconds between polls. Entra asks for 5, which is slow in tests.
DEVICE_CODE_PAGE = "https://www.microsoft.com/link"

ROUTES = (  # The path, the method, and the step of each request that Entra answers.
    (r"/[^/]+/v2\.0/\.well-known/openid-configuration", "GET", "discovery"),
    (r"/common/discovery/instance", "GET", "instance"),
    (r"/common/userrealm/[^/]+", "GET", "realm"),
    (r"/[^/]+/oauth2/v2\.0/token", "POST", "token"),
    (r"/[^/]+/oauth2/v2\.0/devicecode", "POST", "devicecode"),
)


class Refusal(Exception):
    """Entra's reason for refusing a request. The arguments are those of Entra.error()."""

    def __init__(self, code, text, error="invalid_grant", status=400, **more):
        super().__init__(text)
        self.arguments = dict(more, code=code, text=text, error=error, status=status)


class Entra:
    """The Microsoft Entra ID service. Tests and scenarios change its attributes."""

    def __init__(self, directory):
        self.directory = directory
        self.hosts = [directory.login] + ALIASES[directory.login]
        if WORLDWIDE not in self.hosts:
            # MSAL 1.35 and earlier always send instance discovery requests to this host.
            self.hosts.append(WORLDWIDE)
        self.realm = "Managed"  # "Managed", "Federated", or "Unknown"
        self.ws_trust = "13"  # "13", or "2005" for an AD FS without a MEX document
        self.token_lifetime = 3600  # The lifetime of an access token, in seconds.
        self.audience = directory.graph  # The host that accepts the tokens for Graph.
        self.sends_id_token = True
        self._refusals = {}  # The arguments of error() for each grant type.
        self._refresh_tokens_revoked_at = 0
        self._device_codes = {}  # For each device code, its scope and the number of polls.

    def refuse(self, code, text, error="invalid_grant", status=400, grant="", **more):
        """From now on, use this AADSTS code to refuse correct token requests.

        Without a grant type, this applies to every grant type that signs a user in.
        """
        self._refusals[grant] = dict(more, code=code, text=text, error=error, status=status)

    def revoke_refresh_tokens(self):
        """Revoke all refresh tokens that exist, as a password change does."""
        self._refresh_tokens_revoked_at = self.directory.now()

    def step_of(self, request):
        """Return the step that the request belongs to, or None."""
        for path, method, step in ROUTES:
            if re.fullmatch(path, request.path, re.IGNORECASE) and request.method == method:
                return step
        return None

    def error(self, request, code, text, error="invalid_grant", status=400, **more):
        """Return an error in Entra's format. If the code is None, the text has no AADSTS code."""
        trace_id = str(uuid.uuid4())
        timestamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime())
        correlation_id = request.headers.get("client-request-id", str(uuid.uuid4()))
        description = text
        if code is not None:
            description = "AADSTS{}: {} Trace ID: {} Correlation ID: {} Timestamp: {}".format(
                code, text, trace_id, correlation_id, timestamp
            )
        body = {
            "error": error,
            "error_description": description,
            "error_codes": [] if code is None else [code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
        }
        if code is not None:
            body["error_uri"] = "https://{}/error?code={}".format(self.directory.login, code)
        body.update(more)
        return json_answer(body, status)

    def not_implemented(self, request):
        """Return the answer to a request with a path or method that isn't implemented."""
        text = "The local tenant doesn't implement {} https://{}{}. It implements GET for"
        text += " discovery and user realms, and POST for /TENANT/oauth2/v2.0/token and"
        text += " /TENANT/oauth2/v2.0/devicecode."
        text = text.format(request.method, request.host, request.path)
        return self.error(request, None, text, "not_implemented", 501)

    # Discovery

    def on_discovery(self, request):
        """Return the endpoints of the tenant."""
        try:
            tenant = self._check_tenant(request, "invalid_tenant")
        except Refusal as refusal:
            return self.error(request, **refusal.arguments)
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
            text = "Unknown or invalid instance."
            return self.error(request, 50049, text, "invalid_instance")
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
        if self.realm == "Federated":
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
            return self.error(request, **refusal.arguments)
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
            return self.error(request, **refusal.arguments)

    def _issue_tokens(self, request):
        """Return the token response as a dict. Raises Refusal if Entra refuses the request."""
        form = request.form
        self._check_tenant(request)
        grant = _required(form, "grant_type")
        user_checks = {
            "password": self._check_password,
            "refresh_token": self._check_refresh_token,
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
        self._check_consent(resource, permissions)
        self._raise_refusal(grant, "")
        return self._user_tokens(form, scope)

    def _raise_refusal(self, *grants):
        """Raise the Refusal that refuse() has set for one of the grant types, if any."""
        for grant in grants:
            if grant in self._refusals:
                raise Refusal(**self._refusals[grant])

    def _check_tenant(self, request, error="invalid_request"):
        """Return the tenant in the request's path. Raises Refusal if there's no such tenant."""
        tenant = request.path.split("/")[1]
        this_cloud = [self.directory.login] + ALIASES[self.directory.login]
        if request.host not in this_cloud or not self.directory.has_tenant(tenant):
            text = "Tenant '{}' not found. Check to make sure you have the correct tenant ID and"
            text += " are signing into the correct cloud."
            raise Refusal(90002, text.format(tenant), error)
        return tenant

    def _check_client_id(self, form):
        client_id = _required(form, "client_id")
        if client_id != self.directory.client_id:
            text = "Application with identifier '{}' was not found in the directory '{}'."
            text = text.format(client_id, self.directory.domain)
            raise Refusal(700016, text, "unauthorized_client")

    def _check_authority(self, request):
        """Raise Refusal if the authority can't check passwords."""
        if request.path.split("/")[1].lower() in ("common", "consumers"):
            text = "The grant type is not supported over the /common or /consumers endpoints."
            text += " Please use the /organizations or tenant-specific endpoint."
            raise Refusal(9001023, text, "invalid_request")

    def _check_username(self, username):
        if username.lower() != self.directory.username.lower():
            text = "The user account {} does not exist in the {} directory. To sign into this"
            text += " application, the account must be added to the directory."
            raise Refusal(50034, text.format(username, self.directory.domain))

    def _check_password(self, request):
        self._check_authority(request)
        username = _required(request.form, "username")
        password = _required(request.form, "password")
        self._check_username(username)
        if password != self.directory.password:
            text = "Error validating credentials due to invalid username or password."
            raise Refusal(50126, text)

    def _check_refresh_token(self, request):
        claims = _read_refresh_token(request.form)
        self._check_username(claims["username"])
        if claims["client_id"] != self.directory.client_id:
            text = "The refresh token was issued to another application."
            raise Refusal(70000, text, suberror="bad_token")
        if claims["iat"] <= self._refresh_tokens_revoked_at:
            text = "The provided grant has expired due to it being revoked, a fresh auth token is"
            text += " needed. The user might have changed or reset their password."
            raise Refusal(50173, text, suberror="bad_token")

    def _check_assertion(self, request):
        self._check_authority(request)
        try:
            assertion = unb64(_required(request.form, "assertion")).decode()
        except ValueError:
            assertion = None
        if assertion not in self.directory.assertions:
            raise Refusal(50008, "The SAML token is invalid.")

    def _check_device_code(self, request):
        """Raise Refusal at the first poll. At the second one, the user has signed in."""
        device_code = request.form["device_code"]
        sign_in = self._device_codes[device_code]
        sign_in["polls"] += 1
        if sign_in["polls"] == 1:
            text = "OAuth 2.0 device flow error. Authorization is pending. Continue polling."
            raise Refusal(70016, text, "authorization_pending")
        del self._device_codes[device_code]

    def _check_app(self, request):
        """Raise Refusal unless the app proves its identity and asks for a Graph token."""
        form = request.form
        tenant = request.path.split("/")[1]
        if tenant.lower() in ("organizations", "common", "consumers"):
            text = "No tenant-identifying information found in either the request or implied by"
            text += " any provided credentials."
            raise Refusal(50059, text, "invalid_request")
        if not form.get("client_assertion"):
            text = "The request body must contain the following parameter: 'client_assertion' or"
            text += " 'client_secret'."
            raise Refusal(7000218, text, "invalid_client", 401)
        if _required(form, "client_assertion_type") != JWT_BEARER:
            text = "The local tenant implements only the client_assertion_type {}."
            raise _not_implemented(text.format(JWT_BEARER))
        endpoint = "https://{}{}".format(request.host, request.path)
        self._check_client_assertion(form["client_assertion"], endpoint)
        scope = _required(form, "scope")
        if scope.lower() != "https://{}/.default".format(self.directory.graph):
            text = "The provided value for scope {} is not valid. Client credential flows must"
            text += " have a scope value with /.default suffixed to the resource identifier"
            text += " (application ID URI)."
            raise Refusal(1002012, text.format(scope), "invalid_scope")

    def _check_client_assertion(self, assertion, endpoint):
        """Raise Refusal unless the JWT is for the endpoint and is signed with the app's key."""
        if self.directory.certificate is None:
            text = "The app has no certificate. Pass --certificate FILE to local_tenant.py."
            raise _invalid_client(700027, text)
        certificate = x509.load_pem_x509_certificate(self.directory.certificate)
        thumbprints = {
            "x5t": b64(certificate.fingerprint(hashes.SHA1())),
            "x5t#S256": b64(certificate.fingerprint(hashes.SHA256())),
        }
        try:
            header = jwt.get_unverified_header(assertion)
        except jwt.PyJWTError:
            text = "Client assertion is not a valid JWT."
            raise _invalid_client(50027, text) from None
        sent_names = [name for name in thumbprints if name in header]
        matching = [n for n in sent_names if str(header[n]).rstrip("=") == thumbprints[n]]
        if not sent_names or matching != sent_names:
            text = "The certificate with identifier used to sign the client assertion is not"
            text += " registered on application. [Reason - The key was not found.]"
            raise _invalid_client(700027, text)
        try:
            claims = jwt.decode(
                assertion,
                certificate.public_key(),
                algorithms=["PS256", "RS256"],
                audience=endpoint,
                options={"require": ["exp", "aud", "iss", "sub"]},
            )
        except jwt.InvalidAudienceError:
            text = "Client assertion audience claim does not match Realm issuer."
            raise _invalid_client(700023, text) from None
        except (jwt.ExpiredSignatureError, jwt.ImmatureSignatureError):
            text = "Client assertion is not within its valid time range."
            raise _invalid_client(700024, text) from None
        except jwt.PyJWTError as error:
            text = "Client assertion failed signature validation. [Reason - {}.]".format(error)
            raise _invalid_client(700027, text) from None
        if [claims["iss"], claims["sub"]] != [self.directory.client_id] * 2:
            text = "Client assertion application identifier doesn't match 'client_id' parameter."
            raise _invalid_client(700021, text)

    # Scopes

    def _requested_scope(self, form):
        """Return the scope of the tokens that the form asks for.

        Raises Refusal if the scope, the device code, or the refresh token is missing or invalid.
        """
        if form["grant_type"] == DEVICE_CODE:
            sign_in = self._device_codes.get(_required(form, "device_code"))
            if sign_in is None:
                text = "The provided device code is invalid, or it was already used."
                raise Refusal(70000, text, "bad_verification_code")
            return sign_in["scope"]
        if form["grant_type"] == "refresh_token" and not form.get("scope"):
            return _read_refresh_token(form)["scope"]
        return _required(form, "scope")

    def _read_scope(self, scope):
        """Return the host of the resource and the permissions that the scope asks for.

        The permissions have Entra's spelling. Raises Refusal if the scope is invalid.
        """
        names = [name for name in scope.split() if name.lower() not in OIDC_SCOPES]
        if not names:
            raise _not_implemented(
                "The local tenant doesn't implement a scope without permissions."
            )
        resources = set()
        permissions = []
        for name in names:
            if not re.fullmatch(r"[A-Za-z0-9._:/-]+", name):
                text = "The provided value for the input parameter 'scope' is not valid. The scope"
                text += " '{}' is not valid."
                raise Refusal(70011, text.format(name), "invalid_scope")
            resource, _, permission = name.rpartition("/")
            resource = self._resource_host(resource)
            resources.add(resource)
            permissions += self._permissions(resource, permission)
        if len(resources) > 1:
            text = "Provided value for the input parameter scope is not valid because it contains"
            text += " more than one resource. Scope {} is not valid."
            raise Refusal(28000, text.format(scope), "invalid_scope")
        return resources.pop(), permissions

    def _resource_host(self, resource):
        """Return the host of a resource, which is a URL or "". Raises Refusal if it's unknown."""
        host = urlsplit(resource).hostname
        if resource.lower() in ("", GRAPH_ID) or host == self.directory.graph:
            return self.directory.graph
        if host not in OTHER_RESOURCES:
            text = "The resource principal named {} was not found in the tenant named {}."
            text = text.format(resource, self.directory.domain)
            raise Refusal(500011, text, "invalid_resource")
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
        text = "The application '{}' asked for scope '{}' that doesn't exist on the resource '{}'."
        text += " Contact the app vendor."
        text = text.format(self.directory.client_id, name, resource_id)
        raise Refusal(650053, text, "invalid_client")

    def _check_consent(self, resource, permissions):
        if resource != self.directory.graph:
            return
        if not set(permissions) <= set(PERMISSIONS):
            text = "The user or administrator has not consented to use the application with ID"
            text += " '{}'. Send an interactive authorization request for this user and resource."
            text = text.format(self.directory.client_id)
            raise Refusal(65001, text, suberror="consent_required")

    # Token responses

    def _user_tokens(self, form, scope):
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
            response["refresh_token"] = self.directory.issue(
                "rt",
                username=self.directory.username.lower(),
                client_id=self.directory.client_id,
                scope=scope,
            )
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


def _required(form, name):
    """Return a field of the form. Raises Refusal if it's missing or empty."""
    if not form.get(name):
        text = "The request body must contain the following parameter: '{}'.".format(name)
        raise Refusal(900144, text, "invalid_request")
    return form[name]


def _read_refresh_token(form):
    """Return the claims of the refresh token in the form. Raises Refusal if it's invalid."""
    claims = read_token("rt", _required(form, "refresh_token"))
    if not claims:
        text = "Provided grant is invalid or malformed."
        raise Refusal(70000, text, suberror="bad_token")
    return claims


def _not_implemented(text):
    # MSAL hides the text of every answer with a status of 500 or higher, so the status isn't 501.
    return Refusal(None, text, "not_implemented")


def _invalid_client(code, text):
    return Refusal(code, text, "invalid_client", 401)
