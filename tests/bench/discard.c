/* A blob endpoint that reads and forgets: for each blob it keeps length and MD5, nothing else, since clients look after
 * they wrote. One thread a connection; over plain http a body is dropped in the kernel (recv with MSG_TRUNC), so that the
 * client, not the endpoint, is what is measured.
 *
 * usage: discard LATENCY_MICROSECONDS [CERTIFICATE KEY]      prints its port, then serves until killed
 * GET /stats answers "<requests> <bytes of bodies>".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
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
#define BLOBS (1 << 20)

struct blob { struct blob *next; char *path; long long length, staged; int committed; char md5[32]; };
struct peer { int socket; SSL *tls; char head[HEAD_LIMIT]; size_t filled; char *scratch; };

static useconds_t latency;
static SSL_CTX *context;
static atomic_llong requests, bytes;
static pthread_mutex_t table = PTHREAD_MUTEX_INITIALIZER;
static struct blob *blobs[BLOBS];

static ssize_t take(struct peer *peer, char *into, size_t count) {
    return peer->tls ? SSL_read(peer->tls, into, count) : recv(peer->socket, into, count, 0);
}

static int drop(struct peer *peer, long long count) {
    while (count > 0) {
        size_t want = count < SCRATCH ? count : SCRATCH;
        ssize_t got = peer->tls ? SSL_read(peer->tls, peer->scratch, want) : recv(peer->socket, peer->scratch, want, MSG_TRUNC);
        if (got <= 0) return 0;
        count -= got;
    }
    return 1;
}

static int give(struct peer *peer, const char *from, size_t count) {
    if (peer->tls) return SSL_write(peer->tls, from, count) == (int)count;
    return send(peer->socket, from, count, MSG_NOSIGNAL) == (ssize_t)count;
}

/* Copy a header's value; empty when it is not there. */
static void header(const char *head, const char *name, char *value, size_t room) {
    *value = 0;
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line && line[2] != '\r'; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, name, length) || line[2 + length] != ':') continue;
        const char *start = line + 3 + length;
        start += strspn(start, " ");
        snprintf(value, room, "%.*s", (int)strcspn(start, "\r"), start);
        return;
    }
}

static struct blob *blob_at(const char *path, int make) {
    unsigned hash = 2166136261u; /* FNV-1a */
    for (const char *letter = path; *letter; letter++) hash = (hash ^ (unsigned char)*letter) * 16777619u;
    struct blob **first = &blobs[hash % BLOBS], *found;
    pthread_mutex_lock(&table);
    for (found = *first; found && strcmp(found->path, path); found = found->next) continue;
    if (!found && make) {
        found = calloc(1, sizeof *found);
        found->path = strdup(path);
        found->next = *first;
        *first = found;
    }
    pthread_mutex_unlock(&table);
    return found;
}

static int reply(struct peer *peer, const char *status, const char *more, const char *body, int head_only) {
    char text[4096], date[64];
    time_t now = time(NULL);
    struct tm fields;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &fields));
    int length = snprintf(text, sizeof text,
        "HTTP/1.1 %s\r\nETag: \"0x8DC\"\r\nLast-Modified: %s\r\nDate: %s\r\nx-ms-request-id: 00000000-0000-0000-0000-000000000000\r\n"
        "x-ms-version: 2025-05-05\r\nx-ms-request-server-encrypted: true\r\n%s", status, date, date, more);
    if (!strstr(more, "Content-Length")) length += snprintf(text + length, sizeof text - length, "Content-Length: %zu\r\n", strlen(body));
    length += snprintf(text + length, sizeof text - length, "\r\n%s", head_only ? "" : body);
    return give(peer, text, length);
}

static int unknown(struct peer *peer, int head_only) {
    return reply(peer, "404 Not Found", "x-ms-error-code: BlobNotFound\r\nContent-Type: application/xml\r\n",
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>BlobNotFound</Code><Message>no such blob</Message></Error>", head_only);
}

static int answer(struct peer *peer, const char *head, const char *method, const char *path, const char *query, long long length) {
    int put = !strcmp(method, "PUT"), only = !strcmp(method, "HEAD");
    char more[512] = "";
    if (!strcmp(path, "/stats")) {
        char numbers[64];
        snprintf(numbers, sizeof numbers, "%lld %lld", (long long)requests, (long long)bytes);
        return reply(peer, "200 OK", "", numbers, 0);
    }
    if (strstr(query, "comp=list") && strstr(query, "restype=container"))
        return reply(peer, "200 OK", "Content-Type: application/xml\r\n",
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>", 0);
    if (strstr(query, "restype=")) return reply(peer, put ? "201 Created" : "200 OK", "x-ms-sku-name: Standard_LRS\r\nx-ms-account-kind: StorageV2\r\n", "", 1);
    if (put && strstr(query, "comp=block&")) {
        struct blob *blob = blob_at(path, 1);
        __atomic_add_fetch(&blob->staged, length, __ATOMIC_RELAXED);
        return reply(peer, "201 Created", "", "", 0);
    }
    if (put) {
        struct blob *blob = blob_at(path, 1);
        int list = strstr(query, "comp=blocklist") != NULL;
        char md5[32];
        header(head, "x-ms-blob-content-md5", md5, sizeof md5);
        if (!*md5) header(head, "Content-MD5", md5, sizeof md5);
        pthread_mutex_lock(&table);
        strcpy(blob->md5, md5);
        blob->length = list ? blob->staged : length;
        blob->staged = 0;
        blob->committed = 1;
        pthread_mutex_unlock(&table);
        return reply(peer, "201 Created", "", "", 0);
    }
    struct blob *blob = blob_at(path, 0);
    if (!blob || !blob->committed) return unknown(peer, only);
    if (strstr(query, "comp=blocklist"))
        return reply(peer, "200 OK", "Content-Type: application/xml\r\n", "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList></BlockList>", 0);
    if (!only) return unknown(peer, 0);
    snprintf(more, sizeof more, "Content-Length: %lld\r\nContent-Type: application/octet-stream\r\nx-ms-blob-type: BlockBlob\r\n"
        "x-ms-lease-status: unlocked\r\nx-ms-lease-state: available\r\nx-ms-creation-time: Thu, 01 Jan 2026 00:00:00 GMT\r\n%s%s%s",
        blob->length, *blob->md5 ? "Content-MD5: " : "", blob->md5, *blob->md5 ? "\r\n" : "");
    return reply(peer, "200 OK", more, "", 1);
}

/* Serve one request; 0 when the connection is over. */
static int serve(struct peer *peer) {
    char *end;
    while (!(end = memmem(peer->head, peer->filled, "\r\n\r\n", 4))) {
        if (peer->filled == HEAD_LIMIT - 1) return 0;
        ssize_t got = take(peer, peer->head + peer->filled, HEAD_LIMIT - 1 - peer->filled);
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
    memmove(peer->head, peer->head + head_length + here, peer->filled - head_length - here);
    peer->filled -= head_length + here;
    if (!drop(peer, length - here)) return 0;
    if (strcmp(path, "/stats")) { requests++; bytes += length; }
    if (latency) usleep(latency);
    return answer(peer, head, method, path, query, length);
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
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    latency = count > 1 ? atoi(arguments[1]) : 0;
    signal(SIGPIPE, SIG_IGN);
    if (count > 3) {
        context = SSL_CTX_new(TLS_server_method());
        if (SSL_CTX_use_certificate_chain_file(context, arguments[2]) != 1 || SSL_CTX_use_PrivateKey_file(context, arguments[3], SSL_FILETYPE_PEM) != 1) return 1;
    }
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
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
