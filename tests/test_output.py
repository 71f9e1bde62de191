"""stdout: one JSON document that is complete, readable, and written piece by piece. Also: -v."""

import json
import os
import subprocess

import pytest
from helpers import CALL_FAILED, COLD_RUN, SAMPLE_PYTHON, decode, document, posix, sample_command
from local_tenant import PARAMETERS
from tenant.messages import Answer
from tenant.scenarios import SCENARIOS


@pytest.mark.parametrize("env", [{}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}])
def test_document_is_indented_readable_utf8_in_any_locale(tenant, run, env):
    result = run(env=env)
    assert result == (0, document(tenant.graph.page()), "")
    assert '  "displayName": "Zoë Brontë"' in result.stdout


@pytest.mark.py27
def test_document_contains_everything_that_graph_sent(tenant, run):
    result = run()
    assert (result.status, json.loads(result.stdout)) == (0, tenant.graph.page())


@posix
@pytest.mark.py27
def test_terminal_shows_the_label_first(tenant, print_to_terminal):
    result = print_to_terminal()
    label, _, rest = result.stdout.partition("{")
    assert (result.status, label) == (0, "Users from graph: ")
    assert json.loads("{" + rest) == tenant.graph.page()


def test_unpaired_surrogate_stays_a_json_escape(tenant, run):
    tenant.replace("graph", Answer(200, b'{"value": [{"displayName": "\\ud83d"}]}'))
    result = run()
    assert result.status == 0
    assert '"displayName": "\\ud83d"' in result.stdout


@posix
@pytest.mark.py27
def test_closed_pipe_is_reported_in_one_line(tenant, start):
    tenant.directory.user_count = 2000
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"{\n"
    process.stdout.close()
    stderr = decode(process.stderr.read())
    assert process.wait() == 1
    assert "Broken pipe" in stderr
    assert stderr.count("\n") == 1


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("users", [1, 2000])
def test_full_disk_is_reported_in_one_line(tenant, start, users):
    tenant.directory.user_count = users
    with open("/dev/full", "wb") as full:
        process = start(stdout=full, stderr=subprocess.PIPE)
        stderr = decode(process.stderr.read())
    assert process.wait() == 1
    assert "No space left on device" in stderr
    assert stderr.count("\n") == 1


@posix
def test_closed_stdout_is_reported_in_one_line(start):
    process = start(stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    stderr = decode(process.stderr.read())
    assert process.wait() == 1
    assert "stdout" in stderr
    assert stderr.count("\n") == 1


@posix
@pytest.mark.parametrize("settings, status", [({"password": "wrong"}, 1), ({"scope": "a"}, 2)])
def test_error_does_not_go_to_stdout_if_stderr_is_closed(start, settings, status):
    process = start(stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2), **settings)
    assert process.stdout.read() == b""
    assert process.wait() == status


def test_document_is_never_in_memory_as_one_string():
    program = """
import sys, tracemalloc
import username_password_sample as sample

answer = {"value": [{"displayName": "x" * 1000} for _ in range(20)] * 1000}
tracemalloc.start()
sample.print_json(answer)
sys.exit(tracemalloc.get_traced_memory()[1] > 2000000)
"""
    done = subprocess.run(
        [SAMPLE_PYTHON, "-W", "ignore", "-c", program],
        cwd=str(PARAMETERS.parent),
        stdout=subprocess.PIPE,
    )
    assert len(done.stdout) > 20000000
    assert done.returncode == 0


@posix
def test_nothing_is_printed_before_everything_is_read(tenant, start):
    tenant.directory.user_count = 300
    page = tenant.graph.on_graph
    refusal = tenant.graph.error(403, "Authorization_RequestDenied", "No more.")
    tenant.replace("graph", page, page, refusal)
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    stdout, stderr = process.communicate()
    assert (process.returncode, stdout) == (1, b"")
    assert decode(stderr).startswith(CALL_FAILED)


@posix
def test_output_can_be_piped_to_head_and_json_tool(tenant):
    command = " ".join(sample_command(str(PARAMETERS)))
    for pipe, expected in [("head -1", "{\n"), ("python3 -m json.tool --no-ensure-ascii", None)]:
        done = subprocess.run(
            "{} 2>/dev/null | {}".format(command, pipe),
            shell=True,
            env=tenant.environment(),
            capture_output=True,
        )
        assert done.returncode == 0
        if expected:
            assert decode(done.stdout) == expected
        else:
            assert json.loads(done.stdout) == tenant.graph.page()


# -v


@pytest.mark.parametrize("scenario", ["unknown-tenant", "forbidden"])
def test_verbose_shows_the_traceback_of_an_error(tenant, run, scenario):
    SCENARIOS[scenario](tenant)
    result = run("-v")
    assert result.status == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert ("AADSTS90002" in result.stderr) == (scenario == "unknown-tenant")


def test_verbose_shows_the_logs_of_msal_and_urllib3(tenant, run):
    result = run("--verbose")
    assert result.status == 0
    assert result.stdout.startswith("{")
    assert "https://login.microsoftonline.com:443" in result.stderr
    assert "get_accounts" in result.stderr
    assert tenant.steps() == COLD_RUN
