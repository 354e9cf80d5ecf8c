"""A worker process: `python -m mxweir_policyd.workers FD`, started by the policy daemon alone."""

import signal

if __name__ == "__main__":
    # Before anything else is imported: that takes a while, and signals to the whole service come at any time.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    from mxweir_policyd.workers.process import main

    main()
