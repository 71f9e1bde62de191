"""Compare the sample with a minimal program that does the same thing.

Prints the medians of several runs.

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

from local_tenant import load
from project import PARAMETERS, SAMPLE
from tenant import LocalTenant

BASELINE = """
import json, sys
import msal, requests

config = json.load(open(sys.argv[1]))
app = msal.PublicClientApplication(config["client_id"], authority=config["authority"])
accounts = app.get_accounts(username=config["username"])  # The sample sends this request too.
result = app.acquire_token_by_username_password(
    config["username"], config["password"], scopes=config["scope"])
session, users, next_link = requests.Session(), [], config["endpoint"]
while next_link:
    headers = {"Authorization": "Bearer " + result["access_token"]}
    page = session.get(next_link, headers=headers).json()
    users += page["value"]
    next_link = page.get("@odata.nextLink")
print(json.dumps(dict(page, value=users), indent=2, ensure_ascii=False))
"""

# The name, the number of users, the seconds before each answer, the endpoint's query, and the
# number of runs.
ROWS = [
    ("one page", 100, 0, "", 21),
    ("one page, 50 ms a request", 100, 0.05, "", 11),
    ("10,000 users", 10000, 0, "", 21),
    ("50,000 users", 50000, 0, "", 3),
    ("50,000 users, $top=999", 50000, 0, "?$top=999", 3),
]


def measure(program, parameters, env):
    """Run a program, and return its duration in seconds and, on POSIX, its peak memory in MB."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, program, parameters], env=env, stdout=subprocess.DEVNULL
    )
    if not hasattr(os, "wait4"):
        process.wait()
        return time.perf_counter() - start, float("nan")
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    # macOS reports bytes. Linux reports kilobytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return time.perf_counter() - start, usage.ru_maxrss * unit / 1e6


def compare(row, folder):
    """Return the median seconds and the peak memory of the sample and of the baseline."""
    _, users, delay, query, times = row
    baseline, parameters = Path(folder, "baseline.py"), Path(folder, "parameters.json")
    baseline.write_text(BASELINE, encoding="utf-8")
    settings = json.loads(PARAMETERS.read_text(encoding="utf-8"))
    settings["endpoint"] += query
    parameters.write_text(json.dumps(settings), encoding="utf-8")
    runs = {SAMPLE: [], baseline: []}
    with LocalTenant(load(PARAMETERS)) as tenant:
        tenant.directory.user_count, tenant.delay = users, delay
        for _ in range(times):
            for program in runs:
                runs[program].append(measure(program, parameters, tenant.environment()))
    seconds = [statistics.median(s for s, _ in runs[program]) for program in runs]
    memory = [max(mb for _, mb in runs[program]) for program in runs]
    return seconds, memory


def main():
    """Print the table."""
    print("{:28}{:>10}{:>11}{:>7}{:>12}{:>12}".format("", "sample", "baseline", "", "", "baseline"))
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            seconds, memory = compare(row, folder)
            ratio = seconds[0] / seconds[1]
            print(
                "{:28}{:8.3f} s{:9.3f} s{:7.2f}{:9.0f} MB{:9.0f} MB".format(
                    row[0], *seconds, ratio, *memory
                )
            )


if __name__ == "__main__":
    main()
