"""Microsoft Graph, at graph.microsoft.com: the users page by page, and what it says to refuse."""

import time
import uuid
from urllib.parse import urlencode

from .directory import read_token
from .proxy import json_answer

BASIC = {"displayName", "givenName", "id", "mail", "surname", "userPrincipalName"}


class Graph:
    """The service; its attributes are what a scenario or a test changes."""

    def __init__(self, directory):
        self.directory = directory
        self.hosts = [directory.graph]
        self.uses = None  # How many requests it takes one token for; None is any number.
        self._used = {}

    def step_of(self, path):
        """Return which step of a run a request for the path is."""
        return "graph"

    def error(self, status, code, message, **headers):
        """Return an error as Graph words it."""
        inner = {
            "date": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()),
            "request-id": str(uuid.uuid4()),
            "client-request-id": str(uuid.uuid4()),
        }
        error = {"code": code, "message": message, "innerError": inner}
        return json_answer({"error": error}, status, **headers)

    def on_graph(self, request):
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        claims = read_token("at", token) if kind == "Bearer" else None
        self._used[token] = self._used.get(token, 0) + 1
        refusal = None
        if not token:
            refusal = "Access token is empty."
        elif not claims:
            refusal = "CompactToken parsing failed."
        elif claims["aud"] != self.directory.graph:
            refusal = "Access token validation failure. Invalid audience."
        elif time.time() >= claims["exp"] or self._used[token] > (self.uses or float("inf")):
            refusal = "Lifetime validation failed, the token is expired."
        if refusal:
            return self.error(401, "InvalidAuthenticationToken", refusal)
        if request.path == "/v1.0/me":
            whole = "User.Read" in claims["scp"] or "User.Read.All" in claims["scp"]
            context = self.context + "/$entity"
            return json_answer(dict({"@odata.context": context}, **self.shown(0, whole)))
        if request.path != "/v1.0/users":
            text = "Resource not found for the segment '{}'.".format(request.path.split("/")[-1])
            return self.error(400, "BadRequest", text)
        if not {"User.ReadBasic.All", "User.Read.All"} & set(claims["scp"]):
            text = "Insufficient privileges to complete the operation."
            return self.error(403, "Authorization_RequestDenied", text)
        top, skip = request.query.get("$top", "100"), request.query.get("$skiptoken", "0")
        if not (top.isdigit() and 1 <= int(top) <= 999 and skip.isdigit()):
            text = "Invalid page size specified: '{}'. Must be between 1 and 999 inclusive."
            return self.error(400, "Request_UnsupportedQuery", text.format(top))
        return json_answer(self.page(request.query, "User.Read.All" in claims["scp"]))

    @property
    def context(self):
        """What the answer is, in OData's words."""
        return "https://{}/v1.0/$metadata#users".format(self.directory.graph)

    def page(self, query=(), whole=False):
        """Return the page that $top, $skiptoken and $select ask for, linked to the next one."""
        query = dict(query)
        top, first = int(query.get("$top", 100)), int(query.get("$skiptoken", 0))
        people = [self.shown(n, whole) for n in range(first, min(first + top, self.directory.size))]
        if "$select" in query:
            chosen = query["$select"].split(",")
            people = [{k: v for k, v in person.items() if k in chosen} for person in people]
        page = {"@odata.context": self.context}
        if first + top < self.directory.size:
            more = urlencode(dict(query, **{"$skiptoken": first + top}), safe="$,")
            page["@odata.nextLink"] = "https://{}/v1.0/users?{}".format(self.directory.graph, more)
        return dict(page, value=people)

    def shown(self, n, whole):
        """Return what Graph shows of the n-th user: the whole, or the basic profile alone."""
        person = self.directory.person(n)
        if whole:
            return person
        nothing = {"businessPhones": []}
        return {k: v if k in BASIC else nothing.get(k) for k, v in person.items()}
