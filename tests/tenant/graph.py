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
""".split()
SELECT_PROPERTIES = """
    department accountEnabled userType createdDateTime onPremisesSamAccountName usageLocation
    employeeId companyName
""".split()  # Graph sends these properties only if $select asks for them.
# Properties that exist in Graph but aren't implemented here. Graph doesn't have any others.
OTHER_PROPERTIES = """
    aboutMe activities ageGroup agreementAcceptances appRoleAssignments assignedLicenses
    assignedPlans authentication authorizationInfo birthday calendar calendars city
    cloudRealtimeCommunicationInfo consentProvidedForMinor contacts country createdObjects
    creationType customSecurityAttributes deletedDateTime directReports drive drives
    employeeHireDate employeeLeaveDateTime employeeOrgData employeeType events externalUserState
    externalUserStateChangeDateTime faxNumber hireDate identities imAddresses interests
    isManagementRestricted isResourceAccount lastPasswordChangeDateTime
    legalAgeGroupClassification licenseAssignmentStates licenseDetails mailboxSettings
    mailFolders mailNickname manager memberOf messages mySite onenote
    onPremisesDistinguishedName onPremisesDomainName onPremisesExtensionAttributes
    onPremisesImmutableId onPremisesLastSyncDateTime onPremisesProvisioningErrors
    onPremisesSecurityIdentifier onPremisesSyncEnabled onPremisesUserPrincipalName otherMails
    ownedDevices ownedObjects passwordPolicies passwordProfile pastProjects people photo photos
    planner postalCode preferredDataLocation preferredName presence print provisionedPlans
    proxyAddresses registeredDevices responsibilities schools securityIdentifier
    serviceProvisioningErrors settings showInAddressList
    signInSessionsValidFromDateTime skills sponsors state streetAddress teamwork todo
    transitiveMemberOf
""".split()
# The first segments of Graph's paths after /v1.0/. Graph doesn't have any others.
SEGMENTS = """
    admin agreementAcceptances agreements appCatalogs applicationTemplates applications auditLogs
    authenticationMethodConfigurations authenticationMethodsPolicy branding
    certificateBasedAuthConfiguration chats communications compliance connections contacts
    contracts copilot dataPolicyOperations deviceAppManagement deviceManagement devices directory
    directoryObjects directoryRoleTemplates directoryRoles domainDnsRecords domains drive drives
    education employeeExperience external filterOperators functions groupLifecyclePolicies
    groupSettingTemplates groupSettings groups identity identityGovernance identityProtection
    identityProviders informationProtection invitations localizations me oauth2PermissionGrants
    organization permissionGrants places planner policies print privacy reports roleManagement
    schemaExtensions scopedRoleMemberships search security servicePrincipals shares sites solutions
    storage subscribedSkus subscriptions teams teamsTemplates teamwork tenantRelationships users
    $batch $entity $metadata
""".split()
# What needs the header "ConsistencyLevel: eventual" in $filter.
ADVANCED_OPERATORS = r"\bendsWith(?=\()|\bne\b|\bnot\b|/\$count"
FILTER_CLAUSES = (
    ("userType", r"userType +eq +'(Guest|Member)'"),
    ("accountEnabled", r"accountEnabled +eq +(true|false)"),
)


class GraphError(Exception):
    """A reason to refuse a request."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class Graph:
    """The Microsoft Graph service. Tests and scenarios change its attributes."""

    def __init__(self, directory):
        self.directory = directory
        self.hosts = [directory.graph]
        self.requests_per_token = None  # After this many requests, a token gets a 401.
        self._requests_by_token = {}
        # For each path that's implemented, the method that answers a GET request. It gets the
        # Request and the claims of the access token.
        self.paths = {"/v1.0/users": self._users, "/v1.0/me": self._me}
        self._access_tokens_revoked_at = 0

    def revoke_access_tokens(self):
        """Revoke all access tokens that exist."""
        self._access_tokens_revoked_at = self.directory.now()

    def step_of(self, request):
        """Return the step that the request belongs to. Graph has only one."""
        return "graph"

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
            _check_path(request.path)
            implemented = " and ".join("GET " + path for path in self.paths)
            raise _not_implemented("{} {}".format(request.method, request.path), implemented)
        except GraphError as error:
            return self.error(error.status, error.code, error.message)

    def page(self, query=(), all_properties=False):
        """Return the page of users that the query asks for, as a dict.

        Raises GraphError if the query is invalid or not implemented.
        """
        options = _read_options(query, USERS_OPTIONS)
        size, start = _read_position(options)
        selected = _read_select(options.get("$select"))
        wanted = _read_filter(options.get("$filter"))

        numbers = range(self.directory.user_count)
        if wanted:
            numbers = [number for number in numbers if self._has(number, wanted)]
        users = []
        for number in numbers[start : start + size]:
            users.append(self._user(number, selected, all_properties))
        page = {"@odata.context": self._context(options)}
        if start + size < len(numbers):
            options["$skiptoken"] = start + size
            query_string = urlencode(options, quote_via=quote, safe="$,'")
            link = "https://{}/v1.0/users?{}".format(self.directory.graph, query_string)
            page["@odata.nextLink"] = link
        page["value"] = users
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
        if claims["iat"] <= self._access_tokens_revoked_at:
            message = "Continuous access evaluation resulted in challenge with result:"
            message += " InteractionRequired and code: TokenIssuedBeforeRevocationTimestamp"
            raise _invalid_token(message)
        count = self._requests_by_token.get(token, 0) + 1
        self._requests_by_token[token] = count
        used_up = self.requests_per_token is not None and count > self.requests_per_token
        if used_up or time.time() >= claims["exp"]:
            raise _invalid_token("Lifetime validation failed, the token is expired.")
        return claims

    def _me(self, request, claims):
        """Return the signed-in user. Raises GraphError if the request is refused."""
        if "roles" in claims:
            message = "/me request is only valid with delegated authentication flow."
            raise GraphError(400, "BadRequest", message)
        options = _read_options(request.query, ("$select",))
        selected = _read_select(options.get("$select"))
        all_properties = bool({"User.Read", "User.Read.All"} & set(claims["scp"]))
        answer = {"@odata.context": self._context(options) + "/$entity"}
        answer.update(self._user(0, selected, all_properties))
        return answer

    def _users(self, request, claims):
        """Return a page of users. Raises GraphError if the request is refused."""
        if request.headers.get("ConsistencyLevel", "").lower() != "eventual":
            _check_consistency(request.query)
        permissions = set(claims.get("scp", [])) | set(claims.get("roles", []))
        all_properties = "User.Read.All" in permissions
        page = self.page(request.query, all_properties)
        filters = "$filter" in _read_options(request.query, USERS_OPTIONS)
        may_read = all_properties or ("User.ReadBasic.All" in permissions and not filters)
        if not may_read:
            message = "Insufficient privileges to complete the operation."
            raise GraphError(403, "Authorization_RequestDenied", message)
        return page

    def _context(self, options):
        selected = ""
        if "$select" in options:
            selected = "({})".format(options["$select"])
        return "https://{}/v1.0/$metadata#users{}".format(self.directory.graph, selected)

    def _has(self, number, wanted):
        """Return whether a user has all the requested values."""
        person = self.directory.person(number)
        return all(person[name] == value for name, value in wanted)

    def _user(self, number, selected, all_properties):
        """Return the selected properties of a user.

        Properties that the app isn't allowed to read are null.
        """
        user = {}
        for name, value in self.directory.person(number).items():
            if name not in selected:
                continue
            if not all_properties and name not in BASIC_PROPERTIES:
                value = [] if name == "businessPhones" else None
            user[name] = value
        return user


def _check_path(path):
    """Raise GraphError if Graph doesn't have the path."""
    version, _, rest = path.lower().strip("/").partition("/")
    if version not in ("v1.0", "beta"):
        raise GraphError(400, "BadRequest", "Invalid version.")
    segment = path.strip("/").partition("/")[2].partition("/")[0]
    name = segment.partition("(")[0].lower()  # Without the key, as in users('id').
    if version == "v1.0" and name and name not in [known.lower() for known in SEGMENTS]:
        message = "Resource not found for the segment '{}'.".format(segment)
        raise GraphError(400, "BadRequest", message)


def _check_consistency(query):
    """Raise GraphError if the query needs the header "ConsistencyLevel: eventual"."""
    options = {name.lower(): value for name, value in query.items()}
    message = ""
    if "$search" in options:
        message = "Request with $search query parameter only works through MSGraph with a special"
        message += " request header: 'ConsistencyLevel: eventual'"
    without_strings = re.sub("'[^']*'", "''", options.get("$filter", ""))
    operator = re.search(ADVANCED_OPERATORS, without_strings, re.IGNORECASE)
    if operator:
        message = "Operator '{}' is not supported because the 'ConsistencyLevel:eventual' header is"
        message += (
            " missing. Refer to https://aka.ms/graph-docs/advanced-queries for more information"
        )
        message = message.format(operator.group())
    if message:
        raise GraphError(400, "Request_UnsupportedQuery", message)


def _read_options(query, implemented):
    """Return the query's options as a dict with names in lowercase.

    Raises GraphError if one of them isn't implemented.
    """
    options = {}
    for name, value in dict(query).items():
        if name.lower() not in [option.lower() for option in implemented]:
            raise _not_implemented("the query option " + name, " and ".join(implemented) or "none")
        options[name.lower()] = value
    return options


def _read_position(options):
    """Return the page's size and the number of its first user.

    Raises GraphError if one of them is invalid.
    """
    top = str(options.get("$top", PAGE_SIZE))
    if not top.isdecimal() or not 1 <= int(top) <= MAX_PAGE_SIZE:
        message = "Invalid page size specified: '{}'. Must be between 1 and {} inclusive."
        raise GraphError(400, "Request_UnsupportedQuery", message.format(top, MAX_PAGE_SIZE))
    start = str(options.get("$skiptoken", 0))
    if not start.isdecimal():
        message = "Invalid value for the query option $skiptoken: '{}'.".format(start)
        raise GraphError(400, "BadRequest", message)
    return int(top), int(start)


def _read_select(select):
    """Return the names of the properties in $select, or the default ones.

    Raises GraphError if a property doesn't exist or isn't implemented.
    """
    if select is None:
        return DEFAULT_PROPERTIES
    implemented = {}
    for name in DEFAULT_PROPERTIES + SELECT_PROPERTIES:
        implemented[name.lower()] = name
    not_implemented = [name.lower() for name in OTHER_PROPERTIES]
    selected = []
    for name in select.split(","):
        name = name.strip()
        if name.lower() in implemented:
            selected.append(implemented[name.lower()])
        elif name.lower() == "signinactivity":
            message = "Neither tenant is B2C or tenant doesn't have premium license"
            code = "Authentication_RequestFromNonPremiumTenantOrB2CTenant"
            raise GraphError(403, code, message)
        elif name == "*" or name.lower() in not_implemented:
            raise _not_implemented("the property " + name, ", ".join(implemented.values()))
        else:
            message = "Parsing OData Select and Expand failed: Could not find a property named"
            message += " '{}' on type 'microsoft.graph.user'."
            raise GraphError(400, "BadRequest", message.format(name))
    return selected


def _read_filter(text):
    """Return the property-value pairs that $filter asks for.

    Raises GraphError if a clause isn't implemented.
    """
    wanted = []
    if text is None:
        return wanted
    for clause in re.split(r" +and +", text.strip()):
        wanted.append(_read_clause(clause))
    return wanted


def _read_clause(clause):
    """Return the property and the value in a clause of $filter.

    Raises GraphError if the clause isn't implemented.
    """
    values = {"guest": "Guest", "member": "Member", "true": True, "false": False}
    for name, pattern in FILTER_CLAUSES:
        match = re.fullmatch(pattern, clause, re.IGNORECASE)
        if match:
            return name, values[match.group(1).lower()]
    implemented = "userType eq 'Guest', userType eq 'Member', accountEnabled eq true,"
    implemented += " accountEnabled eq false, and these joined with and"
    raise _not_implemented("the filter " + clause, implemented)


def _invalid_token(message):
    return GraphError(401, "InvalidAuthenticationToken", message)


def _not_implemented(what, implemented):
    message = "The local tenant doesn't implement {}. It implements: {}.".format(what, implemented)
    return GraphError(501, "NotImplemented", message)
