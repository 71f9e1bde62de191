"""stdout: one JSON document that is complete, readable, and written piece by piece. Also: -v."""

import json
import os
import subprocess

import pytest
from helpers import COLD_RUN, decode, document, posix, run_program
from tenant.messages import Answer
from tenant.scenarios import SCENARIOS


@pytest.mark.parametrize(
    "env", [{}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}], ids=["UTF-8", "ASCII"]
)
def test_document_is_indented_readable_utf8_in_any_locale(tenant, run, env):
    result = run(env=env)
    assert result == (0, document(tenant.graph.page()), "")
    assert '  "displayName": "Zoë Brontë"' in result.stdout


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
def test_full_disk_is_reported_in_one_line(tenant, run, users):
    tenant.directory.user_count = users
    with open("/dev/full", "wb") as full:
        result = run(stdout=full)
    assert result.status == 1
    assert "No space left on device" in result.stderr
    assert result.stderr.count("\n") == 1


@posix
def test_closed_stdout_is_reported_in_one_line(run):
    result = run(preexec_fn=lambda: os.close(1))
    assert result.status == 1
    assert "stdout" in result.stderr
    assert result.stderr.count("\n") == 1


@posix
@pytest.mark.parametrize("settings, status", [({"password": "wrong"}, 1), ({"scope": "a"}, 2)])
def test_error_does_not_go_to_stdout_if_stderr_is_closed(run, settings, status):
    assert run(preexec_fn=lambda: os.close(2), **settings) == (status, "", "")


def test_document_is_never_in_memory_as_one_string():
    program = """
import sys, tracemalloc
import username_password_sample as sample

answer = {"value": [{"displayName": "x" * 1000} for _ in range(20)] * 1000}
tracemalloc.start()
sample.print_json(answer)
sys.exit(tracemalloc.get_traced_memory()[1] > 2000000)
"""
    result = run_program(program)
    assert len(result.stdout) > 20000000
    assert result.status == 0


# -v


@pytest.mark.parametrize("scenario", ["unknown-tenant", "forbidden"])
def test_verbose_shows_the_traceback_of_an_error(tenant, run, scenario):
    SCENARIOS[scenario](tenant)
    result = run("-v")
    assert result.status == 1
    assert "Traceback (most recent call last):" in result.stderr


def test_verbose_shows_the_logs_of_msal_and_urllib3(tenant, run):
    result = run("--verbose")
    assert result.status == 0
    assert result.stdout.startswith("{")
    assert "https://login.microsoftonline.com:443" in result.stderr
    assert "get_accounts" in result.stderr
    assert tenant.steps() == COLD_RUN
