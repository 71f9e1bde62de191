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

The local tenant uses the app, the user, the password, and the tenant name from the parameters
file. Proxy and certificate environment variables direct the COMMAND to the local tenant. Programs
that use these variables can't reach any other machine. The exit status is the COMMAND's.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import Encoding
    from tenant import LocalTenant
    from tenant.scenarios import SCENARIOS
except ModuleNotFoundError as error:
    if __name__ != "__main__":
        raise
    text = "The local tenant needs the package {}. Run: python -m pip install msal requests trustme"
    sys.exit(text.format(error.name))

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "username_password_sample.py"
PARAMETERS = ROOT / "parameters.json"
PLACEHOLDERS = {  # They're repeated here because users might edit parameters.json.
    "client_id": "your_client_id",
    "username": "your_username@your_tenant.com",
    "password": "your_password",
}
DEFAULT_AUTHORITY = "https://login.microsoftonline.com/organizations"
LOCAL_PASSWORD = "local"  # The password of the user if the file has none.
SHELLS = ("bash", "cmd", "dash", "fish", "ksh", "powershell", "pwsh", "sh", "zsh")
GRACE_PERIOD = 5  # Seconds until a command that ignores SIGTERM is killed.


def main():
    """Run the command line, and return the exit status."""
    parser = make_parser()
    args = parser.parse_args()
    if args.list:
        list_scenarios()
        return 0
    parameters = args.parameters or str(PARAMETERS)
    command = args.command
    if command and command[0] == "--":  # Some versions of argparse leave the "--".
        command = command[1:]
    if command and not Path(parameters).is_file():
        parser.error("{}: no such file".format(parameters))

    config = load(parameters)
    if args.parameters:
        config = replace_placeholders(config)
    tenant = LocalTenant(config)
    tenant.directory.certificate = args.certificate
    if args.scenario:
        SCENARIOS[args.scenario](tenant)
    if args.users is not None:
        tenant.directory.user_count = args.users
    with tenant, tempfile.TemporaryDirectory() as folder:
        print_notes(args.parameters, command, tenant.directory)
        if command:
            return run(command, tenant.environment())
        if args.scenario and SCENARIOS[args.scenario].saved_sign_in:
            return run_from_saved_sign_in(parameters, folder, tenant)
        return run(sample_command(copy_parameters(parameters, folder)), tenant.environment())


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
    parser.add_argument(
        "--users", type=parse_user_count, metavar="N", help="number of users in the tenant"
    )
    parser.add_argument(
        "--certificate", type=read_certificate, metavar="FILE", help="the app's certificate"
    )
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    return parser


def parse_user_count(text):
    """Return the text as a number. Raises ArgumentTypeError if it's negative or not a number."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("{!r} isn't a number of users".format(text))
    return int(text)


def read_certificate(path):
    """Return the certificate in the file as PEM. The file can be PEM, or DER as Windows exports it.

    Raises ArgumentTypeError if the file has no RSA certificate.
    """
    try:
        contents = Path(path).read_bytes()
        if b"-----BEGIN" in contents:
            certificate = x509.load_pem_x509_certificate(contents)
        else:
            certificate = x509.load_der_x509_certificate(contents)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError("{}: {}".format(path, error)) from None
    if not isinstance(certificate.public_key(), RSAPublicKey):
        raise argparse.ArgumentTypeError("{}: Entra needs an RSA key".format(path))
    return certificate.public_bytes(Encoding.PEM)


def list_scenarios():
    """Print the scenarios."""
    try:
        for name, scenario in SCENARIOS.items():
            print("{:26}{}".format(name, scenario.summary))
        sys.stdout.flush()
    except OSError:
        # The program that reads the pipe, such as head, has ended. Without this line, Python would
        # report an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def read_settings(path):
    """Return the settings in the file as a dict. It's empty if the file can't be read.

    The sample reports what is wrong with the file.
    """
    try:
        settings = json.loads(Path(path).read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(settings, dict):
        return {}
    return settings


def load(path):
    """Return the settings of the tenant that the file describes, with defaults for missing ones."""
    config = dict(PLACEHOLDERS, authority=DEFAULT_AUTHORITY, password=LOCAL_PASSWORD)
    settings = read_settings(path)
    for key in config:
        value = settings.get(key)
        if value and isinstance(value, str):
            config[key] = value
    return config


def replace_placeholders(config):
    """Return the settings with unknown values in place of placeholders.

    Entra then refuses the placeholders. Otherwise, an unfinished file would seem to work.
    """
    config = dict(config)
    for key, placeholder in PLACEHOLDERS.items():
        if config[key] == placeholder:
            config[key] = "not_" + placeholder
    return config


def copy_parameters(path, folder):
    """Return the path of the settings to run the sample with.

    If the settings name a token cache, this is the path of a copy in the folder, and the token
    cache is in that folder too. This keeps the made-up accounts out of the user's own token cache.
    """
    settings = read_settings(path)
    token_cache = settings.get("token_cache")
    if not token_cache or not isinstance(token_cache, str):
        return path
    settings["token_cache"] = Path(token_cache).name
    copy = Path(folder, Path(path).name)
    copy.write_text(json.dumps(settings), encoding="utf-8")
    return str(copy)


def sample_command(path):
    """Return the command that runs the sample with the settings in this file."""
    return [sys.executable, str(SAMPLE), path]


def run_from_saved_sign_in(parameters, folder, tenant):
    """Sign in once, run the sample again without a password, and return its exit status."""
    settings = dict(read_settings(parameters), token_cache="token_cache.json")
    path = Path(folder, Path(parameters).name)
    command = sample_command(str(path))
    env = tenant.environment()
    settings["password"] = tenant.directory.password
    path.write_text(json.dumps(settings), encoding="utf-8")
    subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True)
    del settings["password"]
    path.write_text(json.dumps(settings), encoding="utf-8")
    return run(command, env, stdin=subprocess.DEVNULL)  # Nobody can type a password.


def print_notes(parameters, command, directory):
    """Print what the user needs to know, if stderr is a terminal."""
    if not sys.stderr.isatty():
        return
    settings = read_settings(parameters or PARAMETERS)
    if settings and not settings.get("password"):
        text = 'The file has no password. The local tenant accepts the password "{}".'
        print(text.format(LOCAL_PASSWORD), file=sys.stderr)
    if parameters and not command:
        text = (
            "The local tenant can't check your real password, the consent, or MFA. Only Entra can."
        )
        print(text, file=sys.stderr)
    if command and Path(command[0]).stem.lower() in SHELLS and sys.stdin.isatty():
        text = "In this shell, {} and {} are the local tenant. Type exit to leave."
        print(text.format(directory.login, directory.graph), file=sys.stderr)


def run(command, env, stdin=None):
    """Run the command, and return its exit status: 127 if it can't be started.

    SIGTERM and SIGHUP also end the command.
    """
    process = None
    received = []

    def forward(signum, frame):
        if process is None:
            received.append(signum)
        else:
            end(process, signum)

    for name in ("SIGTERM", "SIGHUP"):
        signum = getattr(signal, name, None)  # Windows has no SIGHUP.
        # Under nohup, the command must keep ignoring SIGHUP.
        if signum and signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, forward)
    try:
        process = subprocess.Popen(command, env=env, stdin=stdin)
    except OSError as error:
        print("{}: {}".format(command[0], error.strerror), file=sys.stderr)
        return 127
    for signum in received:
        end(process, signum)
    while True:
        try:
            status = process.wait()
            break
        except KeyboardInterrupt:
            pass  # The command gets Ctrl+C too, and decides what to do.
    if status < 0:
        return 128 - status  # A signal ended the command. Shells return the same status.
    return status


def end(process, signum):
    """Send a signal to the process. If it doesn't end, kill it later."""
    process.send_signal(signum)
    timer = threading.Timer(GRACE_PERIOD, process.kill)
    timer.daemon = True
    timer.start()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
