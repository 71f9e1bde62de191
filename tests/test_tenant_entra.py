"""The local tenant's Entra: what it issues, and what it refuses."""

import msal
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from helpers import USERS
from local_tenant import DEFAULT_AUTHORITY, read_certificate
from tenant.scenarios import SCENARIOS
from tenant_client import (
    GRAPH_URL,
    LOGIN_URL,
    OWN,
    TOKEN_URL,
    ask,
    get,
    new_session,
    own_tenant,
    post,
    public_app,
    sign_in,
    sign_in_with_device_code,
    sign_in_with_password,
)

LOGIN = "https://login.microsoftonline.com/"
DISCOVERY = "/v2.0/.well-known/openid-configuration"
INSTANCE = LOGIN + "common/discovery/instance?authorization_endpoint="
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
SAML = "urn:ietf:params:oauth:grant-type:saml1_1-bearer"

# Requests


@pytest.mark.parametrize(
    "scope, granted",
    [
        ("user.readbasic.all", "User.ReadBasic.All"),
        (GRAPH_URL + "/User.Read.All", "User.Read.All"),
        ("00000003-0000-0000-c000-000000000000/User.Read", "User.Read"),
        (GRAPH_URL + "/.default", "User.Read User.ReadBasic.All User.Read.All"),
    ],
)
def test_granted_scope_has_entras_spelling(scope, granted):
    status, answer = ask(sign_in(scope))
    assert (status, answer["scope"]) == (200, granted + " profile openid email")


def at(tenant):
    """Return the URL for tokens of this tenant."""
    return LOGIN + tenant + "/oauth2/v2.0/token"


REFUSED = {  # The request, and the AADSTS code of the answer.
    "app": (sign_in(client_id="another"), 700016),
    "user": (sign_in(username="joe@contoso.example"), 50034),
    "password": (sign_in(password="another"), 50126),
    "no password": (sign_in(password=""), 900144),
    "no grant type": (sign_in(grant_type=""), 900144),
    "JSON": (post(TOKEN_URL, sign_in()[2], **{"Content-Type": "application/json"}), 900144),
    "no device code": (sign_in(grant_type=DEVICE_CODE), 900144),
    "assertion": (sign_in(grant_type=SAML, assertion="?"), 50008),
    "tenant": (sign_in(url=at("fabrikam.example")), 90002),
    "tenant in discovery": (get(LOGIN + "fabrikam.example" + DISCOVERY), 90002),
    "/common": (sign_in(url=at("common")), 9001023),
    "host": (get(INSTANCE + "https://login.example.com/"), 50049),
    "permission": (sign_in("User.ReadBasic"), 650053),
    "URL of a permission": (sign_in(GRAPH_URL + "/User.Raed"), 650053),
    "comma": (sign_in("User.Read,User.ReadBasic.All"), 70011),
    "resource": (sign_in("https://graph.example/User.Read"), 500011),
    "two resources": (sign_in("User.Read https://management.azure.com/.default"), 28000),
    "no consent": (sign_in("User.Read Mail.Send"), 65001),
}


@pytest.mark.parametrize("request_, code", REFUSED.values(), ids=REFUSED)
def test_entra_refuses_what_the_real_service_refuses(request_, code):
    status, answer = ask(request_)
    assert (status, answer["error_codes"]) == (400, [code])
    assert answer["error_description"].startswith("AADSTS{}: ".format(code))


@pytest.mark.parametrize("ending", ["/", "/v2.0", "/v2.0/"])
def test_msal_shows_what_is_wrong_with_the_authority(ending):
    with own_tenant() as tenant:
        with pytest.raises(ValueError) as raised:
            public_app(tenant, authority=LOGIN_URL + ending)
    assert "'{}' is wrong".format(LOGIN_URL + ending) in str(raised.value.__context__)


def test_ad_fs_refuses_any_password_other_than_the_tenants():
    with own_tenant("federated") as tenant:
        app = public_app(tenant)
        assert "access_token" in sign_in_with_password(app)
        tenant.directory.password = "another"
        with pytest.raises(RuntimeError):
            sign_in_with_password(app)


def refresh(session, refresh_token, tenant="contoso.example"):
    """Redeem the refresh token, and return the AADSTS codes of the answer."""
    form = {"client_id": OWN["client_id"], "grant_type": "refresh_token"}
    answer = session.post(at(tenant), dict(form, refresh_token=refresh_token)).json()
    return answer.get("error_codes", [])


def test_refresh_token_works_only_in_its_tenant_and_until_it_is_revoked():
    with own_tenant() as tenant:
        session = new_session(tenant)
        _, url, form, _ = sign_in()
        token = session.post(url, form).json()["refresh_token"]
        assert refresh(session, token) == []
        assert refresh(session, token[:-1]) == [70000]
        assert refresh(session, token, tenant="consumers") == [70000]
        tenant.entra.revoke_refresh_tokens()
        assert refresh(session, token) == [50173]


# App-only


def new_certificate():
    """Return a certificate that isn't the app's."""
    return trustme.CA().issue_cert("app.example", key_type=trustme.KeyType.RSA)


def load_pem(certificate):
    """Return the certificate without its key."""
    return x509.load_pem_x509_certificate(certificate.cert_chain_pems[0].bytes())


def credential(certificate, thumbprint_of=None):
    """Return MSAL's credential for the certificate, or with the thumbprint of another one."""
    thumbprint = load_pem(thumbprint_of or certificate).fingerprint(hashes.SHA1()).hex()
    return {"private_key": certificate.private_key_pem.bytes(), "thumbprint": thumbprint}


@pytest.fixture(scope="session")
def certificate():
    """Return the app's certificate."""
    return new_certificate()


@pytest.fixture
def app_tenant(certificate):
    """A running local tenant whose app has the certificate."""
    tenant = own_tenant()
    tenant.directory.certificate = certificate.cert_chain_pems[0].bytes()
    with tenant:
        yield tenant


def app_token(tenant, proof, scope=GRAPH_URL + "/.default", authority=LOGIN_URL):
    """Return MSAL's result for the app itself."""
    session = new_session(tenant)
    app = msal.ConfidentialClientApplication(
        OWN["client_id"], authority=authority, client_credential=proof, http_client=session
    )
    return app.acquire_token_for_client([scope])


def test_app_with_a_certificate_can_read_all_properties_but_cannot_use_me(app_tenant, certificate):
    result = app_token(app_tenant, credential(certificate))
    assert not {"refresh_token", "id_token"} & set(result)
    session = new_session(app_tenant)
    session.headers["Authorization"] = "Bearer " + result["access_token"]
    users = session.get(USERS + "?$select=displayName,department").json()["value"]
    assert users[0]["department"]
    assert session.get(GRAPH_URL + "/v1.0/me").status_code == 400


@pytest.mark.filterwarnings("ignore:Using /common or /organizations")
def test_entra_refuses_a_wrong_app(app_tenant, certificate):
    other, right = new_certificate(), credential(certificate)

    def codes(*args, **more):
        return app_token(app_tenant, *args, **more)["error_codes"]

    assert codes(credential(other, thumbprint_of=certificate)) == [700027]
    assert codes(credential(certificate, thumbprint_of=other)) == [700027]
    assert codes(right, authority=DEFAULT_AUTHORITY) == [50059]
    assert codes(right, scope=GRAPH_URL + "/User.Read.All") == [1002012]


def test_refusal_of_an_app_without_a_certificate_names_the_option(certificate):
    with own_tenant() as tenant:
        result = app_token(tenant, credential(certificate))
    assert result["error_codes"] == [700027]
    assert "--certificate" in result["error_description"]


def test_certificate_file_can_be_pem_or_der(certificate, tmp_path):
    path = tmp_path / "app.cer"
    path.write_bytes(load_pem(certificate).public_bytes(serialization.Encoding.DER))
    pem = read_certificate(str(path))
    assert pem.startswith(b"-----BEGIN CERTIFICATE")
    path.write_bytes(certificate.private_key_pem.bytes() + pem)
    assert read_certificate(str(path)) == pem


# The codes as scenarios

CODES = """
    7000218 65001 650053 70011 50126 50034 50059 50072 50074 50076 50079 50158 53003 53000 53001
    53002 53004 50097 530035 530084 7000112 90023 50105 50020 9001023 700016 50053 50055 50057 50142
    50173 50133 70043 700082 50196 90002
""".split()
SAVED_SIGN_IN = {"50173", "50133", "70043", "700082"}
MFA = {"50072", "50074", "50076", "50079"}
PASSWORD = {"50126", "90023", "9001023"}
APP = {"7000112", "700016", "50196"}


def test_each_code_of_the_table_has_a_scenario():
    named = {name for name in SCENARIOS if name.startswith("AADSTS")}
    assert named == {"AADSTS" + code for code in CODES}
    saved = {"AADSTS" + code for code in SAVED_SIGN_IN}
    assert {name for name in named if SCENARIOS[name].saved_sign_in} == saved


@pytest.mark.parametrize("code", CODES[:-1])  # In the last one, MSAL can't create the app object.
def test_scenario_of_a_code_refuses_what_entra_would_refuse(app_tenant, certificate, code):
    app = public_app(app_tenant)
    saved = sign_in_with_password(app)["refresh_token"]
    session = new_session(app_tenant)
    SCENARIOS["AADSTS" + code](app_tenant)

    def fails(result):
        assert result.get("error_codes", [int(code)]) == [int(code)]
        return "access_token" not in result

    password = sign_in_with_password(app)
    device_code = sign_in_with_device_code(app)
    app_only = app_token(app_tenant, credential(certificate))
    assert fails(password) == (code not in SAVED_SIGN_IN)
    assert fails(device_code) == (code not in SAVED_SIGN_IN | MFA | PASSWORD)
    assert fails(app_only) == (code in APP)
    assert (DEVICE_CODE in app_tenant.grants()) == (code not in APP)  # Its start is refused.
    assert refresh(session, saved) == ([] if code in PASSWORD else [int(code)])
    if "refresh_token" in device_code:
        expected = [int(code)] if code in SAVED_SIGN_IN else []  # A device code includes MFA.
        assert refresh(session, device_code["refresh_token"]) == expected
