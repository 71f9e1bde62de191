# /// script
# dependencies = ["msal>=1.27,<2", "requests>=2.27.1,<3"]
# ///
"""Sign in with a username and password, and print a Microsoft 365 tenant's users as JSON.

    python username_password_sample.py parameters.json

Warning: Microsoft recommends against this flow, resource owner password credentials (ROPC), and
MSAL has deprecated it. It doesn't work with multifactor authentication (MFA), guest accounts, or
personal accounts. Use it only for an existing job that can't sign in any other way. README.md
shows better ways to sign in, how to register the app, and who must consent to its permissions.

Settings in parameters.json, with example values:

    authority    required  sign-in URL with the tenant's domain or ID, or "organizations":
                           https://login.microsoftonline.com/organizations
    client_id    required  application (client) ID of an app that allows public client flows
    username     required  user principal name: somebody@your_tenant.com
    password     optional  used only if no saved sign-in works; if missing, asked for in a terminal
    scope        required  list of delegated permissions: ["User.ReadBasic.All"]
    endpoint     required  URL that lists the users: https://graph.microsoft.com/v1.0/users
    token_cache  optional  file for the saved sign-in, relative to parameters.json: token_cache.json

For a scheduled job, remove the password, set token_cache, and run the script once in a terminal.
Run it as the job's account, which must be able to read and replace the token cache. If the saved
sign-in stops working, for example after a password change, run the script in a terminal again.
Anyone who can read the password or the token cache can sign in as the user.

The script writes the users to stdout as one JSON document. If stdout is a terminal,
"Users from graph: " comes first. Errors go to stderr. Exit status:

    0    success: the document is complete, even if the token cache can't be saved
    1    the script can't sign in, call Microsoft Graph, or write to stdout
    2    the command line, the settings, or the token cache is invalid or can't be read
    130  you pressed Ctrl+C
"""

# This script also supports Python 2.7. Only that version needs unicode_literals, TEXT_TYPE,
# io.open, requests.compat, getattr, "%s" % error, and the loop in print_json.
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
from requests.exceptions import InvalidURL

REQUIRED_SETTINGS = ("authority", "client_id", "username", "scope", "endpoint")
OPTIONAL_SETTINGS = ("password", "token_cache")
TEXT_TYPE = type("")  # This is str in Python 3 and unicode in Python 2.7.

TIMEOUT = (10, 30)  # Wait this many seconds for a connection to an IP address, and for data.
RETRY_WAITS = (2, 4, 8)  # Wait at least this many seconds before each retry.
MAX_RETRY_AFTER = 300  # If Retry-After is more seconds than this, don't retry.
TRANSIENT_STATUSES = (429, 500, 502, 503, 504)
# A retry can't fix these errors, and repeated wrong passwords can lock a proxy account.
PERMANENT_ERRORS = ("CERTIFICATE_VERIFY_FAILED", "Tunnel connection failed: 407")
INVALID_HOST = "IPv6 URL|IPv4 or IPv6|IPv4 address|IPvFuture|NFKC"  # In messages from Python.
MAX_CONTENT = 1024  # Show at most this many characters of an error response that isn't JSON.


def main():
    """Print the users. If that fails, log why and exit with a nonzero status."""
    args = parse_arguments()
    with exit_on_error("Can't use the settings in " + args.parameters, status=2):
        config = load_settings(args.parameters)
        cache = load_token_cache(config.get("token_cache"))

    with exit_on_error("Could not sign in", status=1):
        # This downloads the tenant's configuration. Unlike the sign-in, it sends no password, so a
        # retry can't lock the account.
        app = call_with_retries(
            lambda: msal.PublicClientApplication(
                config["client_id"],
                authority=config["authority"],
                token_cache=cache,
                timeout=TIMEOUT,
            )
        )
        result = acquire_token(app, config)
        typed_password = ask_for_password_if_needed(config, result)
        if typed_password:
            config["password"] = typed_password  # Renewing the access token might need it.
            result = acquire_token(app, config)
        check_result(result, password_missing=not config.get("password"))
    save_token_cache(cache, config.get("token_cache"))  # If this fails, still print the users.

    with exit_on_error("Failed to call the Web Api", status=1):
        document = get_users(
            config["endpoint"], result["access_token"], lambda: renew_access_token(app, config)
        )

    with exit_on_error("Can't write to stdout", status=1):
        print_json(document)


def acquire_token(app, config, force_refresh=False):
    """Return MSAL's result, or None if there's neither a saved sign-in nor a password.

    The result is a dict with "access_token", or with "error", "error_description", and
    "correlation_id". If force_refresh is True, ignore the saved access token, because Graph has
    rejected it. If MSAL gets no usable response, it can raise any exception.
    """
    result = None
    # After an admin re-creates a user, the token cache can have two accounts for one username.
    for account in app.get_accounts(username=config["username"]):
        # This returns None if the token cache has no usable token for the account.
        silent_result = app.acquire_token_silent_with_error(
            config["scope"], account=account, force_refresh=force_refresh
        )
        if silent_result and "access_token" in silent_result:
            return silent_result
        result = silent_result or result
    if config.get("password"):
        result = app.acquire_token_by_username_password(
            config["username"], config["password"], scopes=config["scope"]
        )
    return result


def get_users(endpoint, access_token, get_new_token):
    """Return Graph's response as a dict. With several pages, "value" has all their users.

    If Graph rejects the access token, get_new_token() must return a new one. Raise
    requests.RequestException if a request fails, or ValueError if a page has no list or a bad link.
    """
    session = requests.Session()
    session.headers["Authorization"] = "Bearer " + access_token
    session.auth = lambda request: request  # Without this, ~/.netrc can replace the access token.

    root_url = urljoin(endpoint, "/").lower()  # An example is https://graph.microsoft.com/.
    document = {}
    users = []
    links_read = set()
    next_link = endpoint
    while True:
        page = get_page(session, next_link, get_new_token)
        links_read.add(next_link)
        next_link = page.pop("@odata.nextLink", None)
        is_only_page = len(links_read) == 1 and next_link is None
        if is_only_page and "value" not in page:
            return page  # It's one object, such as the signed-in user, and not a list.
        if not isinstance(page.get("value"), list):
            raise ValueError('"value" is missing or isn\'t a list on a page')
        users.extend(page.pop("value"))
        document.update(page)  # Other keys, such as "@odata.context", keep their last value.
        if next_link is None:
            document["value"] = users
            return document
        # Never send the access token to another host.
        if not "{}".format(next_link).lower().startswith(root_url):
            raise ValueError("the next page's link points to another host: {}".format(next_link))
        if next_link in links_read:
            raise ValueError("the next page's link repeats an earlier link: " + next_link)


def get_page(session, url, get_new_token):
    """Return the page at the URL as a dict. Raise requests.RequestException if that fails."""
    try:
        return call_with_retries(lambda: get_json(session, url))
    except requests.HTTPError as error:
        if error.response.status_code != 401:
            raise
    # The access token expired or was revoked. Try once more with a new one.
    session.headers["Authorization"] = "Bearer " + get_new_token()
    return call_with_retries(lambda: get_json(session, url))


def call_with_retries(function):
    """Return the function's result. Raise its error if a retry can't help or the last one fails."""
    for wait in RETRY_WAITS:
        try:
            return function()
        except requests.HTTPError as error:
            # Ignore a Retry-After that isn't a number of seconds, such as a date.
            retry_after = error.response.headers.get("Retry-After", "")
            seconds = int(retry_after) if re.match("[0-9]{1,9}$", retry_after) else 0
            if error.response.status_code not in TRANSIENT_STATUSES or seconds > MAX_RETRY_AFTER:
                raise
            time.sleep(max(wait, seconds))
        except requests.RequestException as error:
            # There's no response, or get_json can't use it.
            if any(text in "%s" % error for text in PERMANENT_ERRORS):
                raise
            time.sleep(wait)
    return function()


def get_json(session, url):
    """Send one GET request to the URL, and return the JSON object as a dict.

    Raise requests.HTTPError if the status isn't 200. Raise another requests.RequestException if
    there's no response, or if it isn't a JSON object or contains an error.
    """
    response = session.get(url, timeout=TIMEOUT, allow_redirects=False)
    try:
        page = response.json()
    except ValueError:
        page = None
    if response.status_code != 200:
        problem = response.reason or response.status_code
    elif not isinstance(page, dict):
        problem = "the response isn't a JSON object"
    elif isinstance(page.get("error"), dict):
        problem = "the response is an error"
    else:
        return page
    content = json.dumps(page, indent=2) if page else response.text[:MAX_CONTENT]
    message = "{}\nContent: {}".format(problem, content)
    if response.status_code == 200:
        raise requests.RequestException(message)
    raise requests.HTTPError(message, response=response)


def print_json(document):
    """Write the document to stdout as indented JSON in UTF-8. Raise OSError if that fails."""
    # Closing this file object flushes it, so a full disk raises an error here. stdout stays open.
    # UTF-8 can't encode an unpaired surrogate. "backslashreplace" writes it as a JSON escape.
    with io.open(
        sys.stdout.fileno(), "w", encoding="utf-8", errors="backslashreplace", closefd=False
    ) as stdout:
        if stdout.isatty():
            stdout.write("Users from graph: ")
        # In Python 3, json.dump is enough. In Python 2.7, it writes some pieces as bytes.
        for piece in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(document):
            stdout.write("" + piece)
        stdout.write("\n")


def ask_for_password_if_needed(config, result):
    """Return the password that the user types, or None if it isn't needed or can't be typed.

    If Entra has refused the saved sign-in, first show why.
    """
    signed_in = result and "access_token" in result
    # Without a terminal, a scheduled job must not wait at a prompt.
    if signed_in or config.get("password") or not os.isatty(0) or not os.isatty(2):
        return None
    if result:
        logging.critical("The saved sign-in was refused: %s", result.get("error_description"))
    try:
        return getpass.getpass("Password for {}: ".format(config["username"]))
    except EOFError:
        return None  # The user pressed Ctrl+D.


def check_result(result, password_missing=False):
    """Raise RuntimeError if MSAL's result has no access token. The message says why."""
    if result and "access_token" in result:
        return
    lines = []
    if password_missing:
        lines.append(
            'no saved sign-in works, and there\'s no password. Add "password" to the settings, or'
            ' set "token_cache" and run this script once in a terminal.'
        )
    if result is not None:
        for key in ("error", "error_description", "correlation_id"):
            lines.append("{}".format(result.get(key)))
    raise RuntimeError("\n".join(lines))


def renew_access_token(app, config):
    """Return a new access token after Graph rejects one. If the sign-in fails, log why and exit."""
    with exit_on_error("Could not sign in", status=1):
        result = acquire_token(app, config, force_refresh=True)
        check_result(result, password_missing=not config.get("password"))
    save_token_cache(app.token_cache, config.get("token_cache"))
    return result["access_token"]


def load_settings(path):
    """Return the settings as a dict. Raise OSError if unreadable, ValueError if invalid."""
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
            if not isinstance(value, list) or not all(isinstance(v, TEXT_TYPE) for v in value):
                problems.append('"scope" must be a list of strings')
        elif not isinstance(value, TEXT_TYPE):
            problems.append('"{}" must be a string'.format(key))
        elif key in ("authority", "endpoint") and not value.lower().startswith("https://"):
            problems.append('"{}" must start with https://'.format(key))
    if problems:
        raise ValueError("; ".join(problems))
    if config.get("token_cache"):
        token_cache = os.path.expanduser(config["token_cache"])
        # realpath follows a symbolic link, so save_token_cache replaces the link's target.
        config["token_cache"] = os.path.realpath(os.path.join(os.path.dirname(path), token_cache))
    return config


def load_token_cache(path):
    """Return a saved or new token cache. Raise OSError if unreadable, ValueError if invalid."""
    cache = msal.SerializableTokenCache()
    if path and os.path.exists(path):
        if not os.path.isfile(path):
            raise ValueError(path + ": not a regular file")
        with open(path, "rb") as cache_file:
            contents = cache_file.read()
        if not is_token_cache(contents):  # Don't overwrite a file that isn't this script's.
            raise ValueError(
                '{}: not a token cache. Check "token_cache". If the file is this script\'s token'
                " cache, delete it.".format(path)
            )
        cache.deserialize(contents)
    return cache


def is_token_cache(contents):
    """Return whether the file's contents are empty or look like a token cache from MSAL."""
    try:
        sections = json.loads(contents or "{}")
    except ValueError:
        return False
    # Each section is a JSON object. If there's a token, there's an "AccessToken" section.
    if not isinstance(sections, dict) or (sections and "AccessToken" not in sections):
        return False
    return all(isinstance(section, dict) for section in sections.values())


def save_token_cache(cache, path):
    """Save the token cache if it changed. Return True, or log why that failed and return False."""
    if not path or not cache.has_state_changed:
        return True
    try:
        # On Linux and macOS, only the owner can read a file that tempfile creates. The rename
        # replaces the old file in one step, so no other run reads an incomplete token cache.
        new_file = tempfile.NamedTemporaryFile(dir=os.path.dirname(path), delete=False)
        try:
            with new_file:
                new_file.write(cache.serialize().encode("utf-8"))
            replace = getattr(os, "replace", os.rename)  # Python 2.7 has no os.replace.
            replace(new_file.name, path)
        finally:
            if os.path.exists(new_file.name):  # The write or the rename failed.
                os.remove(new_file.name)
    except Exception as error:
        logging.critical("Can't save the token cache %s: %s", path, error)
        return False
    return True


def parse_arguments(description=__doc__):
    """Set up logging to stderr, and return the command-line arguments. Exit if they're invalid."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parameters", metavar="parameters.json", help="path to the settings file")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show debug logs, which can contain secrets"
    )
    args = parser.parse_args()
    # This script logs errors as CRITICAL. Other messages, such as MSAL's, appear only with -v.
    level = logging.DEBUG if args.verbose else logging.CRITICAL
    logging.basicConfig(level=level, format="%(message)s")
    return args


@contextlib.contextmanager
def exit_on_error(what_failed, status):
    """If the block raises an exception, log what failed and why, and exit with the status."""
    try:
        yield
    except Exception as error:
        logging.debug("Details:", exc_info=True)  # Only -v shows this traceback.
        logging.critical("%s: %s", what_failed, get_reason(error))
        sys.exit(status)


def get_reason(error):
    """Return the exception's text without the parts that can contain a secret."""
    # If MSAL can't read the tenant's configuration, only the exception's context says why.
    cause = getattr(error, "__context__", None)
    safe_reason = "a setting or a proxy environment variable has an invalid URL or character"
    for exception in (error, cause):
        if isinstance(exception, (InvalidURL, UnicodeEncodeError)):
            return safe_reason
        # If a proxy URL has an invalid host, such as "[pass]word@host", Python quotes a part of it.
        if type(exception) is ValueError and re.search(INVALID_HOST, "%s" % exception):
            return safe_reason
    reason = "%s" % error
    if isinstance(cause, ValueError):
        reason = "%s\n%s" % (reason, cause)
    if not isinstance(error, requests.RequestException):
        # MSAL can quote XML from AD FS, a company's own sign-in server. The XML can hold a token.
        reason = re.sub("(?s)<.*>", "<...>", reason)
    return reason or repr(error)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
