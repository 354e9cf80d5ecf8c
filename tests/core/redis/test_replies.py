import pytest

from mxweir.redis.replies import error_of


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "full"),
        (
            "OOM command not allowed when used memory > 'maxmemory'. script: 1f, on @user_script:1.",
            "full",
        ),
        (
            "ERR Error running script (call to f_1f): @user_script: 1: -OOM command not allowed.",
            "full",
        ),
        (
            "MISCONF Redis is configured to save RDB snapshots, but it's unable to persist to disk.",
            "full",
        ),
        ("READONLY You can't write against a read only replica.", "read-only"),
        ("NOREPLICAS Not enough good replicas to write.", "read-only"),
        ("LOADING Redis is loading the dataset in memory", "loading"),
        ("BUSY Redis is busy running a script.", "busy"),
        ("NOAUTH Authentication required.", "refused"),
        ("WRONGPASS invalid username-password pair or user is disabled.", "refused"),
        ("NOPERM this user has no permissions to run the 'get' command", "refused"),
        ("DENIED Redis is running in protected mode", "refused"),
        ("CLUSTERDOWN Hash slot not served", "down"),
        ("MASTERDOWN Link with MASTER is down", "down"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "error"),
        ("ERR the value is -OOMPH ", "error"),
        ("", "error"),
    ],
)
def test_an_error_reply_is_of_a_kind(text, kind):
    assert error_of(text).kind == kind


def test_the_detail_of_an_error_is_short():
    error = error_of("ERR " + "x" * 1000)
    assert len(error.detail) == 200
    assert str(error) == f"error: {error.detail}"
