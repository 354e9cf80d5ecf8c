/* fakespamd: a spamd that answers at once, so that what is measured is whoever asks it.
 *
 *   cc -O2 -Wall -o fakespamd fakespamd.c
 *   fakespamd 127.0.0.1:783 | unix:path
 *
 * One thread, epoll. Every message has the score 0.1 of 5.0. It knows SYMBOLS, CHECK
 * and PROCESS, which is what spamc asks unless told otherwise, and COUNT, which no
 * spamd knows: how many messages it has answered. Like spamd it closes the connection
 * after an answer. Stops on SIGTERM, or when the process that started it goes away.
 */
#include "serving.h"

#define TESTS "BAYES_00,DKIM_VALID"
#define ADDED "X-Spam-Checker-Version: fakespamd\r\n" \
              "X-Spam-Status: No, score=0.1 required=5.0 tests=" TESTS "\r\n"
#define LARGEST (64 << 20)

typedef struct {
    int fd;
    char *in;                   /* the request so far: `len` bytes, with room for `cap` and a NUL */
    size_t len, cap;
    size_t head;                /* where the message begins, 0 as long as that is not known */
    size_t want;                /* the message's announced length */
    char *out;                  /* the answer: `sent` of `out_len` bytes have gone */
    size_t out_len, sent;
} conn;

static unsigned long answered;

static void drop(conn *c) {
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void send_rest(conn *c) {
    while (c->sent < c->out_len) {
        ssize_t n = send(c->fd, c->out + c->sent, c->out_len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            struct epoll_event ev = { .events = EPOLLOUT, .data.ptr = c };
            epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
            return;
        }
        if (n <= 0) break;
        c->sent += n;
    }
    drop(c);
}

static void answer(conn *c) {
    if (!strncmp(c->in, "COUNT", 5)) {
        c->out_len = asprintf(&c->out, "%lu\n", answered);
        send_rest(c);
        return;
    }
    size_t message = strncmp(c->in, "PROCESS", 7) ? 0 : c->len - c->head;
    const char *text = message ? ADDED : strncmp(c->in, "SYMBOLS", 7) ? "" : TESTS;
    c->out = malloc(256 + strlen(text) + message);
    c->out_len = sprintf(c->out,
        "SPAMD/1.1 0 EX_OK\r\nContent-length: %zu\r\nSpam: False ; 0.1 / 5.0\r\n\r\n%s",
        strlen(text) + message, text);
    memcpy(c->out + c->out_len, c->in + c->head, message);
    c->out_len += message;
    answered++;
    send_rest(c);
}

static void find_head(conn *c) {
    char *end = c->len ? memmem(c->in, c->len, "\r\n\r\n", 4) : 0;
    if (!end) return;
    c->head = end + 4 - c->in;
    *end = 0;
    char *length = strcasestr(c->in, "\r\nContent-length:");
    c->want = length ? strtoul(length + 17, 0, 10) : 0;
    *end = '\r';
}

static void serve(conn *c) {
    ssize_t n;
    do {
        if (c->len + 65536 > c->cap) c->in = realloc(c->in, (c->cap = c->cap ? 2 * c->cap : 131072) + 1);
        n = recv(c->fd, c->in + c->len, c->cap - c->len, 0);
        if (n > 0) c->len += n;
    } while (n > 0 && c->len < LARGEST);
    c->in[c->len] = 0;
    if (!c->head) find_head(c);
    if (c->head && c->len - c->head >= c->want) answer(c);
    else if (n == 0 || c->len >= LARGEST || (n < 0 && errno != EAGAIN)) drop(c);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "fakespamd 127.0.0.1:port|unix:path\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    int listener = listen_on(argv[1]);
    if (listener < 0) {
        perror("fakespamd");
        return 1;
    }
    epoll_fd = epoll_create1(0);
    struct epoll_event ev[64], add = { .events = EPOLLIN, .data.ptr = 0 };
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &add);
    for (;;) {
        int n = epoll_wait(epoll_fd, ev, 64, -1);
        for (int i = 0; i < n; i++) {
            conn *c = ev[i].data.ptr;
            if (!c) accept_all(listener, sizeof(conn));
            else if (c->out) send_rest(c);      /* there is room again, or nobody to read it */
            else serve(c);
        }
    }
}
