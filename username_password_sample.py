# /// script
# dependencies = ["msal>=1.27,<2", "requests>=2.27,<3"]
# ///
"""Print the users of a Microsoft 365 tenant: python username_password_sample.py parameters.json

stdout gets one JSON document or nothing, stderr what went wrong. The exit status is 0 for users,
1 when the sign-in or the call failed, 2 when the parameters are unusable, 130 after Ctrl-C."""

import argparse
import errno
import functools
import getpass
import json
import logging
import os
import sys
import tempfile
import warnings

with warnings.catch_warnings():  # Old Pythons make the libraries warn, and cron would mail that.
    warnings.simplefilter("ignore")
    import msal
    import requests
    from requests.packages.urllib3 import Retry, exceptions

NEXT_LINK = "@odata.nextLink"


class GraphRetry(Retry):
    """urllib3's Retry, but silence is retried once and an unreadable Retry-After is as none."""

    def increment(self, *args, **kwargs):
        most = 1 if "timed out" in str(kwargs.get("error")) else self.total
        return super(GraphRetry, self.new(total=min(self.total, most))).increment(*args, **kwargs)

    def sleep_for_retry(self, response=None):
        try:
            return super(GraphRetry, self).sleep_for_retry(response)
        except Exception:
            return False  # And so wait as if there were no Retry-After.


def load_config(path):
    """Return the settings as a dict, and a list of what is wrong with them."""
    try:
        with open(path, "rb") as parameters:
            config = json.load(parameters)
    except (EnvironmentError, ValueError, RuntimeError) as error:  # RuntimeError: nested too deep.
        return {}, [getattr(error, "strerror", None) or "not JSON: {}".format(error)]
    if not isinstance(config, dict):
        return {}, ["not a JSON object"]
    required = ("authority", "client_id", "username", "scope", "endpoint")
    problems = ['"{}" is missing or empty'.format(key) for key in required if not config.get(key)]
    if not isinstance(config.get("scope") or [], list):
        problems.append('"scope" must be a list of strings')
    for key in ("authority", "endpoint"):
        if not "{}".format(config.get(key) or "https://").lower().startswith("https://"):
            problems.append('"{}" must be an https URL'.format(key))
    if config.get("token_cache"):
        cache_path = os.path.join(os.path.dirname(path), str(config["token_cache"]))
        config["token_cache"] = cache_path = os.path.realpath(cache_path)
        if os.path.exists(cache_path) and os.path.samefile(cache_path, path):
            problems.append('"token_cache" must not be the parameters file')
    return config, problems


def load_cache(path):
    """Return MSAL's token cache from the file at path, empty where there is no sound file."""
    cache = msal.SerializableTokenCache()
    try:
        with open(path, "rb") as cache_file:
            state = json.load(cache_file)
        if all(isinstance(entry, dict) for kind in state.values() for entry in kind.values()):
            cache.deserialize(json.dumps(state))
    except (AttributeError, EnvironmentError, TypeError, ValueError, RuntimeError):
        pass
    return cache


def save_cache(state, path):
    """Replace the file at path, for its owner's eyes only; tell stderr where that fails."""
    new_file = None
    try:
        with tempfile.NamedTemporaryFile("w", dir=os.path.dirname(path), delete=False) as new_file:
            os.chmod(new_file.name, 0o600)
            new_file.write(state)
        getattr(os, "replace", os.rename)(new_file.name, path)  # Python 2 has no os.replace.
    except EnvironmentError as error:
        logging.critical("%s: %s", path, error.strerror)
        if new_file:
            os.remove(new_file.name)


def get_password(config):
    """Return the password, asked for at a terminal if need be; raise EOFError if there is none."""
    password = config.get("password")
    if not password and sys.stdin and sys.stdin.isatty():
        password = getpass.getpass("Password for {}: ".format(config["username"]))
    if not password:
        raise EOFError
    return password


def acquire_token(app, config, last_result=None):
    """Return MSAL's result: a dict with "access_token", or with "error" and its description."""
    # The pattern to copy: the cache first, because it renews a token without the password. That is
    # sent once a run, as repeating it can lock the account: then the last result has to do.
    result = None
    accounts = app.get_accounts(username=config["username"])
    if accounts:
        result = app.acquire_token_silent(config["scope"], account=accounts[0])
    if not result:
        result = last_result or app.acquire_token_by_username_password(
            config["username"], get_password(config), scopes=config["scope"]
        )
    return result


def access_tokens(http, config):
    """Sign in and yield a token before each call, the cache saved; exit where there is none."""
    cache = load_cache(config.get("token_cache") or "")
    try:
        app = msal.PublicClientApplication(
            config["client_id"], authority=config["authority"], http_client=http, token_cache=cache
        )
        result = acquire_token(app, config)
        while result.get("access_token"):
            if config.get("token_cache") and cache.has_state_changed:
                save_cache(cache.serialize(), config["token_cache"])
            yield result["access_token"].strip()
            result = acquire_token(app, config, result)
        lines = [result.get(key) for key in ("error", "error_description", "correlation_id")]
        if 65001 in (result.get("error_codes") or []):
            flow = app.initiate_auth_code_flow(config["scope"], response_mode="form_post")
            lines.append("Visit this to consent: " + flow["auth_uri"])
        logging.critical("\n".join("%s" % line for line in lines))
        sys.exit(1)
    except EOFError:  # main() tells it.
        raise
    except UnicodeEncodeError:  # It may quote the password.
        sys.exit("Could not sign in: the username or the password has a character out of Latin-1")
    except Exception as error:  # What MSAL raises has no common base class.
        logging.debug("MSAL raised:", exc_info=True)
        behind = getattr(error, "__context__", None)
        more = "" if str(behind or "") in str(error) else "\n{}".format(behind)
        sys.exit("Could not sign in: {}: {}{}".format(type(error).__name__, error, more))


def get_page(http, link, token):
    """Return Graph's answer as a dict; raise a RequestException or ValueError that says why not."""
    reply = http.get(link, headers={"Authorization": "Bearer %s" % token}, allow_redirects=False)
    try:
        page = reply.json()
    except ValueError:
        page = None
    if reply.status_code != 200:
        body = json.dumps(page, indent=2) if page else reply.text[:1024]
        raise requests.HTTPError("{}\nContent: {}".format(reply.reason or reply.status_code, body))
    if not isinstance(page, dict):
        raise ValueError("the answer is not a JSON object")
    return page


def get_users(config):
    """Return Graph's answer as a dict, its pages joined; raise as get_page() does."""
    # MSAL gets this session too: its own would repeat the password when a connection breaks.
    http = requests.Session()
    http.request = functools.partial(http.request, timeout=30, allow_redirects=False)  # Seconds.
    http.auth = lambda request: request  # Does nothing, but keeps a ~/.netrc out of it.
    retry = GraphRetry(5, backoff_factor=1, raise_on_status=False, status_forcelist=[429, 503, 504])
    adapter = requests.adapters.HTTPAdapter(max_retries=retry)
    tokens, endpoint = access_tokens(http, config), config["endpoint"]
    answer, users, seen = {NEXT_LINK: endpoint}, [], []
    while NEXT_LINK in answer:
        link = "{}".format(answer.pop(NEXT_LINK))
        if link in seen or http.should_strip_auth(endpoint, link) or "@" in link.split("/")[2]:
            raise ValueError("the link to the next page leads astray: {}".format(link))
        seen.append(link)
        http.mount(requests.compat.urljoin(link, "/"), adapter)  # For Graph alone, not the sign-in.
        page = get_page(http, link, next(tokens))
        if isinstance(page.get("value"), list):
            users.extend(page["value"])
            page["value"] = users
        elif len(seen) > 1 or NEXT_LINK in page:
            raise ValueError("a page comes without its list")
        answer.update(page)
    return answer


def main(argv=None):
    """Run the command line argv and return the exit status."""
    parser = argparse.ArgumentParser(description="Print the users of a Microsoft 365 tenant.")
    parser.add_argument("parameters", help="JSON file with the settings")
    parser.add_argument("-v", "--verbose", action="store_true", help="log every step to stderr")
    args = parser.parse_args(argv)
    logging.basicConfig(level="DEBUG" if args.verbose else "CRITICAL", format="%(message)s")
    logging.getLogger("msal.oauth2cli").setLevel("CRITICAL")  # It can log a token answer whole.
    try:
        config, problems = load_config(args.parameters)
        if problems:
            parser.exit(2, "".join("{}: {}\n".format(args.parameters, line) for line in problems))
        text = json.dumps(get_users(config), indent=2, ensure_ascii=False) + "\n"
        text = "Users from graph: " + text if sys.stdout.isatty() else text
        with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as stdout:
            stdout.write(text.encode("utf-8", "backslashreplace"))
    except EOFError:
        parser.exit(2, '{}: "password" is missing, and none was typed\n'.format(args.parameters))
    except (requests.RequestException, exceptions.HTTPError, ValueError, RuntimeError) as error:
        logging.debug("The call raised:", exc_info=True)
        sys.exit("Failed to call the Web Api: {}".format(error))
    except (AttributeError, EnvironmentError) as error:  # AttributeError: it is None when closed.
        gone = getattr(error, "errno", None) in (errno.EPIPE, errno.EINVAL)  # EINVAL on Windows.
        sys.exit(1 if gone else "stdout cannot be written: {}".format(error))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
