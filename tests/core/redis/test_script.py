from mxweir.redis.script import Script


def test_a_script_has_the_name_that_redis_has_for_it():
    script = Script("return 1")
    assert script.sha == "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"  # what SCRIPT LOAD replies
    assert script.source == b"return 1"
