"""What waits for real: silence, Retry-After, a Graph that stays busy.

All of it waits side by side: each case has its own tenant, and all are started together.
"""

import collections
import json
import subprocess
import time

import pytest
import trustme
from conftest import CALL_FAILED, NO_SIGN_IN, SAMPLE_PYTHON, shipped_tenant
from local_tenant import PARAMETERS, SAMPLE
from tenant.proxy import HANG_UP, SILENCE
from tenant.scenarios import SCENARIOS

# One worker has them all, so that they are started once.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("waiting")]

Ended = collections.namedtuple("Ended", "tenant status stdout stderr")
SIGN_IN_STEPS = ["discovery", "instance", "realm", "wstrust", "token"]


def silent(step):
    """Return a change of a tenant: one step says nothing."""

    def change(tenant):
        tenant.entra.realm = "Federated" if step == "wstrust" else "Managed"
        tenant.replace(step, SILENCE)

    return change


def unreachable(tenant):
    """The proxy leads nowhere for Graph."""
    tenant.proxy.silent_hosts.add(tenant.directory.graph)


def breaking(tenant):
    """Graph hangs up each time."""
    tenant.replace("graph", HANG_UP)


def untrusted(tenant):
    """Graph shows a certificate of an authority that is not known, Entra one that is."""
    tenant.proxy.context(tenant.directory.login)
    tenant.proxy.authority = trustme.CA()


def busy(status):
    """Return a change of a tenant: Graph stays busy, without a Retry-After."""

    def change(tenant):
        tenant.replace("graph", tenant.graph.error(status, "Busy", "Come back later."))

    return change


def throttled(tenant):
    """Note when the requests come, too."""
    SCENARIOS["throttled"](tenant)
    tenant.arrived, answer = [], tenant.answer
    tenant.proxy.answer = lambda request: tenant.arrived.append(time.monotonic()) or answer(request)


CASES = {
    **{"silent " + step: silent(step) for step in [*SIGN_IN_STEPS, "graph"]},
    **{"busy {}".format(status): busy(status) for status in (429, 503, 504)},
    "unreachable": unreachable,
    "breaking": breaking,
    "untrusted": untrusted,
    "throttled": throttled,
}


@pytest.fixture(scope="module")
def started():
    """Start all cases, and give each one's tenant and process."""
    started = {}
    for name, change in CASES.items():
        tenant = shipped_tenant()
        tenant.__enter__()
        change(tenant)
        process = subprocess.Popen(
            [SAMPLE_PYTHON, str(SAMPLE), str(PARAMETERS)],
            env=tenant.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started[name] = tenant, process
    yield started
    for tenant, process in started.values():
        process.kill()
        process.communicate()
        tenant.__exit__()


@pytest.fixture
def ended(started):
    """Return a function that waits for a case, and gives its tenant and what it printed."""

    def ended(name):
        tenant, process = started[name]
        stdout, stderr = process.communicate(timeout=200)
        return Ended(tenant, process.returncode, stdout.decode(), stderr.decode())

    return ended


@pytest.mark.parametrize("step", SIGN_IN_STEPS)
def test_a_silent_sign_in_service_is_asked_once(ended, step):
    tenant, status, stdout, stderr = ended("silent " + step)
    assert (status, stdout) == (1, "")
    assert stderr.startswith(NO_SIGN_IN)
    assert "timed out" in stderr.lower()
    if step in ("token", "wstrust"):
        assert tenant.steps().count(step) == 1


def test_a_silent_graph_is_asked_four_times(ended):
    tenant, status, stdout, stderr = ended("silent graph")
    assert (status, stdout) == (1, "")
    assert stderr.startswith(CALL_FAILED)
    assert "timed out" in stderr.lower()
    assert tenant.steps().count("graph") == 4


def test_a_proxy_that_leads_nowhere_is_tried_four_times(ended):
    tenant, status, stdout, stderr = ended("unreachable")
    assert (status, stdout) == (1, "")
    assert stderr.startswith(CALL_FAILED)
    assert tenant.proxy.connections.count(tenant.directory.graph) == 4


def test_a_connection_that_breaks_and_breaks_is_told(ended):
    tenant, status, stdout, stderr = ended("breaking")
    assert (status, stdout) == (1, "")
    assert stderr.startswith(CALL_FAILED)
    assert tenant.steps().count("graph") == 4
    assert tenant.grants() == ["password"]


def test_an_untrusted_certificate_of_graph_gets_no_token(ended):
    tenant, status, stdout, stderr = ended("untrusted")
    assert (status, stdout) == (1, "")
    assert stderr.startswith(CALL_FAILED)
    assert "CERTIFICATE_VERIFY_FAILED" in stderr
    assert "graph" not in tenant.steps()


@pytest.mark.parametrize("status", [429, 503, 504])
def test_a_graph_that_stays_busy_is_asked_four_times_and_then_shown(ended, status):
    tenant, exit_status, stdout, stderr = ended("busy {}".format(status))
    assert (exit_status, stdout) == (1, "")
    assert '"message": "Come back later."' in stderr
    assert tenant.steps().count("graph") == 4


def test_retry_after_is_waited_for(ended):
    tenant, status, stdout, stderr = ended("throttled")
    assert (status, stderr) == (0, "")
    assert json.loads(stdout) == tenant.graph.page()
    first, second, third = tenant.arrived[-3:]
    assert min(second - first, third - second) >= 2
