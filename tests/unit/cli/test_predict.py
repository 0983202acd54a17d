"""What `headrace predict` says of a call that cannot be made."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.cli.__main__ import main

EVENT = ["--event-id", "p1", "customer_id=17"]


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "--event-id is needed for one event, --input for a file of events"),
        (["--input", "events.csv", "customer_id=17"], "--input does not go with FIELD, --event-id, --time"),
        (["--input", "missing.csv"], "UNAVAILABLE"),
        ([*EVENT, "--time", "noon"], "--time 'noon' is not an ISO 8601 time"),
        ([*EVENT, "--override", "night"], "'night' is not NAME=VALUE"),
        ([*EVENT, "--target", "gateway"], "'gateway' is not an address: write host:port"),
        ([*EVENT, "--target", "gateway.example:1", "--api-key-file", "KEY"], "over TLS only"),
        ([*EVENT, "--tls-certificate", "KEY"], "TLS: a client certificate and its key come together"),
        ([*EVENT, "--tls-ca", "KEY"], "KEY is not PEM"),
        ([*EVENT, "--token-file", "EMPTY"], "EMPTY has no token: one line of ASCII text is expected"),
        ([*EVENT, "--token-file", "nowhere"], "File 'nowhere' does not exist"),
        ([*EVENT, "--timeout", "0"], "0.0 is not in the range x>0"),
    ],
)
def test_it_is_one_line_and_status_2(
    arguments: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("KEY").write_text("secret")
    Path("EMPTY").write_text("\n")
    # Nothing listens there.
    target = [] if "--target" in arguments else ["--target", "127.0.0.1:1", "--timeout", "5"]
    with pytest.raises(SystemExit) as ended:
        main(["predict", *target, *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert what in said.err
    assert "secret" not in said.err
    assert said.err.count("\n") == 1
