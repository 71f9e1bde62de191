# /// script
# requires-python = ">=3.9"
# dependencies = ["msal>=1.27,<2", "requests>=2.27,<3", "trustme>=1.1"]
# ///
"""A Microsoft 365 tenant on 127.0.0.1, to see the sample work, and fail, without a real one.

    python tests/local_tenant.py                           run the sample against it
    python tests/local_tenant.py --scenario wrong-password rehearse a failure
    python tests/local_tenant.py COMMAND...                run anything else against it

It is an HTTP proxy that ends TLS itself and answers for login.microsoftonline.com,
graph.microsoft.com and an ADFS. HTTPS_PROXY and REQUESTS_CA_BUNDLE lead there, so what runs
makes its real requests to the real host names. Nothing leaves this machine.
"""

import argparse
import base64
import html
import http.server
import json
import os
import re
import socket
import socketserver
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import namedtuple
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import trustme

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "username_password_sample.py"
PARAMETERS = ROOT / "parameters.json"

LOGIN = "login.microsoftonline.com"
GRAPH = "graph.microsoft.com"
ADFS = "sts.example.com"
TENANT_ID = "00000000-0000-0000-0000-00000000beef"
OBJECT_ID = "00000000-0000-0000-0000-000000000001"
GRAPH_SCOPES = {"User.Read", "User.ReadBasic.All", "User.Read.All"}
OIDC_SCOPES = {"openid", "profile", "offline_access"}

PEOPLE = [
    ("Zoë", "Brontë", "Nurse"),
    ("Adebayo", "Okonkwo", "Site Manager"),
    ("Łukasz", "Żak", "Accountant"),
    ("美咲", "田中", "Engineer"),
    ("Maria", "Silva", None),
]

Request = namedtuple("Request", "step method host path query headers body")
Request.form = property(lambda self: dict(parse_qsl(self.body.decode())))

Answer = namedtuple("Answer", "status body headers fault", defaults=(200, b"", {}, None))
SILENCE = Answer(fault="silence")  # Says nothing, and keeps the connection open.
HANG_UP = Answer(fault="hang up")  # Closes the connection without an answer.


def cut_off(answer):
    """Return the answer, to be broken off in the middle of its body."""
    return answer._replace(fault="cut off")


def garbled(answer):
    """Return the answer, with what is no TLS in the middle of its body."""
    return answer._replace(fault="garbled")


def b64(data):
    """Return data as base64url without padding, as tokens have it."""
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class LocalTenant:
    """The tenant as a context manager; change its attributes, or one answer of any step.

    The steps are discovery, instance, realm, mex, wstrust, token and graph. ``replace`` gives
    one of them another answer; ``requests`` has what was received and ``connections`` the hosts
    that were connected to.
    """

    def __init__(self):
        config = json.loads(PARAMETERS.read_text(encoding="utf-8"))
        self.client_id = config["client_id"]
        self.username = self.account_name = config["username"]
        self.password = config["password"]
        self.domain = self.username.partition("@")[2]
        self.tenants = {"organizations", "common", "consumers", TENANT_ID, self.domain}
        self.realm = "Managed"  # or Federated, or Unknown
        self.ws_trust = "13"  # or 2005, which has no MEX
        self.users = len(PEOPLE)
        self.token_life = 3600  # Seconds, as Entra says and Graph holds to.
        self.uses = None  # How many requests Graph takes one token for.
        self.sends_id_token = True
        self.trusted = True  # Whether what runs against it knows the certificate authority.
        self.delay = 0  # Seconds before each answer.
        self.silent_hosts = set()  # Hosts to which the proxy leads nowhere, and does not say so.
        self.refusal = None  # What Entra says to right credentials.
        self.secrets = {self.password}  # All that no output may show.
        self.requests, self.connections = [], []
        self._answers, self._bearers = {}, {}
        self._refresh_tokens, self._assertions = set(), set()
        self._contexts = {}
        self.closing = threading.Event()

    # How a test or a scenario changes it.

    def replace(self, step, *answers, then_happy=False):
        """Let a step give these answers in turn, the last for ever or, then_happy, once."""
        self._answers[step] = list(answers), then_happy

    def refuse(self, code, text, error="invalid_grant", status=400, **more):
        """Let Entra refuse the right credentials with this AADSTS code."""
        self.refusal = dict(more, code=code, text=text, error=error, status=status)

    def revoke(self):
        """Let Entra forget all refresh tokens, as after a changed password."""
        self._refresh_tokens.clear()

    def steps(self):
        """Return the steps of the requests received, in order."""
        return [request.step for request in self.requests]

    def grants(self):
        """Return the grant types of the token requests received, in order."""
        return [r.form["grant_type"] for r in self.requests if r.step == "token"]

    def environment(self):
        """Return the environment in which a command finds this tenant."""
        proxy_names = {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "curl_ca_bundle"}
        env = {k: v for k, v in os.environ.items() if k.lower() not in proxy_names}
        proxy = "http://127.0.0.1:{}".format(self._server.server_address[1])
        return dict(env, HTTPS_PROXY=proxy, HTTP_PROXY=proxy, REQUESTS_CA_BUNDLE=self._bundle)

    # The server.

    def __enter__(self):
        self._ca = trustme.CA()
        known = self._ca if self.trusted else trustme.CA()
        self._folder = tempfile.TemporaryDirectory()
        self._bundle = os.path.join(self._folder.name, "ca.pem")
        known.cert_pem.write_to_path(self._bundle)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.tenant = self
        # The default poll interval would make each shutdown wait for half a second.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._folder.cleanup()

    def context(self, host):
        """Return the TLS context with which the tenant is the host."""
        if host not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._ca.issue_cert(host).configure_cert(context)
            self._contexts[host] = context
        return self._contexts[host]

    def answer(self, request):
        """Record the request and return the answer to it."""
        self.requests.append(request)
        self.closing.wait(self.delay)
        answers, then_happy = self._answers.get(request.step, ([], True))
        if answers:
            answer = answers.pop(0) if then_happy or len(answers) > 1 else answers[0]
            return answer(request) if callable(answer) else answer
        return getattr(self, "on_" + request.step)(request)

    # What each step says.

    @staticmethod
    def json(body, status=200, **headers):
        """Return the body as a JSON answer."""
        headers.setdefault("Content-Type", "application/json; charset=utf-8")
        return Answer(status, json.dumps(body, ensure_ascii=False).encode(), headers)

    def entra_error(self, request, code, text, error="invalid_grant", status=400, **more):
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
            "error_uri": "https://{}/error?code={}".format(LOGIN, code),
        }
        return self.json(dict(body, **more), status)

    def graph_error(self, request, status, code, message, **headers):
        """Return an error as Graph words it."""
        inner = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
            "request-id": str(uuid.uuid4()),
            "client-request-id": str(uuid.uuid4()),
        }
        error = {"code": code, "message": message, "innerError": inner}
        return self.json({"error": error}, status, **headers)

    def on_unknown(self, request):
        return Answer(404, b"<html><body>Not Found</body></html>", {"Content-Type": "text/html"})

    def on_discovery(self, request):
        tenant = request.path.split("/")[1]
        if tenant not in self.tenants:
            text = "Tenant '{}' not found. Check to make sure you have the correct tenant ID."
            return self.entra_error(request, 90002, text.format(tenant), "invalid_tenant")
        base = "https://{}/{}".format(LOGIN, tenant)
        return self.json(
            {
                "token_endpoint": base + "/oauth2/v2.0/token",
                "authorization_endpoint": base + "/oauth2/v2.0/authorize",
                "device_authorization_endpoint": base + "/oauth2/v2.0/devicecode",
                "jwks_uri": base + "/discovery/v2.0/keys",
                "userinfo_endpoint": "https://{}/oidc/userinfo".format(GRAPH),
                "issuer": "https://{}/{{tenantid}}/v2.0".format(LOGIN),
                "cloud_instance_name": "microsoftonline.com",
                "msgraph_host": GRAPH,
            }
        )

    def on_instance(self, request):
        asked = urlsplit(request.query.get("authorization_endpoint", ""))
        aliases = [LOGIN, "login.windows.net", "login.microsoft.com", "sts.windows.net"]
        if asked.hostname not in aliases:
            text = "Unknown or invalid instance."
            return self.entra_error(request, 50049, text, "invalid_instance")
        metadata = {"preferred_network": LOGIN, "preferred_cache": aliases[1], "aliases": aliases}
        endpoint = "https://{}/common/.well-known/openid-configuration".format(LOGIN)
        return self.json(
            {
                "tenant_discovery_endpoint": endpoint,
                "api-version": "1.1",
                "metadata": [metadata],
            }
        )

    def on_realm(self, request):
        realm = {
            "ver": "1.0",
            "account_type": self.realm,
            "domain_name": self.domain,
            "cloud_instance_name": "microsoftonline.com",
            "cloud_audience_urn": "urn:federation:MicrosoftOnline",
        }
        if self.realm == "Federated":
            realm["federation_protocol"] = "WSTrust"
            realm["federation_active_auth_url"] = (
                "https://{}/adfs/services/trust/2005/usernamemixed".format(ADFS)
            )
            if self.ws_trust == "13":
                realm["federation_metadata_url"] = "https://{}/adfs/services/trust/mex".format(ADFS)
        return self.json(realm)

    def on_mex(self, request):
        return Answer(200, MEX.encode(), {"Content-Type": "application/soap+xml; charset=utf-8"})

    def on_wstrust(self, request):
        xml = request.body.decode()
        said = [
            html.unescape(re.search("<wsse:{0}>(.*?)</wsse:{0}>".format(name), xml, re.S).group(1))
            for name in ("Username", "Password")
        ]
        if said != [self.username, self.password]:
            return Answer(500, SOAP_FAULT.encode(), {"Content-Type": "application/soap+xml"})
        secret = "assertion-" + uuid.uuid4().hex
        self.secrets.add(secret)
        assertion = "<saml:Assertion xmlns:saml='urn:oasis:names:tc:SAML:1.0:assertion'>"
        assertion += secret + "</saml:Assertion>"
        self._assertions.add(assertion)
        self.secrets.add(b64(assertion.encode()))
        body = RSTR.format(assertion=assertion).encode()
        return Answer(200, body, {"Content-Type": "application/soap+xml; charset=utf-8"})

    def on_token(self, request):
        form = request.form
        tenant, grant = request.path.split("/")[1], form.get("grant_type")
        scope = set(form.get("scope", "").split())
        if form.get("client_id") != self.client_id:
            text = "Application with identifier '{}' was not found in the directory."
            return self.entra_error(
                request, 700016, text.format(form.get("client_id")), "unauthorized_client"
            )
        if not scope & GRAPH_SCOPES or scope - GRAPH_SCOPES - OIDC_SCOPES:
            text = "The provided value for the input parameter 'scope' is not valid."
            return self.entra_error(request, 70011, text, "invalid_scope")
        if grant == "password":
            if tenant in ("common", "consumers"):
                text = "The grant type is not supported over the /common or /consumers endpoints."
                return self.entra_error(request, 9001023, text, "invalid_request")
            if form.get("username", "").lower() != self.username.lower():
                text = "The user account {} does not exist in the {} directory."
                text = text.format(form.get("username"), self.domain)
                return self.entra_error(request, 50034, text)
            if form.get("password") != self.password:
                text = "Error validating credentials due to invalid username or password."
                return self.entra_error(request, 50126, text)
        elif grant == "refresh_token":
            if form.get("refresh_token") not in self._refresh_tokens:
                text = "The provided grant has expired due to it being revoked."
                return self.entra_error(request, 50173, text, suberror="bad_token")
        elif grant == "urn:ietf:params:oauth:grant-type:saml1_1-bearer":
            raw = form.get("assertion", "")
            assertion = base64.urlsafe_b64decode(raw + "=" * (-len(raw) % 4)).decode()
            if assertion not in self._assertions:
                return self.entra_error(request, 50008, "SAML token is invalid.")
        else:
            text = "The app requested an unsupported grant type '{}'."
            return self.entra_error(request, 70003, text.format(grant), "unsupported_grant_type")
        if self.refusal:
            return self.entra_error(request, **self.refusal)
        return self.json(self.grant(form["scope"], scope & GRAPH_SCOPES))

    def grant(self, said_scope, scope):
        """Return a token response, and remember what Graph and Entra will have to know of it."""
        access_token, refresh_token = ("{}-{}".format(k, uuid.uuid4().hex) for k in ("at", "rt"))
        self._bearers[access_token] = [time.monotonic() + self.token_life, self.uses, scope]
        self._refresh_tokens.add(refresh_token)
        now = int(time.time())
        claims = {
            "aud": self.client_id,
            "iss": "https://{}/{}/v2.0".format(LOGIN, TENANT_ID),
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            "name": " ".join(PEOPLE[0][:2]),
            "preferred_username": self.account_name,
            "oid": OBJECT_ID,
            "tid": TENANT_ID,
            "ver": "2.0",
        }
        id_token = ".".join([b64({"typ": "JWT", "alg": "none"}), b64(claims), b64(b"signature")])
        self.secrets.update([access_token, refresh_token, id_token])
        response = {
            "token_type": "Bearer",
            "scope": said_scope,
            "expires_in": self.token_life,
            "ext_expires_in": self.token_life,
            "access_token": access_token,
            "refresh_token": refresh_token,
        }
        if self.sends_id_token:
            response["id_token"] = id_token
            response["client_info"] = b64({"uid": OBJECT_ID, "utid": TENANT_ID})
        return response

    def on_graph(self, request):
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        expires, uses, scope = self._bearers.get(token, (0, None, ()))
        if kind != "Bearer" or time.monotonic() >= expires or uses == 0:
            text = (
                "Lifetime validation failed, the token is expired."
                if expires
                else ("Access token is empty." if not token else "CompactToken parsing failed.")
            )
            return self.graph_error(request, 401, "InvalidAuthenticationToken", text)
        if uses:
            self._bearers[token][1] -= 1
        if request.path == "/v1.0/me":
            context = "https://{}/v1.0/$metadata#users/$entity".format(GRAPH)
            return self.json(dict({"@odata.context": context}, **self.person(0)))
        if request.path != "/v1.0/users":
            text = "Resource not found for the segment '{}'.".format(request.path.split("/")[-1])
            return self.graph_error(request, 400, "BadRequest", text)
        if not set(scope) & {"User.ReadBasic.All", "User.Read.All"}:
            text = "Insufficient privileges to complete the operation."
            return self.graph_error(request, 403, "Authorization_RequestDenied", text)
        return self.json(self.page(request.query))

    def page(self, query):
        """Return one page of the users, with a link to the next while there is one."""
        top, first = int(query.get("$top", 100)), int(query.get("$skiptoken", 0))
        select = query.get("$select", "").split(",") if "$select" in query else None
        people = [self.person(n) for n in range(first, min(first + top, self.users))]
        if select:
            people = [{k: v for k, v in p.items() if k in select} for p in people]
        page = {"@odata.context": "https://{}/v1.0/$metadata#users".format(GRAPH)}
        if first + top < self.users:
            more = dict(query, **{"$skiptoken": first + top})
            page["@odata.nextLink"] = "https://{}/v1.0/users?{}".format(
                GRAPH, urlencode(more, safe="$,")
            )
        return dict(page, value=people)

    def person(self, n):
        """Return the n-th user as Graph shows it to User.ReadBasic.All."""
        given, family, job = PEOPLE[n % len(PEOPLE)]
        name = "{} {}".format(given, family) + (" {}".format(n) if n >= len(PEOPLE) else "")
        address = "user{}@{}".format(n, self.domain)
        return {
            "businessPhones": [],
            "displayName": name,
            "givenName": given,
            "jobTitle": job,
            "mail": address,
            "mobilePhone": None,
            "officeLocation": None,
            "preferredLanguage": None,
            "surname": family,
            "userPrincipalName": address,
            "id": "00000000-0000-0000-0000-{:012d}".format(n + 1),
        }


def step_of(host, path):
    """Return which step of a run a request belongs to."""
    if host == GRAPH:
        return "graph"
    if host == ADFS:
        return "mex" if path.endswith("/mex") else "wstrust"
    if host == LOGIN:
        for mark, step in [
            ("/.well-known/openid-configuration", "discovery"),
            ("/discovery/instance", "instance"),
            ("/userrealm/", "realm"),
            ("/oauth2/v2.0/token", "token"),
        ]:
            if mark in path:
                return step
    return "unknown"


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Say nothing: clients that break off are what the tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host = None

    def do_CONNECT(self):
        self.host = self.path.rpartition(":")[0]
        tenant = self.server.tenant
        tenant.connections.append(self.host)
        if self.host in tenant.silent_hosts:
            tenant.closing.wait()
            return
        self.send_response(200)
        self.end_headers()
        self.connection = tenant.context(self.host).wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb")
        # Before Python 3.12, http.client's CONNECT arrives as HTTP/1.0.
        self.close_connection = False

    def do_request(self):
        tenant, url = self.server.tenant, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(
            step=step_of(self.host, url.path),
            method=self.command,
            host=self.host or url.hostname,
            path=url.path,
            query=dict(parse_qsl(url.query, keep_blank_values=True)),
            headers=self.headers,
            body=body,
        )
        answer = tenant.answer(request)
        if answer.fault == "silence":
            tenant.closing.wait()
        if answer.fault in ("silence", "hang up"):
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        half = len(answer.body) // 2 if answer.fault else len(answer.body)
        self.wfile.write(answer.body[:half])
        self.wfile.flush()
        if answer.fault == "garbled":
            os.write(self.connection.fileno(), b"This is no TLS record.")
        self.close_connection = self.close_connection or bool(answer.fault)

    do_GET = do_POST = do_request

    def finish(self):
        super().finish()
        # An end of its own: the server only knows the socket under the TLS connection.
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()

    def log_message(self, *args):
        pass


MEX = """\
<?xml version="1.0" encoding="utf-8"?>
<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/"
    xmlns:wsp="http://schemas.xmlsoap.org/ws/2004/09/policy"
    xmlns:wsa10="http://www.w3.org/2005/08/addressing"
    xmlns:soap12="http://schemas.xmlsoap.org/wsdl/soap12/"
    xmlns:sp="http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702"
    xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd">
  <wsp:Policy wsu:Id="by_password">
    <wsp:ExactlyOne><wsp:All>
      <sp:TransportBinding/>
      <sp:SignedEncryptedSupportingTokens><wsp:Policy>
        <sp:UsernameToken><wsp:Policy><sp:WssUsernameToken10/></wsp:Policy></sp:UsernameToken>
      </wsp:Policy></sp:SignedEncryptedSupportingTokens>
    </wsp:All></wsp:ExactlyOne>
  </wsp:Policy>
  <wsdl:binding name="ByPassword13">
    <wsp:PolicyReference URI="#by_password"/>
    <soap12:binding transport="http://schemas.xmlsoap.org/soap/http"/>
    <wsdl:operation name="Issue">
      <soap12:operation
          soapAction="http://docs.oasis-open.org/ws-sx/ws-trust/200512/RST/Issue"/>
    </wsdl:operation>
  </wsdl:binding>
  <wsdl:service name="SecurityTokenService">
    <wsdl:port name="ByPassword13" binding="ByPassword13">
      <wsa10:EndpointReference>
        <wsa10:Address>https://{adfs}/adfs/services/trust/13/usernamemixed</wsa10:Address>
      </wsa10:EndpointReference>
    </wsdl:port>
  </wsdl:service>
</wsdl:definitions>
""".format(adfs=ADFS)

RSTR = """\
<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"
    xmlns:t="http://docs.oasis-open.org/ws-sx/ws-trust/200512"><s:Body>
  <t:RequestSecurityTokenResponse>
    <t:RequestedSecurityToken>{assertion}</t:RequestedSecurityToken>
    <t:TokenType>urn:oasis:names:tc:SAML:1.0:assertion</t:TokenType>
  </t:RequestSecurityTokenResponse>
</s:Body></s:Envelope>
"""

SOAP_FAULT = """\
<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault>
  <s:Code>
    <s:Value>s:Sender</s:Value>
    <s:Subcode><s:Value>a:FailedAuthentication</s:Value></s:Subcode>
  </s:Code>
  <s:Reason><s:Text xml:lang="en-US">ID3242: The security token could not be authenticated \
or authorized.</s:Text></s:Reason>
</s:Fault></s:Body></s:Envelope>
"""

HTML = Answer(200, b"<html><body>Sign in to the Wi-Fi</body></html>", {"Content-Type": "text/html"})

SCENARIOS = {}


def scenario(change):
    """Register a function that changes the tenant, under its name."""
    SCENARIOS[change.__name__.replace("_", "-")] = change
    return change


@scenario
def wrong_password(tenant):
    """Entra knows another password."""
    tenant.password = "another one"


@scenario
def unknown_user(tenant):
    """Entra does not know the user."""
    tenant.username = "somebody_else@" + tenant.domain


@scenario
def unknown_app(tenant):
    """Entra does not know the client_id."""
    tenant.client_id = "another_client_id"


@scenario
def not_public(tenant):
    """The app does not allow public client flows."""
    text = "The request body must contain the following parameter: 'client_assertion' or"
    text += " 'client_secret'."
    tenant.refuse(7000218, text, "invalid_client", 401)


@scenario
def common_authority(tenant):
    """The authority is /common, where there is no password grant."""
    text = "The grant type is not supported over the /common or /consumers endpoints."
    tenant.refuse(9001023, text, "invalid_request")


@scenario
def no_consent(tenant):
    """Nobody has consented to the delegated permission."""
    text = "The user or administrator has not consented to use the application with ID '{}'."
    tenant.refuse(65001, text.format(tenant.client_id), suberror="consent_required")


@scenario
def mfa_required(tenant):
    """The account must use multi-factor authentication."""
    text = "Due to a configuration change made by your administrator, you must use multi-factor"
    text += " authentication to access '{}'.".format(GRAPH)
    tenant.refuse(50076, text, suberror="basic_action")


@scenario
def conditional_access(tenant):
    """A Conditional Access policy blocks the sign-in."""
    text = "Access has been blocked by Conditional Access policies."
    tenant.refuse(53003, text, suberror="message_only")


@scenario
def password_expired(tenant):
    """The password is right, and has expired."""
    tenant.refuse(50055, "The password is expired.", suberror="user_password_expired")


@scenario
def account_locked(tenant):
    """Too many wrong passwords have locked the account."""
    tenant.refuse(50053, "The account is locked, you've tried to sign in too many times.")


@scenario
def unknown_tenant(tenant):
    """There is no tenant of the authority's name."""
    tenant.tenants.clear()


@scenario
def federated(tenant):
    """The account's home is an ADFS, and it all works."""
    tenant.realm = "Federated"


@scenario
def federated_wrong_password(tenant):
    """The account's home is an ADFS, which knows another password."""
    tenant.realm, tenant.password = "Federated", "another one"


@scenario
def personal_account(tenant):
    """The account is a personal one: its realm has no WS-Trust endpoint."""
    tenant.realm = "Federated"
    empty = '<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/"/>'
    tenant.replace("mex", Answer(200, empty.encode(), {"Content-Type": "text/xml"}))


@scenario
def alternate_login(tenant):
    """The username is an alternate login ID, the account has another name, and it all works."""
    tenant.account_name = "zoe.bronte@" + tenant.domain


@scenario
def forbidden(tenant):
    """The token is good, but not for the users."""
    text = "Insufficient privileges to complete the operation."
    answer = tenant.graph_error(None, 403, "Authorization_RequestDenied", text)
    tenant.replace("graph", answer)


@scenario
def token_refused(tenant):
    """Graph does not take the token."""
    tenant.uses = 0


@scenario
def service_down(tenant):
    """Entra is down."""
    tenant.replace("discovery", Answer(503, b"<html><body>Service Unavailable</body></html>"))


@scenario
def not_json(tenant):
    """A web page comes in place of Graph's answer."""
    tenant.replace("graph", HTML)


@scenario
def redirected(tenant):
    """The call is redirected to another place."""
    there = {"Location": "https://{}/elsewhere".format(ADFS)}
    tenant.replace("graph", Answer(302, b"", there))


@scenario
def untrusted_certificate(tenant):
    """A proxy shows certificates of an authority that is not known here."""
    tenant.trusted = False


@scenario
def endless_pages(tenant):
    """A page's link leads back to the page."""
    page = tenant.page({})
    page["@odata.nextLink"] = "https://{}/v1.0/users?$skiptoken=again".format(GRAPH)
    tenant.replace("graph", tenant.json(page))


@scenario
def throttled(tenant):
    """Graph asks twice to wait for two seconds, and it all works."""
    text = "Too many requests."
    busy = tenant.graph_error(None, 429, "TooManyRequests", text, Retry_After="2")
    tenant.replace("graph", busy, busy, then_happy=True)


@scenario
def many_users(tenant):
    """The tenant has 1,234 users, on 13 pages."""
    tenant.users = 1234


@scenario
def token_expires(tenant):
    """Graph takes a token for one request, then it has to be renewed; all users come."""
    tenant.users, tenant.uses, tenant.token_life = 500, 1, 60


def main(argv=None):
    """Run a command against a local tenant and return its exit status."""
    parser = argparse.ArgumentParser(
        description="Run the sample, or a COMMAND, against a Microsoft 365 tenant on 127.0.0.1."
    )
    parser.add_argument("--scenario", choices=SCENARIOS, metavar="NAME", help="what to rehearse")
    parser.add_argument("--users", type=int, metavar="N", help="how many users the tenant has")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    args = parser.parse_args(argv)
    if args.list:
        for name, change in SCENARIOS.items():
            print("{:26}{}".format(name, change.__doc__))
        return 0
    tenant = LocalTenant()
    if args.scenario:
        SCENARIOS[args.scenario](tenant)
    if args.users is not None:
        tenant.users = args.users
    command = args.command or [sys.executable, str(SAMPLE), str(PARAMETERS)]
    with tenant:
        try:
            return subprocess.call(command, env=tenant.environment())
        except OSError as error:
            print("{}: {}".format(command[0], error.strerror), file=sys.stderr)
            return 127
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
