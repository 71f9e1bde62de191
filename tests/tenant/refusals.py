"""Why Entra refuses requests: the table of AADSTS codes in refusals.csv.

"text" has Microsoft's words. "refuses" says what the scenario of this code refuses, for example
--scenario AADSTS50072. It's empty if the code isn't a scenario. "scenario" is another name for the
same scenario, and "summary" is what --list prints. To add a code, add a row.
"""

import csv
from pathlib import Path
from typing import NamedTuple

PASSWORD = "password"
REFRESH_TOKEN = "refresh_token"
SAML = "urn:ietf:params:oauth:grant-type:saml1_1-bearer"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
CLIENT_CREDENTIALS = "client_credentials"

# These kinds of requests can also be refused.
ANY_USER = ""  # Every grant type that signs a user in.
REFRESH_WITHOUT_MFA = "refresh_token without MFA"  # The saved sign-in was made without MFA.
TENANT = "tenant"  # Every request that names the tenant.

REFUSES = {  # The grant types for each value of the column "refuses".
    "": (),
    "password": (PASSWORD, SAML),
    "saved sign-in": (REFRESH_TOKEN,),
    "tenant": (TENANT,),
    "user": (ANY_USER,),
    # A device code sign-in works because it includes MFA.
    "user without MFA": (PASSWORD, SAML, REFRESH_WITHOUT_MFA),
    "user and app": (ANY_USER, CLIENT_CREDENTIALS),
}


class Reason(NamedTuple):
    """Why a request is refused. Without a code, the reason is the local tenant's own."""

    code: int
    text: str
    error: str = "invalid_grant"
    status: int = 400
    suberror: str = ""
    grants: tuple = ()
    scenario: str = ""
    summary: str = ""


class Refusal(Exception):
    """A request is refused for this Reason."""

    def __init__(self, reason):
        super().__init__(reason.text)
        self.reason = reason


def read_table(path):
    """Return the Reason for each AADSTS code in the table, with gaps such as {client_id}."""
    reasons = {}
    with open(path, encoding="utf-8", newline="") as table:
        for row in csv.DictReader(table):
            row["code"], row["status"] = int(row["code"]), int(row["status"])
            grants = REFUSES[row.pop("refuses")]
            reasons[row["code"]] = Reason(grants=grants, **row)
    return reasons


REASONS = read_table(Path(__file__).with_name("refusals.csv"))
