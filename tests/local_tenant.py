# /// script
# requires-python = ">=3.9"
# dependencies = ["msal>=1.27,<2", "requests>=2.27.1,<3", "trustme>=1.1"]
# ///
"""Run the sample, or a COMMAND, against a Microsoft 365 tenant on this machine.

    python tests/local_tenant.py                             the sample as it is
    python tests/local_tenant.py --parameters FILE           the sample with your own settings
    python tests/local_tenant.py --scenario wrong-password   a failure
    python tests/local_tenant.py -- curl -sS URL             any other command
    python tests/local_tenant.py bash                        a shell

The local tenant uses the app, the user, and the tenant name from the parameters file. With
--parameters, it accepts any password. The sample gets a copy of the file without your password and
with another token cache. Proxy and certificate environment variables direct the COMMAND to the
local tenant. Programs that use these variables can't reach any other machine. The exit status is
the COMMAND's.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from project import PARAMETERS, SAMPLE

try:
    from tenant import LocalTenant
    from tenant.directory import PLACEHOLDERS
    from tenant.entra import load_certificate
    from tenant.scenarios import SCENARIOS
except ModuleNotFoundError as error:
    text = "The local tenant needs the package {}. Run: python -m pip install msal requests trustme"
    sys.exit(text.format(error.name))

DEFAULT_AUTHORITY = "https://login.microsoftonline.com/organizations"
MADE_UP_PASSWORD = "made-up password"
TOKEN_CACHE = "temporary_token_cache.json"
NOTE = """\
The local tenant can't check your password, the consent, or MFA. Only Entra can.
Unless a scenario refuses it, the local tenant accepts any password."""


def main():
    """Run the command line, and return the exit status."""
    parser = make_parser()
    args = parser.parse_args()
    if args.list:
        return list_scenarios()
    path = args.parameters or str(PARAMETERS)
    command = args.command
    if command and command[0] == "--":  # Some versions of argparse leave the "--".
        command = command[1:]
    if command and not os.path.exists(path):
        parser.error("{}: no such file".format(path))

    settings = read_settings(path)
    if not command:
        settings = hide_password(settings)
    config = make_config(settings)
    if args.parameters:
        config = accept_own_values(config)
    tenant = LocalTenant(config)
    tenant.directory.certificate = args.certificate
    scenario = SCENARIOS.get(args.scenario)
    if scenario:
        scenario(tenant)
    if args.users is not None:
        tenant.directory.user_count = args.users
    with tenant, tempfile.TemporaryDirectory() as folder:
        if args.parameters and sys.stderr.isatty():
            print(NOTE, file=sys.stderr)
        if command:
            return run(command, tenant.environment())
        if not settings:
            return run(sample_command(path), tenant.environment())  # It says what's wrong.
        saved_sign_in = scenario and scenario.saved_sign_in
        return run_sample(Path(folder, Path(path).name), settings, tenant, saved_sign_in)


def make_parser():
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [options] [--] [COMMAND ...]",
    )
    parser.add_argument("--parameters", metavar="FILE", help="settings (default: parameters.json)")
    parser.add_argument(
        "--scenario", choices=SCENARIOS, metavar="NAME", help="what the tenant does (see --list)"
    )
    parser.add_argument("--users", type=int, metavar="N", help="number of users in the tenant")
    parser.add_argument(
        "--certificate", type=read_certificate, metavar="FILE", help="the app's certificate"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def read_certificate(path):
    """Return the contents of a certificate file. Raises ArgumentTypeError if it isn't one."""
    try:
        contents = Path(path).read_bytes()
        load_certificate(contents)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError("{}: {}".format(path, error)) from None
    return contents


def list_scenarios():
    """Print the scenarios, and return the exit status."""
    lines = []
    codes = []
    for name, scenario in SCENARIOS.items():
        if name.startswith("AADSTS"):
            codes.append(name[len("AADSTS") :])
        else:
            lines.append("{:29}{}\n".format(name, scenario.summary))
    text = "Entra refuses the sign-in with one of these codes: " + " ".join(codes)
    lines.append("{:29}{}\n".format("AADSTS...", text))
    try:
        # Unlike sys.stdout, this file doesn't report the same error again at exit.
        with open(sys.stdout.fileno(), "w", closefd=False) as stdout:
            stdout.writelines(lines)
    except OSError as error:
        print("Can't print the list: {}".format(error.strerror), file=sys.stderr)
        return 1
    return 0


def read_settings(path):
    """Return the settings in the file as a dict. It's empty if the file can't be used.

    The sample reports what is wrong with the file.
    """
    try:
        settings = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(settings, dict):
        return {}
    return settings


def hide_password(settings):
    """Return the settings with a made-up password in place of the user's.

    If Entra would refuse the user's password, it also refuses the made-up one.
    """
    password = settings.get("password")
    if not password or password == PLACEHOLDERS["password"]:
        return settings
    made_up = MADE_UP_PASSWORD
    if not isinstance(password, str):
        made_up = True  # The sample reports that it isn't a string.
    elif password != password.strip():
        made_up += " "
    return dict(settings, password=made_up)


def make_config(settings):
    """Return the settings of the tenant, with defaults for missing ones.

    If there's no password, the tenant accepts any.
    """
    config = dict(PLACEHOLDERS, authority=DEFAULT_AUTHORITY, password=None)
    for key in config:
        value = settings.get(key)
        if value and isinstance(value, str):
            config[key] = value
    return config


def load(path):
    """Return the settings of the tenant that the file describes, with defaults for missing ones."""
    return make_config(read_settings(path))


def accept_own_values(config):
    """Return the settings of a tenant that accepts any password but refuses placeholders.

    Otherwise, an unfinished file would seem to work.
    """
    config = dict(config, password=None)
    for key in ("client_id", "username"):
        if config[key] == PLACEHOLDERS[key]:
            config[key] = "not_" + config[key]
    return config


def sample_command(path):
    """Return the command that runs the sample with the settings in this file."""
    return [sys.executable, str(SAMPLE), str(path)]


def run_sample(copy, settings, tenant, saved_sign_in=False):
    """Run the sample with these settings, and return its exit status.

    The settings are written to the file "copy". A token cache is in the same folder, so made-up
    accounts can't get into the user's own token cache. If saved_sign_in is True, the sample runs
    twice. The second time, it has no password.
    """
    # In this folder, the name of the copy is the name of the user's file.
    options = {"env": tenant.environment(), "cwd": str(copy.parent)}
    command = sample_command(copy.name)
    token_cache = settings.get("token_cache")
    if saved_sign_in or (token_cache and isinstance(token_cache, str)):
        settings = dict(settings, token_cache=TOKEN_CACHE)
    if saved_sign_in:
        first_settings = dict(settings, password=settings.get("password") or MADE_UP_PASSWORD)
        copy.write_text(json.dumps(first_settings), encoding="utf-8")
        status = run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)
        if status != 0:
            return status
        settings = dict(settings, password=None)
        options["stdin"] = subprocess.DEVNULL  # Nobody can type a password.
    copy.write_text(json.dumps(settings), encoding="utf-8")
    return run(command, **options)


def run(command, env, **options):
    """Run the command, and return its exit status: 127 if it can't be started.

    SIGTERM and SIGHUP also end the command and everything that it has started.
    """
    # On a terminal, the command must stay in the local tenant's process group, so that the keys
    # Ctrl+C and Ctrl+Z reach it. Elsewhere, it gets a group of its own.
    own_group = os.name == "posix" and not has_terminal()
    process = None
    received = []

    def forward(signum, frame):
        if process is None:
            received.append(signum)
        # On a terminal, the command gets Ctrl+C too. It decides what to do.
        elif own_group or signum != signal.SIGINT:
            send_signal(process, signum, own_group)

    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        signum = getattr(signal, name, None)  # Windows has no SIGHUP.
        # Under nohup, the command must keep ignoring SIGHUP.
        if signum and signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, forward)
    try:
        process = subprocess.Popen(command, env=env, start_new_session=own_group, **options)
    except OSError as error:
        print("{}: {}".format(command[0], error.strerror), file=sys.stderr)
        return 127
    for signum in received:
        send_signal(process, signum, own_group)
    status = process.wait()
    if status < 0:
        return 128 - status  # A signal ended the command. Shells return the same status.
    return status


def has_terminal():
    """Return whether this process has a terminal where somebody can press Ctrl+C."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
        return True
    except OSError:
        return False


def send_signal(process, signum, own_group):
    """Send a signal to the process and, if it's possible, to everything that it has started."""
    if own_group:
        group = process.pid
    elif os.name == "posix" and os.getpgrp() == os.getpid():
        # A shell with job control has put this process and the command in a group of their own.
        group = os.getpid()
        signal.signal(signum, signal.SIG_IGN)
    else:
        process.send_signal(signum)
        return
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        pass  # All processes of the group have ended.


if __name__ == "__main__":
    sys.exit(main())
