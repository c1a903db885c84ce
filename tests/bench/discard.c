/* A blob endpoint that reads and forgets: of each blob it keeps what clients look at after they wrote (blobs.c), never content. One
 * thread a connection; over plain http a body is dropped in the kernel (recv with MSG_TRUNC), so that the client, not the endpoint, is
 * what is measured.
 *
 * usage: discard LATENCY_MICROSECONDS BYTES_PER_SECOND [CERTIFICATE KEY]      prints its port, then serves until killed
 * BYTES_PER_SECOND: of all bodies together, as a line with one bottleneck takes them; 0: as they come.
 * GET /stats answers "<requests> <bytes of bodies>"; bytes count as they arrive.
 */
#define _GNU_SOURCE
#include "discard.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_LIMIT 65536
#define SCRATCH (1 << 20)
#define LIST_LIMIT (16 << 20) /* bytes of a block list: 50,000 blocks have 5 MB */
#define BURST 20000000LL      /* ns by which the line may be ahead after a pause */

struct peer { int socket; SSL *tls; char head[HEAD_LIMIT]; size_t filled; char *scratch; };

static useconds_t latency;
static long long rate;
static SSL_CTX *context;
static atomic_llong requests, bytes;

/* Hold the caller until the line has taken so many bytes: one after the other, whoever sends them. */
static void carry(long long count) {
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static long long until;
    if (rate) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        pthread_mutex_lock(&lock);
        long long earliest = now.tv_sec * 1000000000LL + now.tv_nsec - BURST;
        until = (until > earliest ? until : earliest) + count * 1000000000LL / rate;
        struct timespec end = {until / 1000000000LL, until % 1000000000LL};
        pthread_mutex_unlock(&lock);
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR) continue;
    }
    bytes += count;
}

/* The most that is read at once: on a slow line what takes 10 ms. */
static size_t piece(size_t most) {
    size_t slow = rate / 100 > 1448 ? rate / 100 : 1448;
    return rate && slow < most ? slow : most;
}

static ssize_t take(struct peer *peer, char *into, size_t count) {
    return peer->tls ? SSL_read(peer->tls, into, count) : recv(peer->socket, into, count, 0);
}

/* Take the rest of a body: into `body`, or nowhere when that is NULL. */
static int finish(struct peer *peer, char *body, long long count) {
    while (count > 0) {
        size_t want = piece(count < SCRATCH ? count : SCRATCH);
        char *into = body ? body : peer->scratch;
        ssize_t got = peer->tls ? SSL_read(peer->tls, into, want) : recv(peer->socket, into, want, body ? 0 : MSG_TRUNC);
        if (got <= 0) return 0;
        carry(got);
        count -= got;
        if (body) body += got;
    }
    return 1;
}

static int give(struct peer *peer, const char *from, size_t count) {
    if (peer->tls) return SSL_write(peer->tls, from, count) == (int)count;
    return send(peer->socket, from, count, MSG_NOSIGNAL) == (ssize_t)count;
}

/* Serve one request; 0 when the connection is over. */
static int serve(struct peer *peer) {
    char *end;
    while (!(end = memmem(peer->head, peer->filled, "\r\n\r\n", 4))) {
        if (peer->filled == HEAD_LIMIT - 1) return 0;
        ssize_t got = take(peer, peer->head + peer->filled, piece(HEAD_LIMIT - 1 - peer->filled));
        if (got <= 0) return 0;
        peer->filled += got;
    }
    char method[16], path[4096], value[64], *query;
    size_t head_length = end + 4 - peer->head;
    char after = peer->head[head_length];
    peer->head[head_length] = 0;
    if (sscanf(peer->head, "%15s %4095s", method, path) != 2) return 0;
    if ((query = strchr(path, '?'))) *query++ = 0; else query = "";
    header(peer->head, "Content-Length", value, sizeof value);
    long long length = atoll(value), here = peer->filled - head_length;
    char head[8192];
    if (head_length >= sizeof head) return 0;
    memcpy(head, peer->head, head_length + 1);
    peer->head[head_length] = after;
    if (here > length) here = length;
    header(head, "Expect", value, sizeof value);
    if (*value && here < length && !give(peer, "HTTP/1.1 100 Continue\r\n\r\n", 25)) return 0;
    char *body = strstr(query, "comp=blocklist") && length < LIST_LIMIT ? calloc(1, length + 1) : NULL;
    if (body) memcpy(body, peer->head + head_length, here);
    memmove(peer->head, peer->head + head_length + here, peer->filled - head_length - here);
    peer->filled -= head_length + here;
    if (here) carry(here);
    int going = finish(peer, body ? body + here : NULL, length - here);
    if (going) {
        size_t size;
        struct request request = {head, method, path, query, strcmp(method, "PUT") ? NULL : body, length};
        char numbers[64], *whole;
        if (strcmp(path, "/stats")) {
            requests++;
            if (latency) usleep(latency);
            whole = answered(&request, &size);
        } else {
            snprintf(numbers, sizeof numbers, "%lld %lld", (long long)requests, (long long)bytes);
            whole = reply("200 OK", "", numbers, 0, &size);
        }
        going = give(peer, whole, size);
        free(whole);
    }
    free(body);
    return going;
}

static void *connection(void *argument) {
    struct peer *peer = argument;
    if (!peer->tls || SSL_accept(peer->tls) == 1)
        while (serve(peer)) continue;
    if (peer->tls) SSL_free(peer->tls);
    close(peer->socket);
    free(peer->scratch);
    free(peer);
    return NULL;
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1, segment = 1448, window, listener = socket(AF_INET, SOCK_STREAM, 0);
    if (count != 3 && count != 5) return 2;
    latency = atoi(arguments[1]);
    rate = atoll(arguments[2]);
    signal(SIGPIPE, SIG_IGN);
    if (count == 5) {
        context = SSL_CTX_new(TLS_server_method());
        if (SSL_CTX_use_certificate_chain_file(context, arguments[3]) != 1 || SSL_CTX_use_PrivateKey_file(context, arguments[4], SSL_FILETYPE_PEM) != 1) return 1;
    }
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (rate) { /* segments and the window of a network with 50 ms, or loopback would hold megabytes that no line has taken */
        window = rate / 20 > 16384 ? rate / 20 : 16384;
        setsockopt(listener, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
        setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
    }
    if (bind(listener, (void *)&address, size) || listen(listener, 1024)) return 1;
    getsockname(listener, (void *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 * 1024);
    for (;;) {
        int socket = accept(listener, NULL, NULL);
        if (socket < 0) continue;
        setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct peer *peer = calloc(1, sizeof *peer);
        peer->socket = socket;
        peer->scratch = malloc(SCRATCH);
        if (context) { peer->tls = SSL_new(context); SSL_set_fd(peer->tls, socket); SSL_set_read_ahead(peer->tls, 1); }
        pthread_t thread;
        if (pthread_create(&thread, &attributes, connection, peer)) close(socket);
    }
}
