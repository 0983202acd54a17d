"""`headrace keys`: keys that the gateway takes, in a file that nobody else reads."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from headrace.cli.__main__ import main
from headrace.gateway.access_keys import ApiKeys
from headrace.gateway.access_policy import Permission


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["keys", *arguments])
    return int(str(ended.value.code))


def test_api_keys_are_added_and_only_their_hashes_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "keys" / "api_keys.toml"
    assert run("api-key", "checkout", "--file", str(file), "--permission", "predict", "--days", "2") == 0
    first = capsys.readouterr().out.strip()
    file.write_text("# who asked: Ann\n" + file.read_text())
    assert run("api-key", "batch", "--file", str(file)) == 0
    second = capsys.readouterr().out.strip()
    keys = ApiKeys.parse(file.read_bytes())
    found = keys.verify(first, time.time())
    assert found.name == "checkout"
    assert found.permissions == {Permission.PREDICT}
    assert 1.9 * 86_400 < found.expires_s - time.time() <= 2 * 86_400
    assert keys.verify(second, time.time()).permissions == set(Permission)
    text = file.read_text()
    assert "Ann" in text
    assert all(key.split("_", 2)[2] not in text for key in (first, second))
    assert file.stat().st_mode & 0o077 == 0
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("checkout", '[checkout]\nsha256 = "' + "0" * 64 + '"\n', "has a key checkout already"),
        ("Checkout", "", "'Checkout' is no name of a key"),
        ("checkout", "[", "api_keys.toml: no TOML"),
    ],
)
def test_mistakes_are_one_line(
    name: str, content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "api_keys.toml"
    file.write_text(content)
    assert run("api-key", name, "--file", str(file)) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert file.read_text() == content
