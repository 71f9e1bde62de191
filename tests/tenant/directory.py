"""The directory of the tenant: its users and its app. The services share it.

It also makes the tokens. A token contains everything that a service needs to know about it, so a
saved sign-in works in the next local tenant too. A token that wasn't made for the same app and user
isn't accepted.
"""

import base64
import datetime
import hmac
import json
import uuid

TENANT_ID = "00000000-0000-0000-0000-00000000beef"
ADFS = "sts.example.com"
CLOUDS = {  # Each cloud's sign-in host and Microsoft Graph host.
    "login.microsoftonline.com": "graph.microsoft.com",
    "login.microsoftonline.us": "graph.microsoft.us",
    "login.partner.microsoftonline.cn": "microsoftgraph.chinacloudapi.cn",
}
PLACEHOLDERS = {  # They're repeated here because users might edit parameters.json.
    "client_id": "your_client_id",
    "username": "your_username@your_tenant.com",
    "password": "your_password",
}
GUEST_DOMAIN = "partner.example"
# Given name, family name, job title, department, and usage location.
PEOPLE = [
    ("Zoë", "Brontë", "Nurse", "Pediatrics", "GB"),
    ("Adebayo", "Okonkwo", "Site Manager", "Facilities", "NG"),
    ("Łukasz", "Żak", "Accountant", "Finance", "PL"),
    ("美咲", "田中", "Engineer", "Engineering", "JP"),
    ("Maria", "Silva", None, None, None),
]
DISABLED = 2  # The index in PEOPLE of a person who has left: Łukasz.
GUEST = 4  # The index in PEOPLE of a person from another organization: Maria.


class Directory:
    """The directory of the tenant that a parameters file describes.

    It knows one app and one password, which belongs to the first user. If "password" is None, any
    password is right. "secrets" contains everything that a program must never print.
    """

    def __init__(self, config):
        host, _, path = config["authority"].partition("://")[2].lower().partition("/")
        self.login = host if host in CLOUDS else "login.microsoftonline.com"
        self.graph = CLOUDS[self.login]
        self.client_id = config["client_id"]
        self.certificate = None  # The contents of the app's certificate file, if it has one.
        self.username = config["username"]
        self.password = config["password"]
        self.account_name = self.username  # Another name if "username" is an alternate login ID.
        self.domain = self.username.rpartition("@")[2]
        tenant = path.partition("/")[0] or TENANT_ID
        self.tenants = {"organizations", "common", "consumers", TENANT_ID, tenant}
        self.tenants.add(self.domain.lower())
        self.user_count = len(PEOPLE)
        self.secrets = {self.password} - {None}
        self.assertions = set()  # The SAML assertions from the AD FS, in base64url.

    def accepts(self, password):
        """Return whether the password is right. Even if any is right, the placeholder is not."""
        if self.password is None:
            return password not in ("", PLACEHOLDERS["password"])
        return password == self.password

    def person(self, number):
        """Return all properties of a user as a dict. User 0 is the one who signs in."""
        index = number % len(PEOPLE)
        given_name, surname, job_title, department, location = PEOPLE[index]
        display_name = "{} {}".format(given_name, surname)
        if number >= len(PEOPLE):
            display_name += " {}".format(number)
        is_guest = index == GUEST
        name = "user{}".format(number)
        mail = principal_name = "{}@{}".format(name, self.domain)
        if number == 0:
            mail = principal_name = self.account_name
        if is_guest:
            mail = "{}@{}".format(name, GUEST_DOMAIN)
            principal_name = "{}_{}#EXT#@{}".format(name, GUEST_DOMAIN, self.domain)
        created = datetime.date(2019, 1, 7) + datetime.timedelta(days=number % 2000)
        return {
            "businessPhones": ["+44 20 7946 {:04d}".format(number % 10000)],
            "displayName": display_name,
            "givenName": given_name,
            "jobTitle": job_title,
            "mail": mail,
            "mobilePhone": None,
            "officeLocation": "Room {}".format(number + 1),
            "preferredLanguage": None,
            "surname": surname,
            "userPrincipalName": principal_name,
            "id": "00000000-0000-0000-0000-{:012d}".format(number + 1),
            "department": department,
            "accountEnabled": index != DISABLED,
            "userType": "Guest" if is_guest else "Member",
            "createdDateTime": "{}T08:00:00Z".format(created),
            "onPremisesSamAccountName": None if is_guest else name,
            "usageLocation": location,
            "employeeId": None if is_guest else "{:06d}".format(number + 1),
            "companyName": "Partner" if is_guest else "Example",
        }

    def issue(self, kind, **claims):
        """Return a new token of the kind ("at" or "rt") with the claims."""
        contents = "{}-{}".format(kind, b64(dict(claims, jti=uuid.uuid4().hex)))
        token = contents + "." + self._sign(contents)
        self.secrets.add(token)
        return token

    def read(self, kind, token):
        """Return the claims of a token that issue() made, or None if it isn't one of this kind."""
        contents, _, signature = token.rpartition(".")
        actual_kind, _, claims = contents.partition("-")
        if actual_kind != kind or signature != self._sign(contents):
            return None
        return json.loads(unb64(claims))

    def _sign(self, text):
        """Return a signature that depends on the text, the app, and the user."""
        key = "{} {}".format(self.client_id, self.username.lower())
        return hmac.new(key.encode(), text.encode(), "sha256").hexdigest()


def b64(data):
    """Encode bytes in base64url without padding. Anything else is converted to JSON first."""
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text):
    """Decode base64url without padding, and return the bytes. Raises ValueError if it's invalid."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
