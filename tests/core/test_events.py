from mxweir.events import Decided, Decision, Event, Notice, Scanned, Trouble, notice, tell_all, warning
from mxweir.testing import Recorder, question

SCANNED = Scanned("q", "192.0.2.1", "a@a.example", 1, "ham", "spamd", 1.0, 5.0, (), "", 0.1, 100)
EVENTS: list[Event] = [
    Decided(question(), Decision("pass", "DUNNO"), 0.001),
    SCANNED,
    Trouble("a", "detail"),
    notice("started", port=10040),
]


def test_each_observer_is_told_of_the_kinds_that_it_wants_in_the_order_of_the_observers():
    told = []
    tell = tell_all(
        {
            Decided: lambda event: told.append(("first", event)),
            Notice: lambda event: told.append(("first", event)),
        },
        {
            Decided: lambda event: told.append(("second", event)),
            Trouble: lambda event: told.append(("second", event)),
        },
    )
    for event in EVENTS:
        tell(event)
    assert told == [
        ("first", EVENTS[0]),
        ("second", EVENTS[0]),
        ("second", EVENTS[2]),
        ("first", EVENTS[3]),
    ]


def test_an_event_that_nobody_wants_is_no_error():
    for event in EVENTS:
        tell_all()(event)
        tell_all({})(event)


def test_a_notice_has_its_fields_by_name_and_a_level():
    assert notice("started", port=1) == Notice("started", {"port": 1}, "info")
    assert warning("line skipped", what="x") == Notice("line skipped", {"what": "x"}, "warning")


def test_a_recorder_keeps_what_it_is_told():
    recorder = Recorder()
    for event in EVENTS:
        recorder(event)
    assert recorder.events == EVENTS
