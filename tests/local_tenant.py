# /// script
# requires-python = ">=3.9"
# dependencies = ["msal>=1.27,<2", "requests>=2.27,<3", "trustme>=1.1"]
# ///
"""Run the sample, or a COMMAND, against a Microsoft 365 tenant on this machine.

    python tests/local_tenant.py                             the sample as it is shipped
    python tests/local_tenant.py --parameters FILE           the sample with a file of your own
    python tests/local_tenant.py --scenario wrong-password   rehearse a failure
    python tests/local_tenant.py bash                        a shell, for anything else

The tenant is that of the parameters file: it knows its user, password, app and tenant. What runs
finds it by the proxy and CA variables and makes its real requests to the real host names; nothing
that honours those variables leaves this machine.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from tenant import LocalTenant
from tenant.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "username_password_sample.py"
PARAMETERS = ROOT / "parameters.json"
SHELLS = {"bash", "cmd", "dash", "fish", "ksh", "powershell", "pwsh", "sh", "zsh"}


def load(path):
    """Return the settings in the file; the shipped ones stand for what it lacks.

    A file that cannot be read is as an empty one: the sample will say what is wrong with it.
    """
    config = json.loads(PARAMETERS.read_bytes())
    try:
        own = json.loads(Path(path).read_bytes())
        config.update(
            {key: own[key] for key in config if isinstance(own.get(key), str) and own[key]}
        )
    except (AttributeError, OSError, ValueError):
        pass
    return config


def greeting(directory, path):
    """Return what a shell says first; the password is named if it is the shipped one."""
    password = "the one in the file"
    if directory.password == load(PARAMETERS)["password"]:
        password = '"{}"'.format(directory.password)
    elif directory.password != load(path)["password"]:
        password = "another one"
    return (
        "In this shell, {0.login} and {0.graph} are a tenant on this machine, and nothing else is"
        " there. It knows the app and the user of {1}; the password is {2}. Type exit to leave."
    ).format(directory, path, password)


def run(command, env):
    """Run the command to its end and return its exit status, or 127 if it cannot be started."""
    try:
        process = subprocess.Popen(command, env=env)
    except OSError as error:
        print("{}: {}".format(command[0], error.strerror), file=sys.stderr)
        return 127
    while True:
        try:
            status = process.wait()
            return status if status >= 0 else 128 - status
        except KeyboardInterrupt:  # It is for the command, which has got it too.
            pass


def main():
    """Run the command line, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--parameters", default=str(PARAMETERS), metavar="FILE", help="whose tenant it is"
    )
    parser.add_argument("--scenario", choices=SCENARIOS, metavar="NAME", help="what to rehearse")
    parser.add_argument("--users", type=int, metavar="N", help="how many users the tenant has")
    parser.add_argument("--list", action="store_true", help="name the scenarios")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    args = parser.parse_args()
    if args.list:
        for name, change in SCENARIOS.items():
            print("{:26}{}".format(name, change.__doc__))
        return 0
    if args.command and not Path(args.parameters).is_file():
        parser.error("{}: no such file".format(args.parameters))
    tenant = LocalTenant(load(args.parameters))
    if args.scenario:
        SCENARIOS[args.scenario](tenant)
    if args.users is not None:
        tenant.directory.size = args.users
    command = args.command or [sys.executable, str(SAMPLE), args.parameters]
    with tenant:
        if Path(command[0]).stem.lower() in SHELLS and sys.stdin.isatty() and sys.stderr.isatty():
            print(greeting(tenant.directory, args.parameters), file=sys.stderr)
        return run(command, tenant.environment())


if __name__ == "__main__":
    sys.exit(main())
