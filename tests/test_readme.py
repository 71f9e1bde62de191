"""What the README shows: commands, code, settings, output, tables, and every error.

test_jobs.py tests the programs and the job files. The prose isn't tested. Reviewers check it.
"""

import os
import re
import subprocess

import pytest
import readme
from helpers import (
    NO_WAITS,
    local_tenant_command,
    posix,
    result_of,
    run_on_terminal,
    sample,
    sample_command,
    shipped_tenant,
)
from local_tenant import load
from project import PARAMETERS, ROOT, SAMPLE
from readme import Clone, block, blocks, code, rows
from tenant import LocalTenant
from tenant.directory import PLACEHOLDERS
from tenant.scenarios import SCENARIOS

POWERSHELL = blocks("powershell")
SHELL = blocks("sh")
PYTHON = blocks("python")


def without_ids(text):
    """Return the text with each GUID and each time replaced with a fixed word."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<guid>", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<time>", text)


@pytest.fixture
def clone(tmp_path):
    """A clone for the shell blocks."""
    if os.name != "posix":
        pytest.skip("needs POSIX")
    return Clone(tmp_path / "clone")


# Blocks and links


@pytest.mark.parametrize("name", POWERSHELL)
def test_powershell_block_has_the_syntax_of_windows_powershell_5(name):
    import tree_sitter
    import tree_sitter_powershell

    language = tree_sitter.Language(tree_sitter_powershell.language())
    tree = tree_sitter.Parser(language).parse(POWERSHELL[name].encode())
    assert not tree.root_node.has_error
    # Windows PowerShell 5.1 has neither && nor ||. Strings can have them, for cmd.
    commands = re.sub(r"@'\n.*?\n'@|'[^'\n]*'", "", POWERSHELL[name], flags=re.S)
    assert not re.search(r"&&|\|\|", commands)


@posix
@pytest.mark.parametrize("name", SHELL)
def test_shell_block_has_no_syntax_errors(name):
    subprocess.run(["bash", "-n", "-c", SHELL[name]], check=True)


def test_powershell_installs_the_same_packages_as_the_shell():
    install = re.compile(r"-m pip install (.*)")
    packages = install.findall(block("linux-install"))
    assert packages == install.findall(block("windows-install", "powershell")) != []


def test_workflow_runs_the_powershell_block_that_a_newcomer_pastes():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    lines = {line.strip() for line in workflow.splitlines()}
    assert set(block("try-it", "powershell").splitlines()) <= lines


def test_local_links_and_anchors_exist():
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", readme.PROSE, re.M)
    }
    links = re.findall(r"\]\((?!https://)([^)]+)\)", readme.PROSE)
    files = [link for link in links if not link.startswith("#")]
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    assert [name for name in files if not (ROOT / name).exists()] == []


# Commands


@pytest.mark.parametrize("output, command", [("first-screen", "try-it"), ("try-mfa", "try-mfa")])
def test_terminal_shows_what_the_readme_shows(clone, output, command):
    argv = clone.command(block(command).splitlines()[-1])
    _, printed = run_on_terminal(argv, **clone.options())
    assert without_ids(printed).startswith(without_ids(block(output, "text")))


def settings_in_the_readme():
    """Yield the settings that the README shows, each with a name."""
    yield "as it is", {}
    yield "example", readme.settings("example")
    (row,) = [row for row in rows("Setting") if row[0] == "`endpoint`"]
    yield "one account", {"endpoint": code(row[2])[0], "scope": ["User.Read"]}
    for name, *cells in rows("Cloud"):
        authority, endpoint = [code(cell)[0] for cell in cells]
        authority = authority.replace("…", "our_tenant.com")
        yield name, {"authority": authority, "endpoint": endpoint.replace("…", "v1.0/users")}


SETTINGS = dict(settings_in_the_readme())


@pytest.mark.parametrize("changes", SETTINGS.values(), ids=SETTINGS)
def test_settings_in_the_readme_pass_the_check(clone, changes):
    clone.configure(**changes)
    result = clone.run(block("check-settings"))
    assert (result.status, result.stderr) == (0, "")


@pytest.mark.parametrize("key", PLACEHOLDERS)
def test_placeholder_does_not_pass_the_check(clone, key):
    clone.configure(**{key: PLACEHOLDERS[key]})
    assert clone.run(block("check-settings")).status == 1


# Settings and output


def test_settings_table_lists_every_setting_of_the_sample():
    table = {code(row[0])[0]: row[1] for row in rows("Setting")}
    assert table == {
        **dict.fromkeys(sample.REQUIRED_SETTINGS, "required"),
        **dict.fromkeys(sample.OPTIONAL_SETTINGS, "optional"),
    }


def test_basic_profile_has_the_properties_that_the_readme_lists():
    (basic,) = [row for row in rows("You want") if "User.ReadBasic.All" in row[1]]
    user = shipped_tenant().graph.page()["value"][0]
    assert set(code(basic[0])) == {key for key, value in user.items() if value}


@pytest.mark.parametrize("changes", [{}, {"password": "wrong"}, {"scope": "a"}], ids=str)
def test_exit_status_table_matches_the_sample(run, changes):
    result = run(**changes)
    table = rows("Exit status")
    assert [row[0] for row in table] == ["0", "1", "1", "2", "130"]
    first, *_ = [row for row in table if row[0] == str(result.status)]
    assert first[2].startswith("Empty") == (result.stdout == "")
    assert first[3].startswith("Empty") == (result.stderr == "")


def test_paragraph_about_retries_has_the_numbers_of_the_sample():
    text = re.search(r"<!-- retries -->\n+(.*?)\n\n", readme.PROSE, re.S).group(1)
    numbers = {int(number) for number in re.findall(r"\d+", text)}
    assert numbers == {
        *sample.TRANSIENT_STATUSES,
        *sample.RETRY_WAITS,
        sample.TIMEOUT[1],
        sample.MAX_RETRY_AFTER,
    }
    words = ["no", "one", "two", "three", "four", "five", "six"]
    assert "{} times".format(words[len(sample.RETRY_WAITS)]) in text


def test_readme_lists_the_hosts_that_a_run_connects_to(tenant, run):
    tenant.entra.realm = "Federated"
    assert run().status == 0
    hosts = {code(row[0])[0] for row in rows("Host")}
    assert {host + ":443" for host in hosts} == set(tenant.server.connections)


# About the code


@pytest.mark.parametrize("name", [name for name in PYTHON if name.startswith("line ")])
def test_quoted_code_is_in_the_sample(name):
    source = "\n".join(line.strip() for line in SAMPLE.read_text(encoding="utf-8").splitlines())
    quoted = "\n".join(line.strip() for line in PYTHON[name].strip().splitlines())
    assert quoted in source


def test_quoted_scope_is_in_the_shipped_file():
    assert block("scope", "json").strip() in PARAMETERS.read_text(encoding="utf-8")


# Errors

ERRORS = rows("You see")
CODES = [word for row in ERRORS for word in code(row[0]) if re.fullmatch(r"AADSTS\d+", word)]
NAMED = [cause for row in ERRORS for cause in code(row[3]) if not cause.startswith('"')]


def test_every_failing_scenario_is_in_a_row_of_a_troubleshooting_table():
    failing = {name for name, scenario in SCENARIOS.items() if not scenario.succeeds}
    assert failing <= set(NAMED + CODES)


def error_message(command, tenant):
    """Run the command, which fails, in the tenant. Return what it prints to stderr."""
    with tenant:
        status, stdout, stderr = result_of(command, env=tenant.environment())
    assert (status in (1, 2), stdout, "Traceback" in stderr) == (True, "", False), stderr
    return stderr


def run_scenario(name):
    """Run the sample in this scenario without waits, and return its error message."""
    tenant = shipped_tenant()
    if SCENARIOS[name].saved_sign_in:
        return error_message(local_tenant_command("--scenario", name), tenant)
    SCENARIOS[name](tenant)
    return error_message(sample_command(str(PARAMETERS), constants=NO_WAITS), tenant)


def run_mistake(mistake, tmp_path):
    """Run the sample with this line in its parameters file, and return its error message."""
    text = PARAMETERS.read_text(encoding="utf-8").replace("your_", "our_")
    config = {key: value.replace("your_", "our_") for key, value in load(PARAMETERS).items()}
    line = re.compile("^  {}.*?(,?)$".format(mistake.partition(":")[0]), re.M)
    if line.search(text):
        text = line.sub(lambda match: "  " + mistake + match.group(1), text)
    else:
        text = text.replace("{", "{ " + mistake + ",")
    path = tmp_path / "parameters.json"
    path.write_text(text, encoding="utf-8")
    return error_message(sample_command(str(path), constants=NO_WAITS), LocalTenant(config))


@pytest.mark.parametrize("row", ERRORS, ids=lambda row: row[3].replace("`", ""))
def test_each_cause_in_a_troubleshooting_row_shows_a_word_from_that_row(tmp_path, row):
    words, causes = code(row[0]), code(row[3])
    messages = [
        run_mistake(cause, tmp_path) if cause.startswith('"') else run_scenario(cause)
        for cause in causes
    ]
    for message in messages:
        assert any(word in message for word in words), message
    unseen = [word for word in words if not any(word in message for message in messages)]
    assert [word for word in unseen if word not in CODES] == []


@pytest.mark.parametrize("name", CODES)
def test_each_code_is_a_scenario(name):
    assert name in run_scenario(name)
