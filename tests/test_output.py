"""stdout: one JSON document that is complete, readable, and written piece by piece. Also: -v."""

import json
import os
import subprocess

import pytest
from helpers import decode, document, posix, read_terminal, run_program
from tenant.messages import Answer
from tenant.scenarios import SCENARIOS


@pytest.mark.parametrize(
    "env", [{}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}], ids=["UTF-8", "ASCII"]
)
def test_document_is_indented_readable_utf8_in_any_locale(tenant, run, env):
    assert "Zoë" in document(tenant.graph.page())
    assert run(env=env) == (0, document(tenant.graph.page()), "")


@posix
@pytest.mark.py27
def test_terminal_shows_the_label_first(tenant, start):
    import pty

    master, slave = pty.openpty()
    process = start(stdout=slave)
    os.close(slave)
    label, _, rest = read_terminal(master).partition("{")
    assert (process.wait(), label) == (0, "Users from graph: ")
    assert json.loads("{" + rest) == tenant.graph.page()


def test_unpaired_surrogate_stays_a_json_escape(tenant, run):
    tenant.replace("graph", Answer(200, b'{"value": [{"displayName": "\\ud83d"}]}'))
    result = run()
    assert (result.status, '"displayName": "\\ud83d"' in result.stdout) == (0, True)


@posix
@pytest.mark.py27
def test_closed_pipe_is_reported_in_one_line(tenant, start):
    tenant.directory.user_count = 2000
    process = start(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.readline() == b"{\n"
    process.stdout.close()
    stderr = decode(process.stderr.read())
    assert (process.wait(), stderr.count("\n"), "Broken pipe" in stderr) == (1, 1, True)


@posix
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("users", [1, 2000])
def test_full_disk_is_reported_in_one_line(tenant, run, users):
    tenant.directory.user_count = users
    with open("/dev/full", "wb") as full:
        result = run(stdout=full)
    assert (result.status, result.stderr.count("\n")) == (1, 1)
    assert "No space left on device" in result.stderr


@posix
def test_closed_stdout_is_reported_in_one_line(run):
    result = run(preexec_fn=lambda: os.close(1))
    assert (result.status, result.stderr.count("\n"), "stdout" in result.stderr) == (1, 1, True)


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
    assert (result.status, len(result.stdout) > 20000000) == (0, True)


def test_verbose_shows_the_logs_of_libraries_and_the_traceback_of_an_error(tenant, run):
    result = run("--verbose")
    assert (result.status, result.stdout) == (0, document(tenant.graph.page()))
    assert "https://login.microsoftonline.com:443" in result.stderr
    assert "get_accounts" in result.stderr
    SCENARIOS["forbidden"](tenant)
    assert "Traceback (most recent call last):" in run("-v").stderr
