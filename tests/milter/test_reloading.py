from mxweir.config import loads
from mxweir_milter.reloading import in_force

REDIS = '[redis]\nurl = "redis://127.0.0.1:1"\n'


def test_what_needs_a_restart_is_named_and_what_counts_in_redis_stays_as_it_was():
    running = loads(REDIS)
    new = loads(
        'state_dir = "/srv"\n[milter]\ntag_at = 3.0\nmax_sessions = 5\n'
        f'{REDIS}prefix = "other"\ndegraded_factor = 0.1\n[log]\nlevel = "error"\n'
    )
    config, fixed = in_force(new, running)
    assert fixed == ["milter.max_sessions", "state_dir", "log", "redis"]
    assert (config.redis, config.state_dir) == (running.redis, running.state_dir)
    assert config.milter.tag_at == 3.0


def test_redis_that_comes_or_goes_needs_a_restart():
    with_redis, without = loads(REDIS), loads("")
    for new, running in ((with_redis, without), (without, with_redis)):
        config, fixed = in_force(new, running)
        assert fixed == ["redis"]
        assert config.redis == running.redis


def test_where_nothing_of_it_changed_nothing_is_named():
    assert in_force(loads(f"[milter]\ntag_at = 3.0\n{REDIS}"), loads(REDIS))[1] == []
