import threading

from mxweir_milter.room import Room


def test_what_is_not_there_is_not_given_and_what_comes_back_is():
    room = Room(10)
    assert room.take(6)
    assert not room.take(5)
    assert room.take(4)
    room.give(6)
    assert room.take(5)
    assert room.used == 9


def test_a_smaller_bound_holds_for_what_is_asked_next():
    room = Room(10)
    assert room.take(8)
    room.most = 5
    assert not room.take(1)
    room.give(8)
    assert room.take(5)


def test_many_threads_use_it_at_once_and_no_byte_is_lost():
    room = Room(10**9)

    def use():
        for _ in range(20_000):
            room.take(3)
            room.give(3)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert room.used == 0
