"""The directory: what the services share. It knows who is in the tenant, and makes the tokens.

Entra issues the tokens and Graph reads them. All that has to be known of a token stands in it, so
a sign-in that was kept in a file serves in the next tenant too, as it does with the real one.
"""

import base64
import json
import time
import uuid
from urllib.parse import urlsplit

TENANT_ID = "00000000-0000-0000-0000-00000000beef"
ADFS = "sts.example.com"
CLOUDS = {  # The sign-in host and Graph of each.
    "login.microsoftonline.com": "graph.microsoft.com",
    "login.microsoftonline.us": "graph.microsoft.us",
    "login.partner.microsoftonline.cn": "microsoftgraph.chinacloudapi.cn",
}
PEOPLE = [
    ("Zoë", "Brontë", "Nurse"),
    ("Adebayo", "Okonkwo", "Site Manager"),
    ("Łukasz", "Żak", "Accountant"),
    ("美咲", "田中", "Engineer"),
    ("Maria", "Silva", None),
]


class Directory:
    """The tenant of a parameters file: its app, its first user with the password, and the others.

    ``secrets`` has all that no output may show.
    """

    def __init__(self, config):
        authority = urlsplit(config["authority"])
        self.login = authority.hostname if authority.hostname in CLOUDS else next(iter(CLOUDS))
        self.graph = CLOUDS[self.login]
        self.client_id = config["client_id"]
        self.username = self.account_name = config["username"]
        self.password = config["password"]
        self.domain = self.username.rpartition("@")[2]
        self.tenants = {"organizations", "common", "consumers", TENANT_ID, self.domain}
        self.tenants.add((authority.path.split("/") + [""])[1])
        self.size = len(PEOPLE)
        self.secrets = {self.password}
        self.assertions = set()  # What the ADFS has said of users, and Entra believes.

    def person(self, n):
        """Return all that is known of the n-th user; the one who signs in is the first."""
        given, family, job = PEOPLE[n % len(PEOPLE)]
        address = "user{}@{}".format(n, self.domain) if n else self.account_name
        return {
            "businessPhones": ["+44 20 7946 {:04d}".format(n % 10000)],
            "displayName": " ".join([given, family] + [str(n)] * (n >= len(PEOPLE))),
            "givenName": given,
            "jobTitle": job,
            "mail": address,
            "mobilePhone": None,
            "officeLocation": "Room {}".format(n + 1),
            "preferredLanguage": None,
            "surname": family,
            "userPrincipalName": address,
            "id": "00000000-0000-0000-0000-{:012d}".format(n + 1),
        }

    def issue(self, kind, **claims):
        """Return a new token of the kind that carries the claims and when it was issued."""
        claims.update(iat=time.time(), jti=uuid.uuid4().hex)
        token = "{}-{}".format(kind, b64(claims))
        self.secrets.add(token)
        return token


def b64(data):
    """Return data as base64url without padding, as tokens have it."""
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    """Return the bytes that b64() has made the text of."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read_token(kind, token):
    """Return the claims in a token of the kind, or None."""
    try:
        said_kind, _, claims = token.partition("-")
        return json.loads(unb64(claims)) if said_kind == kind else None
    except ValueError:
        return None
