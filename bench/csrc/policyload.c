/* policyload: a load generator for the Postfix policy delegation protocol.
 *
 *   cc -O2 -Wall -o policyload policyload.c -lm
 *   policyload --connect 127.0.0.1:10031 --conns 64 --seconds 5 --keys 10000
 *
 * One thread, epoll, N persistent connections with one request in flight on
 * each, as smtpd does it. With --each-core there is such a process on every core
 * that it may use, each with its share of the connections, and one report of all. The request has the attributes of Postfix 3.7 in its
 * order, then those that 3.8 added. Closed loop by default. --rate R is an open
 * loop with fixed arrival times whose latency counts from the intended send
 * time, so a stalled server is charged for the requests it kept waiting (no
 * coordinated omission). Prints one line of JSON. Exits 1 if any reply was bad
 * or missing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_MAX 4096
#define REPLY_MAX 4096
#define VERBS_MAX 32
#define NS 1000000000ull

typedef struct {
    int fd, busy, inlen, outlen, outoff, wants_write;
    uint64_t t0;                /* send time, or intended send time */
    uint64_t sent;              /* real send time, for the timeout */
    char in[REPLY_MAX], out[REQUEST_MAX];
} conn;

static struct {
    struct sockaddr_storage addr;
    socklen_t addrlen;
    int conns, independent, sweep, print, each_core;
    uint64_t seed, keys, total;
    double hot, sasl, rate, seconds, timeout;
    const char *state, *context;
} opt = { .conns = 8, .seed = 1, .keys = 10000, .timeout = 10, .state = "RCPT", .context = "" };

static int epoll_fd;
static conn *conns;
static int *idle, nidle;        /* stack of connections without a request in flight */
static uint64_t started;

typedef struct {
    uint64_t done, errors, bad, reopened, unsent, hist[64 * 64], hist_max;
    double elapsed;
    struct { char name[24]; uint64_t n; } verbs[VERBS_MAX];
    int nverbs, ready;
} results;

static results *all, *got;      /* of every process, in memory that they share, and of this one */
static int processes = 1, me;

static void die(const char *what) {
    fprintf(stderr, "policyload: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS + t.tv_nsec;
}

/* --- latency: log-linear histogram of nanoseconds, 32 steps per power of two, quantiles within 1.6 % --- */

static void hist_add(uint64_t ns) {
    if (ns > got->hist_max) got->hist_max = ns;
    int e = ns < 64 ? 0 : 58 - __builtin_clzll(ns);
    got->hist[e * 64 + (ns >> e)]++;
}

static double hist_us(const results *r, double q) {
    uint64_t want = (uint64_t)ceil(q * r->done), seen = 0;
    for (int i = 0; i < 64 * 64; i++)
        if ((seen += r->hist[i]) >= want && want) return fmin(ldexp(i % 64 + 0.5, i / 64), r->hist_max) / 1e3;
    return 0;
}

/* --- one request --- */

static uint64_t rnd(void) {     /* splitmix64 */
    uint64_t z = (opt.seed += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static double chance(void) { return (rnd() >> 11) * 0x1p-53; }

#define L(literal) p = mempcpy(p, literal, sizeof(literal) - 1)

static char *str(char *p, const char *s) { return mempcpy(p, s, strlen(s)); }

static char *dec(char *p, uint64_t v) {
    char b[24];
    int n = 0;
    do b[n++] = '0' + v % 10; while (v /= 10);
    while (n) *p++ = b[--n];
    return p;
}

static char *hex(char *p, uint64_t v, int width) {
    while (width--) *p++ = "0123456789abcdef"[(v >> (4 * width)) & 15];
    return p;
}

static char *ip(char *p, uint64_t k) {      /* distinct addresses in 10/8, one in each /24 first */
    L("10.");
    p = dec(p, (k >> 8) & 255);
    *p++ = '.';
    p = dec(p, k & 255);
    *p++ = '.';
    return dec(p, 1 + (k >> 16) % 254);
}

static char *mailbox(char *p, const char *user, const char *domain, uint64_t k, uint64_t domains) {
    p = dec(str(p, user), k);
    *p++ = '@';
    p = dec(str(p, domain), k % domains);
    return str(p, ".example");
}

static int build(char *out) {
    uint64_t sender, rcpt, client;
    char *p = out;
    if (opt.hot > 0 && chance() < opt.hot) sender = rcpt = client = 0;
    else if (opt.sweep) sender = rcpt = client = (started * processes + me) % opt.keys;
    else {
        sender = rcpt = client = rnd() % opt.keys;
        if (opt.independent) { rcpt = rnd() % opt.keys; client = rnd() % opt.keys; }
    }
    L("request=smtpd_access_policy\nprotocol_state="); p = str(p, opt.state);
    L("\nprotocol_name=ESMTP\nclient_address="); p = ip(p, client);
    L("\nclient_name=mail"); p = dec(p, client);
    L(".client.example\nclient_port="); p = dec(p, 1024 + started % 60000);
    L("\nreverse_client_name=mail"); p = dec(p, client);
    L(".client.example\nserver_address=192.0.2.25\nserver_port=25\nhelo_name=mail"); p = dec(p, client);
    L(".client.example\nsender="); p = mailbox(p, "user", "sender", sender, 997);
    L("\nrecipient="); p = mailbox(p, "rcpt", "rcptdom", rcpt, 1009);
    L("\nrecipient_count=0\nqueue_id=\ninstance="); p = hex(p, getpid(), 4);
    *p++ = '.'; p = hex(p, 0x65000000 + started, 8);
    *p++ = '.'; p = hex(p, rnd(), 5);
    L(".0\nsize="); p = dec(p, 1000 + rnd() % 90000);
    L("\netrn_domain=\nstress=\nsasl_method=");
    if (opt.sasl > 0 && chance() < opt.sasl) {
        L("PLAIN\nsasl_username="); p = mailbox(p, "user", "sender", sender, 997);
    } else L("\nsasl_username=");
    L("\nsasl_sender="
      "\nccert_subject=\nccert_issuer=\nccert_fingerprint=\nccert_pubkey_fingerprint="
      "\nencryption_protocol=TLSv1.3\nencryption_cipher=TLS_AES_256_GCM_SHA384\nencryption_keysize=256"
      "\npolicy_context="); p = str(p, opt.context);
    L("\ncompatibility_level=3.6\nmail_version=3.7.11\n\n");
    return p - out;
}

/* --- one connection --- */

static void conn_open(conn *c) {
    int one = 1;
    if ((c->fd = socket(opt.addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0) die("socket");
    for (int try = 0; connect(c->fd, (void *)&opt.addr, opt.addrlen); try++) {
        if ((errno != EAGAIN && errno != ECONNREFUSED) || try >= 200) die("connect");
        usleep(10000);
    }
    if (opt.addr.ss_family == AF_INET) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event ev = { .events = EPOLLIN, .data.ptr = c };
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &ev)) die("epoll_ctl");
    c->inlen = c->busy = c->wants_write = 0;
}

static void conn_reopen(conn *c) {
    if (c->busy) {
        got->errors++;
        c->busy = 0;
        idle[nidle++] = c - conns;
    }
    close(c->fd);
    got->reopened++;
    conn_open(c);
}

static void conn_flush(conn *c) {
    ssize_t n = send(c->fd, c->out + c->outoff, c->outlen - c->outoff, MSG_NOSIGNAL);
    if (n < 0 && errno != EAGAIN) {
        conn_reopen(c);
        return;
    }
    if (n > 0) c->outoff += n;
    int want = c->outoff < c->outlen;
    if (want != c->wants_write) {
        struct epoll_event ev = { .events = EPOLLIN | (want ? EPOLLOUT : 0), .data.ptr = c };
        epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
        c->wants_write = want;
    }
}

static void fire(uint64_t t0, uint64_t t) {
    conn *c = &conns[idle[--nidle]];
    c->outlen = build(c->out);
    c->outoff = c->inlen = 0;
    c->busy = 1;
    c->t0 = t0;
    c->sent = t;
    started++;
    conn_flush(c);
}

static void add_verb(results *r, const char *name, uint64_t n) {
    int i = 0;
    while (i < r->nverbs && i < VERBS_MAX - 1 && strcmp(r->verbs[i].name, name)) i++;
    if (i == r->nverbs) strcpy(r->verbs[r->nverbs++].name, name);
    r->verbs[i].n += n;
}

static void count_verb(const char *s, const char *end) {
    char name[sizeof got->verbs[0].name] = "";
    for (size_t n = 0; s < end && *s != ' ' && n < sizeof name - 1; s++)
        name[n++] = *s >= 32 && *s < 127 && *s != '"' && *s != '\\' ? *s : '?';
    add_verb(got, name, 1);
}

/* a good reply: name=value lines, exactly one non-empty action=, a blank line, nothing after it */
static int good_reply(conn *c, char *end) {
    int actions = 0;
    if (end != c->in + c->inlen || end - c->in <= 2) return 0;
    for (char *s = c->in; s < end - 1;) {
        char *eol = memchr(s, '\n', end - s), *eq = memchr(s, '=', eol - s);
        if (!eq || eq == s) return 0;
        if (eq - s == 6 && !memcmp(s, "action", 6)) {
            if (eq + 1 == eol || eq[1] == ' ') return 0;
            if (!actions++) count_verb(eq + 1, eol);
        }
        s = eol + 1;
    }
    return actions == 1;
}

static void readable(conn *c) {
    ssize_t n = recv(c->fd, c->in + c->inlen, REPLY_MAX - c->inlen, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) {
        conn_reopen(c);
        return;
    }
    if (!c->busy) {             /* nobody asked */
        got->bad++;
        return;
    }
    c->inlen += n;
    char *end = memmem(c->in, c->inlen, "\n\n", 2);
    if (end) {
        if (!good_reply(c, end + 2)) got->bad++;
        hist_add(now() - c->t0);
        got->done++;
        c->busy = 0;
        idle[nidle++] = c - conns;
    } else if (c->inlen == REPLY_MAX) {
        got->bad++;
        conn_reopen(c);
    }
}

/* --- the run --- */

static uint64_t due(uint64_t t0, uint64_t arrivals) { return t0 + (uint64_t)(arrivals * 1e9 / opt.rate); }

/* An open loop sends all that was due before the end, however late it got: what a slow server makes wait the
 * longest would be left out otherwise. Only past the timeout it counts as unsent. */
static int may_start(uint64_t t0, uint64_t t, uint64_t stop, uint64_t arrivals) {
    if (got->errors >= 10000 || (opt.total && started >= opt.total)) return 0;
    return opt.rate > 0 ? due(t0, arrivals) < stop && t < stop + (uint64_t)(opt.timeout * 1e9) : t < stop;
}

/* Sends what is due; returns when to look again. */
static uint64_t send_due(uint64_t t0, uint64_t t, uint64_t stop, uint64_t *arrivals) {
    while (nidle && may_start(t0, t, stop, *arrivals)) {
        uint64_t intended = opt.rate > 0 ? due(t0, *arrivals) : now();
        if (opt.rate > 0 && intended > t) return intended;
        ++*arrivals;
        fire(intended, t);
    }
    return nidle ? stop : t + NS / 10;
}

static void expire(uint64_t t, uint64_t timeout) {
    for (int i = 0; i < opt.conns; i++)
        if (conns[i].busy && t - conns[i].sent > timeout) conn_reopen(&conns[i]);
}

/* Returns the number of arrivals of an open loop. */
static uint64_t run(uint64_t t0) {
    uint64_t stop = t0 + (uint64_t)(opt.seconds * 1e9), timeout = (uint64_t)(opt.timeout * 1e9);
    uint64_t checked = t0, arrivals = 0;
    struct epoll_event ev[256];
    for (;;) {
        uint64_t t = now(), next = send_due(t0, t, stop, &arrivals);
        int sending = may_start(t0, t, stop, arrivals);
        if (!sending && nidle == opt.conns) break;
        if (!sending && t > stop + timeout) {
            got->errors += opt.conns - nidle;
            break;
        }
        uint64_t wait = next > t ? next - t : 0;
        if (!sending || wait > NS / 10) wait = NS / 10;
        struct timespec ts = { wait / NS, wait % NS };
        int n = epoll_pwait2(epoll_fd, ev, 256, &ts, NULL);
        for (int i = 0; i < n; i++) {
            conn *c = ev[i].data.ptr;
            if (ev[i].events & EPOLLOUT) conn_flush(c);
            if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) readable(c);
        }
        if (t - checked > NS / 2) {
            checked = t;
            expire(t, timeout);
        }
    }
    return arrivals;
}

/* --- the processes --- */

/* The first ones have one more of what cannot be shared evenly: a sweep goes from one to the next. */
static uint64_t share(uint64_t whole) { return (whole + processes - 1 - me) / processes; }

/* Each has a share, and a core, of its own; returns in all of them, and in the first as their parent. */
static void divide(void) {
    cpu_set_t may;
    int core = -1;
    if (sched_getaffinity(0, sizeof may, &may)) die("sched_getaffinity");
    if (opt.each_core) processes = CPU_COUNT(&may);
    if (processes > opt.conns) processes = opt.conns;
    if (opt.total && processes > opt.total) processes = opt.total;
    all = mmap(0, processes * sizeof *all, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED) die("mmap");
    pid_t first = getpid(), child = 1;
    for (me = processes; --me > 0 && (child = fork());)
        if (child < 0) die("fork");
    got = all + me;
    if (!child && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != first)) exit(2);
    if (opt.each_core) {
        for (int n = me; n >= 0; n--) while (!CPU_ISSET(++core, &may));
        CPU_ZERO(&may);
        CPU_SET(core, &may);
        if (sched_setaffinity(0, sizeof may, &may)) die("sched_setaffinity");
    }
    opt.conns = share(opt.conns);
    opt.total = share(opt.total);
    opt.rate /= processes;
    opt.seed += me;
}

/* The first one goes when one of the others does, and then they all do. */
static void all_well(int flags) {
    int status;
    pid_t ended;
    while (!me && (ended = waitpid(-1, &status, flags)) > 0)
        if (status) exit(2);
}

static void begin_together(void) {
    __atomic_store_n(&got->ready, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < processes; i++)
        while (!__atomic_load_n(&all[i].ready, __ATOMIC_SEQ_CST)) {
            all_well(WNOHANG);
            usleep(1000);
        }
}

static void add(results *sum, const results *r) {
    sum->done += r->done;
    sum->errors += r->errors;
    sum->bad += r->bad;
    sum->reopened += r->reopened;
    sum->unsent += r->unsent;
    for (int i = 0; i < 64 * 64; i++) sum->hist[i] += r->hist[i];
    if (r->hist_max > sum->hist_max) sum->hist_max = r->hist_max;
    if (r->elapsed > sum->elapsed) sum->elapsed = r->elapsed;
    for (int i = 0; i < r->nverbs; i++) add_verb(sum, r->verbs[i].name, r->verbs[i].n);
}

static double cpu_s(int who) {
    struct rusage ru;
    getrusage(who, &ru);
    return ru.ru_utime.tv_sec + ru.ru_stime.tv_sec + (ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static void report(const results *r) {
    printf("{\"requests\":%lu,\"errors\":%lu,\"bad\":%lu,\"reopened\":%lu,\"unsent\":%lu,", r->done, r->errors,
           r->bad, r->reopened, r->unsent);
    printf("\"seconds\":%.3f,\"rps\":%.1f,", r->elapsed, r->done / r->elapsed);
    printf("\"us\":{\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p99.9\":%.1f,\"max\":%.1f},", hist_us(r, .5),
           hist_us(r, .9), hist_us(r, .99), hist_us(r, .999), r->hist_max / 1e3);
    printf("\"client_cpu_s\":%.2f,\"actions\":{", cpu_s(RUSAGE_SELF) + cpu_s(RUSAGE_CHILDREN));
    for (int i = 0; i < r->nverbs; i++)
        printf("%s\"%s\":%lu", i ? "," : "", r->verbs[i].name, r->verbs[i].n);
    printf("}}\n");
}

/* --- options --- */

static void parse_addr(char *s) {
    if (!strncmp(s, "unix:", 5)) {
        struct sockaddr_un *u = (void *)&opt.addr;
        u->sun_family = AF_UNIX;
        strncpy(u->sun_path, s + 5, sizeof u->sun_path - 1);
        opt.addrlen = sizeof *u;
        return;
    }
    char *colon = strrchr(s, ':');
    struct sockaddr_in *in = (void *)&opt.addr;
    if (colon) *colon = 0;
    if (!colon || inet_pton(AF_INET, s, &in->sin_addr) != 1 || ntohl(in->sin_addr.s_addr) >> 24 != 127) {
        fprintf(stderr, "policyload: --connect 127.x.x.x:port or unix:path; loopback addresses only\n");
        exit(2);
    }
    in->sin_family = AF_INET;
    in->sin_port = htons(atoi(colon + 1));
    opt.addrlen = sizeof *in;
}

static const char usage[] =
    "policyload --connect 127.0.0.1:port|unix:path [--conns 8] [--seconds 5 | --requests N]\n"
    "  [--keys 10000] [--independent | --sweep] [--hot 0..1] [--sasl 0..1] [--rate R] [--seed 1]\n"
    "  [--state RCPT] [--context TEXT] [--timeout 10] [--each-core]\n"
    "  --keys N        draw each request from N senders, recipients and clients, the same number for all three\n"
    "  --independent   draw three numbers\n"
    "  --sweep         take the numbers in turn: N requests see each key once\n"
    "  --hot SHARE     that share of the requests has number 0\n"
    "  --each-core     a process on each core that it may use, all with the same share\n"
    "  --print         write one request, or --requests of them, to stdout and stop\n";

static void parse_options(int argc, char **argv) {
    static const struct option known[] = {
        {"connect", 1, 0, 'C'}, {"conns", 1, 0, 'n'}, {"seconds", 1, 0, 's'}, {"requests", 1, 0, 'r'},
        {"keys", 1, 0, 'k'}, {"hot", 1, 0, 'h'}, {"rate", 1, 0, 'R'}, {"seed", 1, 0, 'S'},
        {"sasl", 1, 0, 'u'}, {"independent", 0, 0, 'i'}, {"sweep", 0, 0, 'w'}, {"timeout", 1, 0, 't'},
        {"state", 1, 0, 'T'}, {"context", 1, 0, 'x'}, {"print", 0, 0, 'p'}, {"each-core", 0, 0, 'e'},
        {0}};
    int c;
    while ((c = getopt_long(argc, argv, "", known, 0)) != -1) switch (c) {
        case 'C': parse_addr(optarg); break;
        case 'n': opt.conns = atoi(optarg); break;
        case 's': opt.seconds = atof(optarg); break;
        case 'r': opt.total = strtoull(optarg, 0, 10); break;
        case 'k': opt.keys = strtoull(optarg, 0, 10); break;
        case 'h': opt.hot = atof(optarg); break;
        case 'R': opt.rate = atof(optarg); break;
        case 'S': opt.seed = strtoull(optarg, 0, 10); break;
        case 'u': opt.sasl = atof(optarg); break;
        case 'i': opt.independent = 1; break;
        case 'w': opt.sweep = 1; break;
        case 't': opt.timeout = atof(optarg); break;
        case 'T': opt.state = optarg; break;
        case 'x': opt.context = optarg; break;
        case 'p': opt.print = 1; break;
        case 'e': opt.each_core = 1; break;
        default: fputs(usage, stderr); exit(2);
    }
    if ((!opt.addrlen && !opt.print) || opt.conns < 1 || opt.conns > 10000 || !opt.keys || opt.seconds > 3600 ||
        strlen(opt.state) > 32 || strlen(opt.context) > 256) {
        fputs(usage, stderr);
        exit(2);
    }
    if (opt.seconds <= 0) opt.seconds = opt.total ? 3600 : 5;
}

int main(int argc, char **argv) {
    /* Woken by an answer, do not push the server from its processor: on a host there are hundreds of
     * smtpd processes, and none of them is the measure. The same holds for every server compared. */
    sched_setscheduler(0, SCHED_BATCH, &(struct sched_param){0});
    parse_options(argc, argv);
    if (opt.print) {
        char request[REQUEST_MAX];
        do fwrite(request, 1, build(request), stdout); while (++started < opt.total);
        return ferror(stdout);
    }
    divide();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc(opt.conns, sizeof *conns);
    idle = calloc(opt.conns, sizeof *idle);
    for (int i = 0; i < opt.conns; i++) conn_open(&conns[i]);
    for (int i = opt.conns; i--;) idle[nidle++] = i;

    prctl(PR_SET_TIMERSLACK, 1ul);      /* by default the kernel wakes us up to 50 us after what is due */
    begin_together();
    uint64_t t0 = now(), arrivals = run(t0);
    got->elapsed = (now() - t0) / 1e9;
    if (opt.rate > 0 && !opt.total && opt.rate * opt.seconds > arrivals)
        got->unsent = opt.rate * opt.seconds - arrivals;
    if (me) return 0;

    all_well(0);
    for (int i = 1; i < processes; i++) add(all, all + i);
    report(all);
    return all->errors || all->bad || all->unsent;
}
