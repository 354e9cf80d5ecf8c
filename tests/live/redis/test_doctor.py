"""`mxweir doctor` looks whether Redis lets us in."""

import json

import pytest

from mxweir_ops.cli import main


@pytest.fixture
def doctor(tmp_path, capsys):
    def run(url, more=""):
        file = tmp_path / "mxweir.toml"
        file.write_text(f'[policyd]\ndeadline = "30s"\n[redis]\nurl = "{url}"\ntimeout = "10s"\n{more}')
        status = main(["doctor", "--config", str(file), "--only", "redis", "--json"])
        (line,) = capsys.readouterr().out.splitlines()
        found = json.loads(line)
        return status, found["state"], f"{found['subject']}: {found['what']}"

    return run


def test_one_that_lets_us_in_is_good_and_how_long_it_takes_is_told(doctor, redis):
    status, state, text = doctor(redis.guarded_url)
    assert (status, state) == (0, "good")
    assert "answers in" in text
    assert redis.cli("DBSIZE") == 0


def test_one_that_is_not_there_is_bad(doctor, redis):
    redis.stop()
    status, state, text = doctor(redis.url)
    assert (status, state) == (1, "bad")
    assert str(redis.inet) in text


def test_a_wrong_password_and_a_prefix_that_is_not_ours_are_bad_and_no_password_is_shown(doctor, redis):
    status, state, text = doctor(redis.guarded_url.replace("lab%20password", "hunter2"))
    assert (status, state) == (1, "bad")
    assert "WRONGPASS" in text
    assert "hunter2" not in text
    status, state, text = doctor(redis.guarded_url, 'prefix = "other"\n')
    assert (status, state) == (1, "bad")
    assert "NOPERM" in text
