# /// script
# dependencies = ["msal>=1.27,<2", "requests>=2.27,<3"]
# ///
"""Print the users of a Microsoft 365 tenant as JSON, signed in with a username and a password.

Usage: python username_password_sample.py parameters.json, a file with these settings:
  authority    required  https://login.microsoftonline.com/organizations (or /your_tenant.com)
  client_id    required  application (client) ID of an app that allows public client flows
  username     required  user principal name: somebody@your_tenant.com
  scope        required  list of delegated permissions: ["User.ReadBasic.All"]
  endpoint     required  https URL to read, all its pages; for the user alone: .../v1.0/me
  password     optional  asked for at a terminal if it is missing and needed
  token_cache  optional  file, beside parameters.json, that keeps the sign-in for later runs

Microsoft deprecates this sign-in. Accounts stopped by MFA or Conditional Access, guests and
personal accounts cannot use it. The password goes to the authority, or to the account's own ADFS.

stdout gets one JSON document (after "Users from graph: " on a terminal), whole if the exit status
is 0; stderr gets what went wrong, and each step with -v, which can show secrets. The status is 1 if
the sign-in, the call of Graph or the printing failed, 2 if the command line, the parameters or the
token cache cannot be understood, 130 after Ctrl-C. For Python 2.7 (msal 1.27, requests 2.27) stand
here unicode_literals, io.open, type(""), getattr() and EnvironmentError, which is OSError today.
"""

from __future__ import unicode_literals

import argparse
import getpass
import io
import json
import logging
import os
import re
import sys
import tempfile

import msal
import requests
from requests.adapters import HTTPAdapter, Retry

REQUIRED = ("authority", "client_id", "username", "scope", "endpoint")


def main():
    """Print the users that the parameters on the command line lead to; return the exit status."""
    parser = argparse.ArgumentParser(description="Print the users of a Microsoft 365 tenant.")
    parser.add_argument("parameters", metavar="parameters.json", help="file with the settings")
    parser.add_argument("-v", "--verbose", action="store_true", help="log each step to stderr")
    args = parser.parse_args()
    # This script's own messages are CRITICAL, because MSAL logs as ERROR what it also raises.
    logging.basicConfig(level="DEBUG" if args.verbose else "CRITICAL", format="%(message)s")

    path_read = args.parameters  # For the error, the file that is being read.
    try:
        config = load_parameters(path_read)
        path_read = config.get("token_cache", "")
        cache = load_token_cache(path_read)
    except (EnvironmentError, TypeError, ValueError) as error:
        parser.error("{}: {}".format(path_read, error))

    try:
        app = msal.PublicClientApplication(
            config["client_id"], authority=config["authority"], token_cache=cache, timeout=30
        )
        # The cache has a token if an earlier run has kept its sign-in in the file.
        result = acquire_token_from_cache(app, config) or acquire_token_by_password(app, config)
    except EOFError:  # There is no password in the parameters, and none was typed.
        reason = 'no kept sign-in serves, and "password" is missing; run this once at a terminal'
        logging.critical("Could not sign in: %s", reason)
        return 1
    except Exception as error:  # What MSAL raises has no common base class.
        # MSAL quotes an ADFS's answer, assertion and all; an encoding error a password's letter.
        reason = re.sub("(?s)<.*>|codec .*", "<...>", "{}: {}".format(type(error).__name__, error))
        logging.critical("Could not sign in: %s", reason, exc_info=args.verbose)
        return 1
    if "access_token" not in result:
        triple = map(result.get, ("error", "error_description", "correlation_id"))
        logging.critical("%s\n%s\n%s", *triple)
        return 1
    if config.get("token_cache") and cache.has_state_changed:
        save_token_cache(cache, config["token_cache"])

    try:
        answer = get_users(app, config, result)
    except Exception as error:  # requests lets exceptions of urllib3 through.
        logging.critical("Failed to call the Web Api: %s", error, exc_info=args.verbose)
        return 1

    try:
        fd = sys.stdout.fileno()  # If stdout is closed, it is None: an AttributeError.
        with io.open(fd, "w", encoding="utf-8", errors="backslashreplace", closefd=False) as stdout:
            stdout.write("Users from graph: " if stdout.isatty() else "")
            # In pieces: the whole text at once would more than double the memory.
            for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(answer):
                stdout.write("" + piece)  # On Python 2, "" + makes text of bytes.
            stdout.write("\n")
    except (AttributeError, EnvironmentError) as error:
        logging.critical("stdout cannot be written: %s", error)
        return 1
    return 0


def load_parameters(path):
    """Return the settings as a dict; raise EnvironmentError, TypeError or ValueError if unfit."""
    with open(path, "rb") as parameters:  # As bytes, so that json finds out the encoding.
        config = dict(json.load(parameters))  # A number or null, say, is a TypeError.
    problems = []
    for key in REQUIRED + ("password", "token_cache"):
        kind = list if key == "scope" else type("")
        if key in REQUIRED and not config.get(key):
            problems.append('"{}" is missing or empty'.format(key))
        elif not isinstance(config.get(key, kind()), kind):
            problems.append('"{}" has the wrong type (scope is a list, all else text)'.format(key))
        elif key in ("authority", "endpoint") and not config[key].lower().startswith("https://"):
            problems.append('"{}" must be an https URL'.format(key))
    if problems:
        raise ValueError("; ".join(problems))
    if config.get("token_cache"):
        config["token_cache"] = os.path.join(os.path.dirname(path), config["token_cache"])
    return config


def load_token_cache(path):
    """Return MSAL's token cache with what the file at path holds; raise as load_parameters()."""
    cache = msal.SerializableTokenCache()
    if os.path.exists(path):
        with open(path) as cache_file:
            cache.deserialize(cache_file.read())
        tables = json.loads(cache.serialize())  # MSAL takes an empty file for {}.
        if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
            raise ValueError("not a token cache")
    return cache


def save_token_cache(cache, path):
    """Replace the file at path, on POSIX for its owner alone; tell stderr where that fails."""
    new_file = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False) as new_file:
            new_file.write(cache.serialize())
        getattr(os, "replace", os.rename)(new_file.name, path)  # Python 2 has no os.replace.
    except EnvironmentError as error:
        logging.critical("%s: the token cache cannot be written: %s", path, error)
        if new_file:
            os.remove(new_file.name)


def get_users(app, config, result):
    """Return Graph's answer as a dict, all pages in one; raise an exception that says why not."""
    # 429, 503, 504, and silence or a broken connection before the answer begins get three more
    # tries: after the seconds that Retry-After says, or else after 0, 2 and 4.
    retry = Retry(3, backoff_factor=1, status_forcelist=[429, 503, 504], raise_on_status=False)
    session = requests.Session()
    session.mount("https://", HTTPAdapter(max_retries=retry))
    links = [config["endpoint"]]
    answer = get_page(session, links[0], result["access_token"])
    while "@odata.nextLink" in answer:
        link = answer.pop("@odata.nextLink")
        here, there = map(requests.compat.urlsplit, (links[0], link))
        if link in links or (there.scheme, there.hostname) != (here.scheme, here.hostname):
            raise ValueError("the link to the next page leads astray: {}".format(link))
        links.append(link)
        # A long listing outlives its token. MSAL then renews it; if that is refused, the token at
        # hand goes on. The password is not sent again: repeating it can lock the account.
        result = acquire_token_from_cache(app, config) or result
        page = get_page(session, link, result["access_token"])
        if not isinstance(answer.get("value"), list) or not isinstance(page.get("value"), list):
            raise ValueError("a page comes without its list")
        answer["value"].extend(page.pop("value"))
        answer.update(page)
    return answer


def get_page(session, url, access_token):
    """Return the JSON object at the URL as a dict; raise an exception that says why not."""
    headers = {"Authorization": "Bearer " + access_token}
    # An auth= that changes nothing keeps requests from putting a ~/.netrc's password in its place.
    reply = session.get(url, headers=headers, auth=lambda r: r, timeout=30, allow_redirects=False)
    try:
        page = reply.json()
    except ValueError:
        page = None
    if reply.status_code == 200 and isinstance(page, dict):
        return page
    reason = "not a JSON object" if reply.status_code == 200 else reply.reason or reply.status_code
    content = json.dumps(page, indent=2) if page else reply.text[:1024]
    raise ValueError("{}\nContent: {}".format(reason, content))


def acquire_token_from_cache(app, config):
    """Return a dict with "access_token", renewed if need be, or None if there is none to be had."""
    accounts = app.get_accounts(username=config["username"])
    return app.acquire_token_silent(config["scope"], account=accounts[0]) if accounts else None


def acquire_token_by_password(app, config):
    """Return a dict with "access_token" or "error"; raise EOFError where there is no password."""
    username, password = config["username"], config.get("password")
    if not password and os.isatty(0):
        password = getpass.getpass("Password for {}: ".format(username))
    if not password:
        raise EOFError("no password")  # As getpass() does after Ctrl-D.
    return app.acquire_token_by_username_password(username, password, scopes=config["scope"])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
