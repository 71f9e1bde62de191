"""Measure the sample beside the least loop that does its job, in one run, in turn: medians.

python tests/benchmark.py
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from local_tenant import PARAMETERS, SAMPLE, load
from tenant import LocalTenant

BASELINE = """
import json, sys
import msal, requests

config = json.load(open(sys.argv[1]))
app = msal.PublicClientApplication(config["client_id"], authority=config["authority"])
accounts = app.get_accounts(username=config["username"])  # As the seed does: it is a request.
result = app.acquire_token_by_username_password(
    config["username"], config["password"], scopes=config["scope"])
session, users, link = requests.Session(), [], config["endpoint"]
while link:
    headers = {"Authorization": "Bearer " + result["access_token"]}
    page = session.get(link, headers=headers).json()
    users += page["value"]
    link = page.get("@odata.nextLink")
print(json.dumps(dict(page, value=users), indent=2, ensure_ascii=False))
"""

# What is measured, users, seconds before each answer, the endpoint's end, and how often.
ROWS = [
    ("one page", 100, 0, "", 21),
    ("one page, 50 ms a request", 100, 0.05, "", 11),
    ("10,000 users", 10000, 0, "", 7),
    ("50,000 users", 50000, 0, "", 3),
    ("50,000 users, $top=999", 50000, 0, "?$top=999", 3),
]


def measure(script, parameters, env):
    """Return the seconds that a run of the script takes, and its peak memory in MB (POSIX)."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, script, parameters], env=env, stdout=subprocess.DEVNULL
    )
    if not hasattr(os, "wait4"):
        process.wait()
        return time.perf_counter() - start, float("nan")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts in bytes, others in kB.
    return time.perf_counter() - start, usage.ru_maxrss * unit / 1e6


def main():
    """Print the table."""
    config = json.loads(PARAMETERS.read_text(encoding="utf-8"))
    print("{:28}{:>10}{:>10}{:>8}{:>12}{:>12}".format("", "script", "baseline", "", "", "baseline"))
    with tempfile.TemporaryDirectory() as folder:
        baseline, parameters = Path(folder, "baseline.py"), Path(folder, "parameters.json")
        baseline.write_text(BASELINE, encoding="utf-8")
        for name, users, delay, end, times in ROWS:
            parameters.write_text(json.dumps(dict(config, endpoint=config["endpoint"] + end)))
            runs = []
            with LocalTenant(load(PARAMETERS)) as tenant:
                tenant.directory.size, tenant.delay = users, delay
                for _ in range(times):
                    for script in (SAMPLE, baseline):
                        runs.append(measure(script, parameters, tenant.environment()))
            seconds = [statistics.median(s for s, _ in runs[i::2]) for i in (0, 1)]
            memory = [max(mb for _, mb in runs[i::2]) for i in (0, 1)]
            print(
                "{:28}{:8.3f} s{:8.3f} s{:8.2f}{:9.0f} MB{:9.0f} MB".format(
                    name, *seconds, seconds[0] / seconds[1], *memory
                )
            )


if __name__ == "__main__":
    main()
