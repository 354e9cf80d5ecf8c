"""Private servers for the demonstration, the development run, the live tests and the benchmarks.

Each one lives in a directory of its own, listens on loopback or on a unix
socket in that directory, is stopped by its own process id, and leaves the
machine's Postfix, SpamAssassin and mail alone:

    place.py      temporary directories with short paths, free ports
    process.py    one child process: started, waited for, stopped
    postfix.py    a Postfix instance with its own queue and configuration
    sink.py       the maildir where that Postfix delivers
    letters.py    messages to send
    odd.py        messages that are legal, barely legal and not at all
    client.py     an SMTP client that can play any client address
    asking.py     a policy client, for what Postfix itself never sends
    spamd.py      SpamAssassin's daemon with the rules as shipped
    spamass_milter.py  the other milter for spamd, to compare with
    postgresql.py a PostgreSQL, and a second one that follows it
    rspamd.py     Rspamd with the rules as shipped, as a scanner and as a milter
    hostile.py    scanners that misbehave, each in one way, for both protocols
    manners.py    the ways in which they do
    answers.py    what scanners answer, as bytes
    daemons.py    mxweir's own daemons on a configuration written for them
    stack.py      all of them together, as on a real MX host
"""
