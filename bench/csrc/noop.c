/* noop: the cheapest policy server there can be, as the measure of a run.
 *
 *   cc -O2 -Wall -o noop noop.c
 *   noop 127.0.0.1:10031 | unix:path [action]        (default action: DUNNO)
 *
 * One thread, epoll. It reads up to the blank line, looks at nothing and
 * answers. Stops on SIGTERM, or when the process that started it goes away.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct {
    int fd;
    int at_line_start;          /* the last byte was a newline */
    int begun;                  /* an attribute has come since the last blank line */
} conn;

static char reply[512];
static int reply_len, epoll_fd, tcp;

static int listen_on(char *where) {
    struct sockaddr_storage addr = {0};
    socklen_t len;
    int one = 1;
    if (!strncmp(where, "unix:", 5)) {
        struct sockaddr_un *u = (void *)&addr;
        u->sun_family = AF_UNIX;
        strncpy(u->sun_path, where + 5, sizeof u->sun_path - 1);
        unlink(u->sun_path);
        len = sizeof *u;
    } else {
        char *colon = strrchr(where, ':');
        struct sockaddr_in *in = (void *)&addr;
        if (!colon) return -1;
        *colon = 0;
        in->sin_family = AF_INET;
        in->sin_port = htons(atoi(colon + 1));
        if (inet_pton(AF_INET, where, &in->sin_addr) != 1) return -1;
        len = sizeof *in;
        tcp = 1;
    }
    int fd = socket(addr.ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&addr, len) || listen(fd, 1024)) return -1;
    return fd;
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        if (tcp) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    }
}

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
            else accept_all(listener);
        }
    }
}
