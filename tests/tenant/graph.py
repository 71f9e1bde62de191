"""Microsoft Graph, at graph.microsoft.com: the users, page by page, and the signed-in user."""

import re
import time
import uuid
from urllib.parse import quote, urlencode

from .messages import json_answer

PAGE_SIZE = 100
MAX_PAGE_SIZE = 999
USERS_OPTIONS = ("$top", "$skiptoken", "$select", "$filter")
BASIC_PROPERTIES = ("displayName", "givenName", "id", "mail", "surname", "userPrincipalName")
DEFAULT_PROPERTIES = """
    businessPhones displayName givenName jobTitle mail mobilePhone officeLocation preferredLanguage
    surname userPrincipalName id
""".split()  # Graph sends other properties only if $select asks for them.
# What needs the header "ConsistencyLevel: eventual" in $filter.
ADVANCED_OPERATORS = r"\bendsWith(?=\()|\bne\b|\bnot\b|/\$count"
FILTERS = {  # The clauses of $filter, in lowercase, with the property and the value.
    "usertype eq 'guest'": ("userType", "Guest"),
    "usertype eq 'member'": ("userType", "Member"),
    "accountenabled eq true": ("accountEnabled", True),
    "accountenabled eq false": ("accountEnabled", False),
}


class GraphError(Exception):
    """A reason to refuse a request: the status, the code, and the message."""


class Graph:
    """The Microsoft Graph service. Tests and scenarios change its attributes."""

    routes = [(".*", "graph")]

    def __init__(self, directory):
        self.directory = directory
        self.hosts = [directory.graph]
        self.context = "https://{}/v1.0/$metadata#users".format(directory.graph)
        # For each path that's implemented, the method that answers a GET request. It gets the
        # Request and the claims of the access token.
        self.paths = {"/v1.0/users": self._users, "/v1.0/me": self._me}
        self._revoked_tokens = set()

    def revoke_access_tokens(self):
        """Revoke all access tokens issued so far."""
        self._revoked_tokens = set(self.directory.secrets)

    def error(self, status, code, message, **headers):
        """Return an error in Graph's format.

        In the names of header arguments, write "_" for "-": Retry_After for Retry-After.
        """
        inner_error = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
            "request-id": str(uuid.uuid4()),
            "client-request-id": str(uuid.uuid4()),
        }
        error = {"code": code, "message": message, "innerError": inner_error}
        return json_answer({"error": error}, status, **headers)

    def on_graph(self, request):
        """Return the answer to a request."""
        try:
            claims = self._check_token(request)
            path = request.path.lower().rstrip("/")
            if request.method == "GET" and path in self.paths:
                return json_answer(self.paths[path](request, claims))
            raise self._wrong_path(request)
        except GraphError as error:
            return self.error(*error.args)

    def _wrong_path(self, request):
        """Return the GraphError for a request that isn't implemented."""
        implemented = " and ".join("GET " + path for path in self.paths)
        version, _, rest = request.path.strip("/").partition("/")
        if version.lower() not in ("v1.0", "beta"):
            return GraphError(400, "BadRequest", "Invalid version.")
        segment = rest.partition("/")[0]
        known = [path.split("/")[2] for path in self.paths]
        if version.lower() == "v1.0" and segment.lower() not in known:
            message = "Resource not found for the segment '{}'. The local tenant knows only {}."
            return GraphError(400, "BadRequest", message.format(segment, implemented))
        return _not_implemented("{} {}".format(request.method, request.path), implemented)

    def page(self, query=(), all_properties=False):
        """Return the page of users that the query asks for, as a dict.

        Raises GraphError if the query is invalid or not implemented.
        """
        options = _read_options(query, USERS_OPTIONS)
        size, start = _read_position(options)
        selected = self._read_select(options.get("$select"))
        wanted = _read_filter(options.get("$filter"))

        person = self.directory.person
        numbers = []
        for number in range(self.directory.user_count):
            if all(person(number)[name] == value for name, value in wanted):
                numbers.append(number)
        page = {"@odata.context": self.context}
        if start + size < len(numbers):
            options["$skiptoken"] = start + size
            query_string = urlencode(options, quote_via=quote, safe="$,'")
            link = "https://{}/v1.0/users?{}".format(self.directory.graph, query_string)
            page["@odata.nextLink"] = link
        page["value"] = [
            _user(person(number), selected, all_properties)
            for number in numbers[start : start + size]
        ]
        return page

    def _check_token(self, request):
        """Return the claims of the request's access token. Raises GraphError if it's invalid."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise _invalid_token("Access token is empty.")
        claims = self.directory.read("at", token)
        if not claims:
            raise _invalid_token("CompactToken parsing failed with error code: 80049217")
        if claims["aud"] != self.directory.graph:
            raise _invalid_token("Access token validation failure. Invalid audience.")
        if token in self._revoked_tokens or time.time() >= claims["exp"]:
            raise _invalid_token("Lifetime validation failed, the token is expired.")
        return claims

    def _me(self, request, claims):
        """Return the signed-in user. Raises GraphError if the request is refused."""
        if "roles" in claims:
            message = "/me request is only valid with delegated authentication flow."
            raise GraphError(400, "BadRequest", message)
        options = _read_options(request.query, ("$select",))
        selected = self._read_select(options.get("$select"))
        all_properties = bool({"User.Read", "User.Read.All"} & set(claims["scp"]))
        answer = {"@odata.context": self.context + "/$entity"}
        answer.update(_user(self.directory.person(0), selected, all_properties))
        return answer

    def _users(self, request, claims):
        """Return a page of users. Raises GraphError if the request is refused."""
        _check_consistency(request)
        permissions = set(claims.get("scp", [])) | set(claims.get("roles", []))
        all_properties = "User.Read.All" in permissions
        filters = "$filter" in [name.lower() for name in request.query]
        if not all_properties and (filters or "User.ReadBasic.All" not in permissions):
            message = "Insufficient privileges to complete the operation."
            raise GraphError(403, "Authorization_RequestDenied", message)
        return self.page(request.query, all_properties)

    def _read_select(self, select):
        """Return the properties in $select, or the default ones. Raises GraphError if unknown."""
        if select is None:
            return DEFAULT_PROPERTIES
        known = {name.lower(): name for name in self.directory.person(0)}
        selected = []
        for name in select.split(","):
            name = name.strip()
            if name.lower() == "signinactivity":
                code = "Authentication_RequestFromNonPremiumTenantOrB2CTenant"
                message = "Neither tenant is B2C or tenant doesn't have premium license"
                raise GraphError(403, code, message)
            if name.lower() not in known:
                message = "Parsing OData Select and Expand failed: Could not find a property named"
                message += " '{}' on type 'microsoft.graph.user'. The local tenant knows only {}."
                message = message.format(name, ", ".join(known.values()))
                raise GraphError(400, "BadRequest", message)
            selected.append(known[name.lower()])
        return selected


def _user(person, selected, all_properties):
    """Return the selected properties. Those that the app isn't allowed to read are null."""
    user = {}
    for name in selected:
        user[name] = person[name]
        if not all_properties and name not in BASIC_PROPERTIES:
            user[name] = [] if name == "businessPhones" else None
    return user


def _check_consistency(request):
    """Raise GraphError if the query needs the header "ConsistencyLevel: eventual"."""
    if request.headers.get("ConsistencyLevel", "").lower() == "eventual":
        return
    options = {name.lower(): value for name, value in request.query.items()}
    without_strings = re.sub("'[^']*'", "''", options.get("$filter", ""))
    operator = re.search(ADVANCED_OPERATORS, without_strings, re.IGNORECASE)
    if "$search" in options:
        message = "Request with $search query parameter only works through MSGraph with a special"
        message += " request header: 'ConsistencyLevel: eventual'"
    elif operator:
        message = "Operator '{}' is not supported because the 'ConsistencyLevel:eventual' header is"
        message += " missing. Refer to https://aka.ms/graph-docs/advanced-queries for more"
        message = message.format(operator.group()) + " information"
    else:
        return
    raise GraphError(400, "Request_UnsupportedQuery", message)


def _read_options(query, implemented):
    """Return the options with names in lowercase. Raises GraphError if one isn't implemented."""
    options = {}
    for name, value in dict(query).items():
        if name.lower() not in [option.lower() for option in implemented]:
            raise _not_implemented("the query option " + name, " and ".join(implemented) or "none")
        options[name.lower()] = value
    return options


def _read_position(options):
    """Return the page's size and its first user's number. Raises GraphError if one is invalid."""
    top = str(options.get("$top", PAGE_SIZE))
    if not top.isdecimal() or not 1 <= int(top) <= MAX_PAGE_SIZE:
        message = "Invalid page size specified: '{}'. Must be between 1 and {} inclusive."
        raise GraphError(400, "Request_UnsupportedQuery", message.format(top, MAX_PAGE_SIZE))
    start = str(options.get("$skiptoken", 0))
    if not start.isdecimal():
        message = "Invalid value for the query option $skiptoken: '{}'.".format(start)
        raise GraphError(400, "BadRequest", message)
    return int(top), int(start)


def _read_filter(text):
    """Return the property-value pairs in $filter. Raises GraphError if one isn't implemented."""
    wanted = []
    clauses = [] if text is None else re.split(r" +and +", text.strip())
    for clause in clauses:
        words = " ".join(clause.lower().split())
        if words not in FILTERS:
            implemented = ", ".join(FILTERS) + ", and these joined with and"
            raise _not_implemented("the filter " + clause, implemented)
        wanted.append(FILTERS[words])
    return wanted


def _invalid_token(message):
    return GraphError(401, "InvalidAuthenticationToken", message)


def _not_implemented(what, implemented):
    message = "The local tenant doesn't implement {}. It implements: {}.".format(what, implemented)
    return GraphError(501, "NotImplemented", message)
