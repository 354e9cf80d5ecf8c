/* noop: the cheapest policy server there can be, as the measure of a run.
 *
 *   cc -O2 -Wall -o noop noop.c
 *   noop 127.0.0.1:10031 | unix:path [action]        (default action: DUNNO)
 *
 * One thread, epoll. It reads up to the blank line, looks at nothing and
 * answers. Stops on SIGTERM, or when the process that started it goes away.
 */
#include "serving.h"

typedef struct {
    int fd;
    int at_line_start;          /* the last byte was a newline */
    int begun;                  /* an attribute has come since the last blank line */
} conn;

static char reply[512];
static int reply_len;

static void serve(conn *c) {
    static char buf[65536];
    ssize_t n = recv(c->fd, buf, sizeof buf, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        close(c->fd);
        free(c);
        return;
    }
    for (char *p = buf, *end = buf + n; p < end; p++) {
        if (*p != '\n') {
            c->at_line_start = 0;
            c->begun = 1;
            if (!(p = memchr(p, '\n', end - p))) return;
        } else if (c->at_line_start && c->begun) {
            if (send(c->fd, reply, reply_len, MSG_NOSIGNAL) < 0) return;
            c->begun = 0;
        }
        c->at_line_start = 1;
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fprintf(stderr, "noop 127.0.0.1:port|unix:path [action]\n");
        return 2;
    }
    reply_len = snprintf(reply, sizeof reply, "action=%s\n\n", argc > 2 ? argv[2] : "DUNNO");
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int listener = listen_on(argv[1]);
    if (listener < 0) {
        perror("noop");
        return 1;
    }
    epoll_fd = epoll_create1(0);
    struct epoll_event ev[256], add = { .events = EPOLLIN, .data.ptr = 0 };
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &add);
    for (;;) {
        int n = epoll_wait(epoll_fd, ev, 256, -1);
        for (int i = 0; i < n; i++) {
            if (ev[i].data.ptr) serve(ev[i].data.ptr);
            else accept_all(listener, sizeof(conn));
        }
    }
}
