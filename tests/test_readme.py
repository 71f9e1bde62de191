"""What the README shows: commands, code, settings, output, tables, and every error.

test_jobs.py tests the programs and the job files. The prose isn't tested. Reviewers check it.
"""

import json
import os
import re
import subprocess

import pytest
import readme
from helpers import (
    NO_WAITS,
    decode,
    local_tenant_command,
    posix,
    run_on_terminal,
    sample,
    sample_command,
    shipped_tenant,
)
from local_tenant import load
from project import PARAMETERS, ROOT, SAMPLE
from readme import Clone, block, blocks, code, rows
from tenant import LocalTenant
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
def test_powershell_block_has_no_syntax_errors(name):
    import tree_sitter
    import tree_sitter_powershell

    language = tree_sitter.Language(tree_sitter_powershell.language())
    tree = tree_sitter.Parser(language).parse(POWERSHELL[name].encode())
    assert not tree.root_node.has_error


@pytest.mark.parametrize("name", POWERSHELL)
def test_powershell_block_works_in_windows_powershell_5(name):
    # Windows PowerShell 5.1 has neither && nor ||. Strings can have them, for cmd.
    commands = re.sub(r"@'\n.*?\n'@|'[^'\n]*'", "", POWERSHELL[name], flags=re.S)
    assert not re.search(r"&&|\|\|", commands)


@posix
@pytest.mark.parametrize("name", SHELL)
def test_shell_block_has_no_syntax_errors(name):
    subprocess.run(["bash", "-n", "-c", SHELL[name]], check=True)


@pytest.mark.parametrize("name", PYTHON)
def test_python_block_has_no_syntax_errors(name):
    compile(re.sub(r":\n\Z", ": pass\n", PYTHON[name]), name, "exec")


def test_powershell_installs_the_same_packages_as_the_shell():
    for one, other in [("try-it", "try-it"), ("linux-install", "windows-install")]:
        installs = [
            re.findall(r"-m pip install (.*)", text)
            for text in (block(one), block(other, "powershell"))
        ]
        assert installs[0] == installs[1] != []


def test_workflow_runs_the_powershell_block_that_a_newcomer_pastes():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    lines = {line.strip() for line in workflow.splitlines()}
    assert set(block("try-it", "powershell").splitlines()) <= lines


def test_local_links_and_anchors_exist():
    anchors = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        for title in readme.HEADING.findall(readme.PROSE)
    }
    links = re.findall(r"\]\(([^)]+)\)", readme.PROSE)
    broken = [
        link
        for link in links
        if not link.startswith("https://")
        and not (link[1:] in anchors if link.startswith("#") else (ROOT / link).exists())
    ]
    assert links
    assert broken == []


# Commands


@pytest.mark.parametrize("output, command", [("first-screen", "try-it"), ("try-mfa", "try-mfa")])
def test_terminal_shows_what_the_readme_shows(clone, output, command):
    argv = clone.command(block(command).splitlines()[-1])
    _, printed = run_on_terminal(argv, **clone.options())
    assert without_ids(printed).startswith(without_ids(block(output, "text")))


def test_settings_that_pass_the_check_work_in_a_run(clone):
    clone.configure()
    checked = clone.run(block("check-settings"))
    assert (checked.returncode, checked.stderr) == (0, b"")
    with clone.tenant() as tenant:
        done = clone.run(block("run"), tenant)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "change, word",
    [
        ({"client_id": "your_client_id"}, "AADSTS700016"),
        ({"username": "your_username@your_tenant.com"}, "AADSTS50034"),
        ({"password": "your_password"}, "AADSTS50126"),
        ({"scope": ["User.ReadBasicAll"]}, "AADSTS650053"),
        ({"endpoint": "https://graph.microsoft.com/v1.0/users?$select=departmnt"}, "departmnt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_check_of_the_settings_finds_mistakes(clone, change, word):
    clone.configure(**change)
    done = clone.run(block("check-settings"))
    assert done.returncode != 0
    assert word in decode(done.stderr)


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


@pytest.mark.parametrize("with_filter", [True, False], ids=["filter", "no filter"])
def test_example_lists_the_expected_properties_of_the_expected_users(clone, with_filter):
    config = readme.settings("example")
    if not with_filter:
        config["endpoint"] = config["endpoint"].partition("&$filter")[0]
    clone.configure(**config)
    users = json.loads(clone.run(block("check-settings")).stdout)["value"]
    assert set(users[0]) == {"displayName", "userPrincipalName", "department"}
    assert users[0]["department"]
    assert len(users) == (3 if with_filter else 5)


def test_me_shows_only_the_account_that_signs_in(clone):
    (row,) = [row for row in rows("Setting") if row[0] == "`endpoint`"]
    clone.configure(endpoint=code(row[2])[0], scope=["User.Read"])
    done = clone.run(block("check-settings"))
    assert json.loads(done.stdout)["mail"] == "our_username@our_tenant.com"


@pytest.mark.parametrize("row", rows("Cloud"), ids=lambda row: row[0])
def test_national_cloud_works(clone, row):
    authority, endpoint = [code(cell)[0] for cell in row[1:]]
    clone.configure(
        authority=authority.replace("…", "our_tenant.com"),
        endpoint=endpoint.replace("…", "v1.0/users"),
    )
    done = clone.run(block("check-settings"))
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "changes",
    [{}, {"password": "wrong"}, {"scope": "User.ReadBasic.All"}],
    ids=["success", "wrong password", "wrong setting"],
)
def test_exit_status_table_matches_the_sample(run, changes):
    result = run(**changes)
    table = rows("Exit status")
    assert [row[0] for row in table] == ["0", "1", "1", "2", "130"]
    first, *_ = [row for row in table if row[0] == str(result.status)]
    assert first[2].startswith("Empty") == (result.stdout == "")
    assert first[3].startswith("Empty") == (result.stderr == "")


def test_paragraph_about_retries_has_the_numbers_of_the_sample():
    text = readme.paragraph("retries")
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
        done = subprocess.run(
            command,
            env=tenant.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=100,
        )
    stderr = decode(done.stderr)
    assert done.returncode in (1, 2), stderr
    assert done.stdout == b""
    assert "Traceback" not in stderr
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
    messages = []
    for number, cause in enumerate(causes):
        if cause.startswith('"'):
            folder = tmp_path / str(number)
            folder.mkdir()
            messages.append(run_mistake(cause, folder))
        else:
            messages.append(run_scenario(cause))
    for message in messages:
        assert any(word in message for word in words), message
    unseen = [word for word in words if not any(word in message for message in messages)]
    assert [word for word in unseen if word not in CODES] == []


@pytest.mark.parametrize("name", CODES)
def test_each_code_is_a_scenario(name):
    assert name in run_scenario(name)
