/* What servers of one thread have in common: they listen, accept and wait by epoll. */
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
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int epoll_fd, tcp;

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
    umask(0);                       /* whoever is measured may run as another user */
    if (bind(fd, (void *)&addr, len) || listen(fd, 1024)) return -1;
    return fd;
}

/* Each connection is a struct of `size` bytes, zeroed, that begins with its descriptor. */
static void accept_all(int listener, size_t size) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        if (tcp) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        int *c = calloc(1, size);
        *c = fd;
        struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
    }
}
