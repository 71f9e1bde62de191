# /// script
# dependencies = ["msal>=1.27,<2", "requests>=2.27.1,<3"]
# ///
"""Sign in with a username and password, and print a Microsoft 365 tenant's users as JSON.

    python username_password_sample.py parameters.json

Warning: Microsoft recommends against this flow, resource owner password credentials (ROPC). It
doesn't work with multifactor authentication (MFA), guest accounts, or personal accounts. Use it
only for an existing job that can't sign in any other way. README.md shows better ways to sign in,
how to register the app, and who must consent to its permissions.

Settings in parameters.json, with example values:

    authority    required  sign-in URL with the tenant's domain or ID, or "organizations":
                           https://login.microsoftonline.com/organizations
    client_id    required  application (client) ID of an app that allows public client flows
    username     required  user principal name: somebody@your_tenant.com
    password     optional  used only if no saved sign-in works. If it's missing, and you run the
                           script in a terminal, the script prompts for it.
    scope        required  list of delegated permissions: ["User.ReadBasic.All"]
    endpoint     required  URL that lists the users: https://graph.microsoft.com/v1.0/users
    token_cache  optional  file where the script saves the sign-in for later runs: token_cache.json
                           (absolute, or relative to the folder that contains parameters.json)

A scheduled job doesn't need a password in parameters.json. Remove the password, set token_cache,
and run the script once in a terminal. If the saved sign-in stops working, for example after a
password change, run the script in a terminal again. Anyone who can read the password or the token
cache can sign in as the user.

The script writes the users to stdout as one JSON document. If stdout is a terminal,
"Users from graph: " comes first. Errors go to stderr. Exit status:

    0    success: the document is complete, even if the token cache can't be saved
    1    the script can't sign in, call Microsoft Graph, or write to stdout
    2    the command line, the settings, or the token cache is invalid or can't be read
    130  you pressed Ctrl+C
"""

# This script also supports Python 2.7. That's why it uses unicode_literals, io.open, TEXT_TYPE,
# EnvironmentError (OSError in Python 3), and os.rename.
from __future__ import unicode_literals

import argparse
import contextlib
import getpass
import io
import json
import logging
import os
import re
import sys
import tempfile
import time

import msal
import requests
from requests.compat import urljoin

REQUIRED_SETTINGS = ("authority", "client_id", "username", "scope", "endpoint")
OPTIONAL_SETTINGS = ("password", "token_cache")
TEXT_TYPE = type("")  # str in Python 3, unicode in Python 2.7

TIMEOUT = 30  # A request fails if the server sends nothing for this many seconds.
RETRY_WAITS = (2, 4, 8)  # Minimum wait, in seconds, before each retry of a Graph request.
MAX_RETRY_AFTER = 300  # If Retry-After is more than this many seconds, there's no retry.
TRANSIENT_STATUSES = (429, 500, 502, 503, 504)
MAX_CONTENT = 1024  # If an error response isn't JSON, show at most this many characters.


def main():
    """Print the users. If a step fails, log an error and exit with a nonzero status."""
    args = parse_arguments()
    with exit_on_error("Can't use the settings in " + args.parameters, status=2):
        config = load_settings(args.parameters)
        cache = load_token_cache(config.get("token_cache"))

    with exit_on_error("Could not sign in", status=1, hide_secrets=True):
        app = msal.PublicClientApplication(
            config["client_id"], authority=config["authority"], token_cache=cache, timeout=TIMEOUT
        )
        result = acquire_token(app, config)
    save_token_cache(cache, config.get("token_cache"))  # If this fails, the run continues.

    with exit_on_error("Failed to call the Web Api", status=1):
        document = get_users(app, config, result["access_token"])

    with exit_on_error("Can't write to stdout", status=1):
        print_json(document)


def acquire_token(app, config, force_refresh=False):
    """Return MSAL's result, a dict that contains "access_token".

    Try the saved sign-ins in the token cache first, and then the password. If force_refresh is
    True, ignore the saved access token, because Graph has rejected it. Raises RuntimeError if
    no attempt gets an access token. MSAL can raise almost any other exception.
    """
    error_result = None
    # If an admin deletes and re-creates a user, the cache can have two accounts for one username.
    for account in app.get_accounts(username=config["username"]):
        result = app.acquire_token_silent_with_error(
            config["scope"], account=account, force_refresh=force_refresh
        )
        if result and "access_token" in result:
            return result
        if result:  # The result is None if there's no refresh token for this account.
            error_result = result

    password = config.get("password")
    # A scheduled job must not wait at a prompt. 0 is stdin, and 2 is stderr.
    if not password and os.isatty(0) and os.isatty(2):
        password = getpass.getpass("Password for {}: ".format(config["username"]))
    if password:
        result = app.acquire_token_by_username_password(
            config["username"], password, scopes=config["scope"]
        )
        if "access_token" in result:
            return result
        error_result = result

    if password:
        lines = []
    elif config.get("token_cache"):
        lines = ["no saved sign-in works. To sign in, run this script in a terminal."]
    else:
        lines = ['there\'s no password. Add "password" or "token_cache" to the settings.']
    if error_result:
        for key in ("error", "error_description", "correlation_id"):
            lines.append("{}".format(error_result.get(key)))
    raise RuntimeError("\n".join(lines))


@contextlib.contextmanager
def exit_on_error(what_failed, status, hide_secrets=False):
    """If the block raises an exception, log a message and exit with the status.

    If hide_secrets is True, the message shows <...> instead of text that can contain secrets.
    """
    try:
        yield
    except Exception as error:
        logging.debug("Details:", exc_info=True)  # Only -v shows this traceback.
        reason = "%s" % error
        # AD FS, a company's own sign-in server, returns XML. An MSAL error message can include that
        # XML, and the XML can contain a token. Hide everything from the first < to the last >. An
        # encoding error can contain the password.
        if hide_secrets:
            reason = re.sub("(?s)<.*>|(?<=codec can't encode ).*", "<...>", reason)
        logging.critical("%s: %s", what_failed, reason or repr(error))
        sys.exit(status)


def parse_arguments():
    """Return the command-line arguments, and set up logging to stderr."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parameters", metavar="parameters.json", help="path to the settings file")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show debug logs, which can contain secrets"
    )
    args = parser.parse_args()
    # The script logs its error messages as CRITICAL. All other messages, including those from the
    # MSAL and requests libraries, have lower levels and appear only with -v.
    level = logging.DEBUG if args.verbose else logging.CRITICAL
    logging.basicConfig(level=level, format="%(message)s")
    return args


def load_settings(path):
    """Return the settings in the file as a dict.

    Raises EnvironmentError if the file can't be read, and ValueError if the settings are invalid.
    """
    with open(path, "rb") as settings_file:  # In Python 3, json detects the encoding of bytes.
        config = json.load(settings_file)
    if not isinstance(config, dict):
        raise ValueError("not a JSON object")
    problems = []
    for key in REQUIRED_SETTINGS + OPTIONAL_SETTINGS:
        value = config.get(key)
        if value in (None, "", []):
            if key in REQUIRED_SETTINGS:
                problems.append('"{}" is missing or empty'.format(key))
        elif key == "scope":
            if not isinstance(value, list):
                problems.append('"scope" must be a list')
        elif not isinstance(value, TEXT_TYPE):
            problems.append('"{}" must be a string'.format(key))
        elif key in ("authority", "endpoint") and not value.lower().startswith("https://"):
            problems.append('"{}" must start with https://'.format(key))
    if problems:
        raise ValueError("; ".join(problems))
    if config.get("token_cache"):
        folder = os.path.dirname(os.path.abspath(path))
        config["token_cache"] = os.path.join(folder, config["token_cache"])
    return config


def load_token_cache(path):
    """Return MSAL's token cache from the file. If there's no file, return an empty cache.

    Raises ValueError if the file can't be read or isn't a token cache.
    """
    cache = msal.SerializableTokenCache()
    if path and os.path.exists(path):
        try:
            with io.open(path, encoding="utf-8") as cache_file:
                text = cache_file.read()
            contents = json.loads(text or "{}")  # MSAL treats an empty file as an empty cache.
            # MSAL never saves tokens without an "AccessToken" section. A wrong path must not make
            # the script overwrite another JSON file.
            if not isinstance(contents, dict) or (contents and "AccessToken" not in contents):
                raise ValueError("not a token cache")
        except (EnvironmentError, ValueError) as error:
            advice = 'Check "token_cache". If the file is this script\'s token cache, delete it.'
            raise ValueError("{}: {}. {}".format(path, error, advice))
        cache.deserialize(text)
    return cache


def save_token_cache(cache, path):
    """If the token cache has changed, save it. If that fails, log why and continue."""
    if not path or not cache.has_state_changed:
        return
    new_file = None
    try:
        # On Linux and macOS, only the owner can read a file that tempfile creates. The rename
        # replaces the old file in one step, so another run never reads an incomplete cache.
        with tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False) as new_file:
            new_file.write(cache.serialize().encode("utf-8"))
        replace = getattr(os, "replace", os.rename)  # Python 2.7 doesn't have os.replace.
        replace(new_file.name, path)
    except EnvironmentError as error:
        logging.critical("Can't save the token cache %s: %s", path, error)
        if new_file:  # The write or the rename failed.
            os.remove(new_file.name)


def get_users(app, config, access_token):
    """Return Graph's response as a dict. If it has several pages, merge their "value" lists.

    Raises ValueError if the link to the next page is invalid, and whatever get_page() raises.
    """
    session = requests.Session()
    session.headers["Authorization"] = "Bearer " + access_token
    session.auth = lambda request: request  # Without this, ~/.netrc replaces the access token.

    endpoint = config["endpoint"]
    root_url = urljoin(endpoint, "/").lower()  # For example, https://graph.microsoft.com/
    links_read = {endpoint}
    document = get_page(session, endpoint, app, config)
    next_link = document.pop("@odata.nextLink", None)
    while next_link is not None:
        if not next_link.lower().startswith(root_url):  # Never send the token to another host.
            raise ValueError("the link to the next page points to another host: " + next_link)
        if next_link in links_read:
            raise ValueError("the link to the next page repeats an earlier link: " + next_link)
        links_read.add(next_link)
        page = get_page(session, next_link, app, config)
        next_link = page.pop("@odata.nextLink", None)
        document["value"].extend(page.pop("value"))
        document.update(page)  # For other keys, such as "@odata.context", keep the last value.
    return document


def get_page(session, url, app, config):
    """Call get_with_retries(). If Graph rejects the access token, get a new one and try again.

    Raises whatever get_with_retries() raises. If the token can't be renewed, the script exits.
    """
    try:
        return get_with_retries(session, url)
    except requests.HTTPError as error:
        if error.response.status_code != 401:
            raise
    # Status 401 usually means that the access token has expired or was revoked. If the renewal
    # fails, the script exits here with "Could not sign in". The exit_on_error block in main()
    # doesn't catch SystemExit, because it isn't a subclass of Exception.
    with exit_on_error("Could not sign in", status=1, hide_secrets=True):
        result = acquire_token(app, config, force_refresh=True)
    save_token_cache(app.token_cache, config.get("token_cache"))
    session.headers["Authorization"] = "Bearer " + result["access_token"]
    return get_with_retries(session, url)


def get_with_retries(session, url):
    """Call get_json(). After a transient error, retry up to three times.

    Raises whatever get_json() raises.
    """
    for wait in RETRY_WAITS:
        try:
            return get_json(session, url)
        except requests.HTTPError as error:
            retry_after = error.response.headers.get("Retry-After", "")
            seconds = int(retry_after) if retry_after.isdigit() else 0
            if error.response.status_code not in TRANSIENT_STATUSES or seconds > MAX_RETRY_AFTER:
                raise
            time.sleep(max(wait, seconds))
        except (requests.RequestException, ValueError):
            # There's no response, or it's incomplete or not JSON.
            time.sleep(wait)
    return get_json(session, url)


def get_json(session, url):
    """Send one GET request to the URL, and return the JSON object as a dict.

    Raises requests.HTTPError if the status isn't 200. Raises a different subclass of
    requests.RequestException if there's no response or it's incomplete. Raises ValueError if the
    response isn't a JSON object.
    """
    response = session.get(url, timeout=TIMEOUT, allow_redirects=False)
    try:
        page = response.json()
    except ValueError:
        page = None
    if response.status_code != 200:
        reason = response.reason or response.status_code
        content = json.dumps(page, indent=2) if page else response.text[:MAX_CONTENT]
        raise requests.HTTPError("{}\nContent: {}".format(reason, content), response=response)
    if not isinstance(page, dict):
        raise ValueError("the response isn't a JSON object")
    return page


def print_json(document):
    """Write the document to stdout as indented JSON in UTF-8.

    Raises EnvironmentError if it can't write to stdout.
    """
    # Closing this file object flushes it, so a full disk raises an error here. stdout stays open.
    # UTF-8 can't encode an unpaired surrogate. "backslashreplace" writes it as a JSON escape.
    with io.open(
        sys.stdout.fileno(), "w", encoding="utf-8", errors="backslashreplace", closefd=False
    ) as stdout:
        if stdout.isatty():
            stdout.write("Users from graph: ")
        # Write the JSON in pieces, because one long string would double the memory use.
        for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(document):
            stdout.write("" + piece)  # In Python 2.7, some pieces are bytes.
        stdout.write("\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
