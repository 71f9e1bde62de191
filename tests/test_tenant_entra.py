"""The local tenant's Entra: what it issues, and what it refuses."""

import msal
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from local_tenant import DEFAULT_AUTHORITY
from tenant import LocalTenant
from tenant.scenarios import SCENARIOS
from tenant_client import (
    GRAPH_URL,
    LOGIN_URL,
    OWN,
    TOKEN_URL,
    ask,
    get,
    new_session,
    sign_in,
)

INSTANCE = "https://login.microsoftonline.com/common/discovery/instance"
CONSUMERS = TOKEN_URL.replace("contoso.example", "consumers")
SAML = "urn:ietf:params:oauth:grant-type:saml1_1-bearer"


REFUSED = {  # The request, and the AADSTS code of the answer.
    "no password": (sign_in(password=""), 900144),
    "JSON": (["POST", TOKEN_URL, sign_in()[2], {"Content-Type": "application/json"}], 900144),
    "assertion": (sign_in(grant_type=SAML, assertion="?"), 50008),
    "tenant": (sign_in(url=TOKEN_URL.replace("contoso", "fabrikam")), 90002),
    "host": (get(INSTANCE + "?authorization_endpoint=https://login.example.com/"), 50049),
    "resource": (sign_in("https://graph.example/User.Read"), 500011),
}


@pytest.mark.parametrize("request_, code", REFUSED.values(), ids=REFUSED)
def test_entra_refuses_what_the_real_service_refuses(request_, code):
    status, answer = ask(request_)
    assert (status, answer["error_codes"]) == (400, [code])
    assert answer["error_description"].startswith("AADSTS{}: ".format(code))


@pytest.mark.parametrize("ending", ["/", "/v2.0"])
def test_msal_shows_what_is_wrong_with_the_authority(ending):
    authority = LOGIN_URL + ending
    with LocalTenant(OWN) as tenant:
        with pytest.raises(ValueError) as raised:
            session = new_session(tenant)
            msal.PublicClientApplication("x", authority=authority, http_client=session)
    assert "'{}' is wrong".format(authority) in str(raised.value.__context__)


def refresh(session, refresh_token, url=TOKEN_URL):
    """Redeem the refresh token, and return the AADSTS codes of the answer."""
    form = {"client_id": OWN["client_id"], "grant_type": "refresh_token"}
    answer = session.post(url, dict(form, refresh_token=refresh_token)).json()
    return answer.get("error_codes", [])


@pytest.mark.parametrize(
    "scenario, password_codes, refresh_codes",
    [
        ("wrong-password", [50126], []),
        ("sign-in-ended", [], [70043]),
        ("mfa-required", [50076], [50076]),
        ("account-locked", [50053], [50053]),
    ],
)
def test_scenario_refuses_the_sign_ins_that_entra_would(scenario, password_codes, refresh_codes):
    _, url, form, _ = sign_in(GRAPH_URL + "/.default")
    with LocalTenant(OWN) as tenant:
        token = new_session(tenant).post(url, form).json()["refresh_token"]
    with LocalTenant(OWN) as tenant:  # The sign-in is also valid in the next tenant.
        session = new_session(tenant)
        assert refresh(session, token[:-1]) == [70000]
        assert refresh(session, token, url=CONSUMERS) == [70000]
        assert refresh(session, token) == []
        SCENARIOS[scenario](tenant)
        assert session.post(url, form).json().get("error_codes", []) == password_codes
        assert refresh(session, token) == refresh_codes


# App-only


def new_certificate():
    """Return a new private key in PEM and its certificate."""
    certificate = trustme.CA().issue_cert("app.example", key_type=trustme.KeyType.RSA)
    pem = certificate.cert_chain_pems[0].bytes()
    return certificate.private_key_pem.bytes(), x509.load_pem_x509_certificate(pem)


@pytest.mark.filterwarnings("ignore:Using /common or /organizations")
def test_app_signs_in_only_with_its_own_certificate_and_never_as_a_user():
    (key, certificate), (other_key, other) = new_certificate(), new_certificate()

    def get_token(key=key, certificate=certificate, authority=LOGIN_URL, scope="/.default"):
        thumbprint = certificate.fingerprint(hashes.SHA1()).hex()
        app = msal.ConfidentialClientApplication(
            OWN["client_id"],
            authority=authority,
            client_credential={"private_key": key, "thumbprint": thumbprint},
            http_client=new_session(tenant),
        )
        return app.acquire_token_for_client([GRAPH_URL + scope])

    with LocalTenant(OWN) as tenant:
        # Windows exports this format.
        tenant.directory.certificate = certificate.public_bytes(serialization.Encoding.DER)
        session = new_session(tenant)
        session.headers["Authorization"] = "Bearer " + get_token()["access_token"]
        assert session.get(GRAPH_URL + "/v1.0/me").status_code == 400
        assert get_token(key=other_key)["error_codes"] == [700027]
        assert get_token(certificate=other)["error_codes"] == [700027]
        assert get_token(authority=DEFAULT_AUTHORITY)["error_codes"] == [50059]
        assert get_token(scope="/User.Read.All")["error_codes"] == [1002012]
        SCENARIOS["app-disabled"](tenant)
        assert get_token()["error_codes"] == [7000112]
