from mxweir_milter.fronts.macros import Defined


def test_macros_hold_for_the_later_steps_too():
    defined = Defined()
    defined.define(b"C", {"j": "mx"})
    defined.define(b"M", {"i": "", "{auth_authen}": "anna"})
    defined.define(b"E", {"i": "4XyZ"})
    assert dict(defined.all()) == {"j": "mx", "{auth_authen}": "anna", "i": "4XyZ"}


def test_the_next_message_has_nothing_of_the_last_one():
    defined = Defined()
    defined.define(b"C", {"j": "mx"})
    defined.define(b"M", {"{auth_authen}": "anna"})
    defined.forget_message()
    assert dict(defined.all()) == {"j": "mx"}


def test_a_stage_that_is_defined_anew_takes_the_later_ones_with_it():
    defined = Defined()
    defined.define(b"H", {"{tls_version}": "TLSv1.3"})
    defined.define(b"M", {"{auth_authen}": "anna"})
    defined.define(b"R", {"{rcpt_addr}": "b@example.org"})
    defined.define(b"M", {"i": "4XyZ"})
    assert dict(defined.all()) == {"{tls_version}": "TLSv1.3", "i": "4XyZ"}
    defined.define(b"H", {})
    assert dict(defined.all()) == {}


def test_macros_of_an_unknown_command_are_nobodys():
    defined = Defined()
    defined.define(b"M", {"i": "4XyZ"})
    defined.define(b"?", {"i": "other"})
    defined.define(b"", {"i": "other"})
    assert dict(defined.all()) == {"i": "4XyZ"}
