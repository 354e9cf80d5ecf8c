"""Several processes that answer Postfix as one service: `policyd.workers` above 1.

The daemon that was started, the parent, decides nothing. It has what there is
once a host: the sockets, the signals, the service manager's ear, the control
socket, the pages for monitoring, the log, and what keeps the relay domains. Each
worker has what answers (`mxweir_policyd.worker`).

                    stdin    orders: configuration, tables changed, questions
    parent  ──────────────────────────────────────────────────────────────────▶  worker
            ◀──────────────────────────────────────────────────────────────────
                    stdout   reports: serving, beats with figures, events, answers
            ◀──────────────────────────────────────────────────────────────────
                    stderr   whole lines of the log
            ──────────────────────────────────────────────────────────────────▶
                    fd N     accepted connections, one a message (SCM_RIGHTS)

*Connections are accepted by the parent* and handed to the worker that has fewest.
smtpd keeps a connection for minutes, so a bad distribution stays; processes that
accept from one queue share it as chance has it, up to all and nothing. It costs
the parent some 20 µs a connection, none a question, and works for unix sockets,
for TCP, and for those of the service manager alike.

*The end of the connections is the order to stop*: the worker drains and ends. It
comes when the parent says so and when the parent is gone, however it ended, so
no worker outlives it.

*A worker that ends is replaced*, at once if it had lived for long. Its connections
are closed with it: smtpd sees that at its next question and asks another worker,
through a new connection. One that it was handed and had not taken is handed to
another, with the question that may wait in it. What it had counted is kept (`figures`), for counters
that went back would look like a restart.

Workers ignore signals: those to the whole service, from a terminal or a service
manager, are for the parent, which has the workers reload or drain in order.
"""
