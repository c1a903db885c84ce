/* What is kept of the blobs: lengths, block ids, MD5, metadata, etag, and the names of snapshots; never content. Conditions, errors and
 * codes are the service's, as far as the clients of the benchmark ask; tests/endpoint is what verifies checksums and keeps bytes. */
#define _GNU_SOURCE
#include "discard.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define TABLE (1 << 20)
#define XML "<?xml version=\"1.0\" encoding=\"utf-8\"?>"

struct block { struct block *next; char *id; long long length; };
/* `etag` 0: not committed. `kept`: the headers of its metadata, each with its line's end. */
struct blob { struct blob *next; char *path, *kept, type[128], md5[32]; long long length, etag; struct block *staged, *committed; };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct blob *blobs[TABLE];
static long long versions;

void header(const char *head, const char *name, char *value, size_t room) {
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

char *reply(const char *status, const char *headers, const char *body, int without_body, size_t *length) {
    char *text, date[64];
    time_t now = time(NULL);
    struct tm fields;
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&now, &fields));
    FILE *out = open_memstream(&text, length);
    fprintf(out, "HTTP/1.1 %s\r\nLast-Modified: %s\r\nDate: %s\r\nx-ms-request-id: 00000000-0000-0000-0000-000000000000\r\n"
        "x-ms-version: 2025-05-05\r\nx-ms-request-server-encrypted: true\r\n%s", status, date, date, headers);
    if (!strstr(headers, "Content-Length")) fprintf(out, "Content-Length: %zu\r\n", strlen(body));
    fprintf(out, "\r\n%s", without_body ? "" : body);
    fclose(out);
    return text;
}

static char *refused(const struct request *request, const char *status, const char *code, size_t *length) {
    char headers[128], body[256];
    snprintf(headers, sizeof headers, "x-ms-error-code: %s\r\nContent-Type: application/xml\r\n", code);
    snprintf(body, sizeof body, XML "<Error><Code>%s</Code><Message>%s</Message></Error>", code, code);
    return reply(status, headers, body, !strcmp(request->method, "HEAD"), length);
}

static char *done(const char *status, const struct blob *blob, const char *more, size_t *length) {
    char headers[256];
    snprintf(headers, sizeof headers, "ETag: \"0x8DC%llX\"\r\n%s", blob->etag, more);
    return reply(status, headers, "", 0, length);
}

static struct blob *blob_at(const char *path, int make) {
    unsigned hash = 2166136261u; /* FNV-1a */
    for (const char *letter = path; *letter; letter++) hash = (hash ^ (unsigned char)*letter) * 16777619u;
    struct blob **first = &blobs[hash % TABLE], *found;
    for (found = *first; found && strcmp(found->path, path); found = found->next) continue;
    if (!found && make) {
        found = calloc(1, sizeof *found);
        found->path = strdup(path);
        found->kept = strdup("");
        found->next = *first;
        *first = found;
    }
    return found;
}

/* Copy a parameter of the query, decoded; empty when it is not there. */
static void parameter(const char *query, const char *name, char *value, size_t room) {
    size_t length = strlen(name), used = 0;
    for (; query; query = strchr(query, '&') ? strchr(query, '&') + 1 : NULL) {
        if (strncmp(query, name, length) || query[length] != '=') continue;
        for (const char *at = query + length + 1; *at && *at != '&' && used + 1 < room; at++) {
            unsigned code;
            value[used++] = *at == '%' && sscanf(at + 1, "%2x", &code) == 1 ? (at += 2, (char)code) : *at;
        }
        break;
    }
    value[used] = 0;
}

static struct block **block_at(struct block **first, const char *id, size_t length) {
    while (*first && (strncmp((*first)->id, id, length) || (*first)->id[length])) first = &(*first)->next;
    return first;
}

static void drop(struct block **first) {
    for (struct block *each; (each = *first); free(each->id), free(each)) *first = each->next;
}

static void stage(struct blob *blob, const char *id, long long length) {
    struct block **at = block_at(&blob->staged, id, strlen(id));
    if (!*at) {
        *at = calloc(1, sizeof **at);
        (*at)->id = strdup(id);
    }
    (*at)->length = length;
}

/* Make the blob's blocks those that the body names; 0 when one of them is not there. */
static int commit(struct blob *blob, const char *body) {
    struct block *list = NULL, **end = &list;
    for (const char *at = strchr(body, '<'); at; at = strchr(at + 1, '<')) {
        int committed = !strncmp(at, "<Committed>", 11), staged = !strncmp(at, "<Uncommitted>", 13);
        if (!committed && !staged && strncmp(at, "<Latest>", 8)) continue;
        const char *id = strchr(at, '>') + 1;
        size_t length = strcspn(id, "<");
        struct block *found = committed ? NULL : *block_at(&blob->staged, id, length);
        if (!found && !staged) found = *block_at(&blob->committed, id, length);
        if (!found) {
            drop(&list);
            return 0;
        }
        *end = calloc(1, sizeof **end);
        (*end)->id = strdup(found->id);
        (*end)->length = found->length;
        end = &(*end)->next;
    }
    drop(&blob->committed);
    blob->committed = list;
    blob->length = 0;
    for (struct block *each = list; each; each = each->next) blob->length += each->length;
    return 1;
}

/* Give the blob a new etag and the request's metadata. */
static void describe(struct blob *blob, const struct request *request) {
    size_t length;
    free(blob->kept);
    FILE *out = open_memstream(&blob->kept, &length);
    for (const char *line = strstr(request->head, "\r\n"); line && line[2] != '\r'; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, "x-ms-meta-", 10)) fprintf(out, "%.*s\r\n", (int)strcspn(line + 2, "\r"), line + 2);
    fclose(out);
    blob->etag = ++versions;
}

/* Return the code of the service's refusal, NULL when the request's conditions hold. */
static const char *condition(const struct request *request, const struct blob *blob) {
    char match[64], none[64], etag[64] = "";
    if (blob->etag) snprintf(etag, sizeof etag, "\"0x8DC%llX\"", blob->etag);
    header(request->head, "If-None-Match", none, sizeof none);
    header(request->head, "If-Match", match, sizeof match);
    if (*etag && !strcmp(none, "*")) return "BlobAlreadyExists";
    if (*etag && !strcmp(none, etag)) return "ConditionNotMet";
    if (*match && (!*etag || (strcmp(match, "*") && strcmp(match, etag)))) return "ConditionNotMet";
    return NULL;
}

static char *put(const struct request *request, struct blob *blob, size_t *length) {
    if (request->body) {
        if (!commit(blob, request->body)) return refused(request, "400 Bad Request", "InvalidBlockList", length);
    } else {
        drop(&blob->committed);
        blob->length = request->length;
    }
    drop(&blob->staged); /* also those that a block list does not name */
    header(request->head, "x-ms-blob-content-md5", blob->md5, sizeof blob->md5);
    if (!*blob->md5 && !request->body) header(request->head, "Content-MD5", blob->md5, sizeof blob->md5);
    header(request->head, "x-ms-blob-content-type", blob->type, sizeof blob->type);
    describe(blob, request);
    return done("201 Created", blob, "", length);
}

static char *snapshot(const struct request *request, struct blob *blob, size_t *length) {
    static int taken;
    char path[8192], more[128];
    snprintf(more, sizeof more, "x-ms-snapshot: 2026-01-01T00:00:00.%07dZ\r\n", ++taken);
    snprintf(path, sizeof path, "%s?%.*s", request->path, 28, more + 15);
    struct blob *copy = blob_at(path, 1);
    copy->length = blob->length;
    copy->etag = blob->etag;
    strcpy(copy->md5, blob->md5);
    strcpy(copy->type, blob->type);
    free(copy->kept);
    copy->kept = strdup(blob->kept);
    return done("201 Created", blob, more, length);
}

static char *block_list(const struct blob *blob, size_t *length) {
    char *text, etag[64] = "";
    size_t size;
    FILE *out = open_memstream(&text, &size);
    fprintf(out, XML "<BlockList><CommittedBlocks>");
    for (struct block *each = blob->committed; each; each = each->next)
        fprintf(out, "<Block><Name>%s</Name><Size>%lld</Size></Block>", each->id, each->length);
    fprintf(out, "</CommittedBlocks><UncommittedBlocks>");
    for (struct block *each = blob->staged; each; each = each->next)
        fprintf(out, "<Block><Name>%s</Name><Size>%lld</Size></Block>", each->id, each->length);
    fprintf(out, "</UncommittedBlocks></BlockList>");
    fclose(out);
    if (blob->etag) snprintf(etag, sizeof etag, "ETag: \"0x8DC%llX\"\r\n", blob->etag);
    char headers[128];
    snprintf(headers, sizeof headers, "Content-Type: application/xml\r\n%s", etag);
    char *whole = reply("200 OK", headers, text, 0, length);
    free(text);
    return whole;
}

static char *described(const struct blob *blob, size_t *length) {
    char *headers, *whole;
    size_t size;
    FILE *out = open_memstream(&headers, &size);
    fprintf(out, "ETag: \"0x8DC%llX\"\r\nContent-Length: %lld\r\nContent-Type: %s\r\nx-ms-blob-type: BlockBlob\r\n%s"
        "x-ms-lease-status: unlocked\r\nx-ms-lease-state: available\r\nx-ms-creation-time: Thu, 01 Jan 2026 00:00:00 GMT\r\n",
        blob->etag, blob->length, *blob->type ? blob->type : "application/octet-stream", blob->kept);
    if (*blob->md5) fprintf(out, "Content-MD5: %s\r\n", blob->md5);
    fclose(out);
    whole = reply("200 OK", headers, "", 1, length);
    free(headers);
    return whole;
}

static char *of_blob(const struct request *request, size_t *length) {
    int writes = !strcmp(request->method, "PUT"), deletes = !strcmp(request->method, "DELETE");
    char id[512], path[8192];
    if (writes && strstr(request->query, "comp=block&")) {
        parameter(request->query, "blockid", id, sizeof id);
        stage(blob_at(request->path, 1), id, request->length);
        return reply("201 Created", "", "", 0, length);
    }
    int new = writes && (request->body || !strstr(request->query, "comp="));
    parameter(request->query, "snapshot", id, sizeof id);
    snprintf(path, sizeof path, *id ? "%s?%s" : "%s", request->path, id);
    struct blob *blob = blob_at(path, new);
    if (!new && blob && !writes && !deletes && strstr(request->query, "comp=blocklist") && (blob->etag || blob->staged))
        return block_list(blob, length);
    if (!new && (!blob || !blob->etag)) return refused(request, "404 Not Found", "BlobNotFound", length);
    const char *code = condition(request, blob);
    if (code) return refused(request, strcmp(code, "BlobAlreadyExists") ? "412 Precondition Failed" : "409 Conflict", code, length);
    if (new) return put(request, blob, length);
    if (deletes) {
        blob->etag = 0;
        return reply("202 Accepted", "", "", 0, length);
    }
    if (writes && strstr(request->query, "comp=snapshot")) return snapshot(request, blob, length);
    if (writes && strstr(request->query, "comp=metadata")) {
        describe(blob, request);
        return done("200 OK", blob, "", length);
    }
    if (!strcmp(request->method, "HEAD")) return described(blob, length);
    return refused(request, "501 Not Implemented", "ContentIsForgotten", length);
}

char *answered(const struct request *request, size_t *length) {
    if (strstr(request->query, "comp=list") && strstr(request->query, "restype=container"))
        return reply("200 OK", "Content-Type: application/xml\r\n", XML "<EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>", 0, length);
    if (strstr(request->query, "restype="))
        return reply(strcmp(request->method, "PUT") ? "200 OK" : "201 Created", "x-ms-sku-name: Standard_LRS\r\nx-ms-account-kind: StorageV2\r\n", "", 0, length);
    pthread_mutex_lock(&lock);
    char *whole = of_blob(request, length);
    pthread_mutex_unlock(&lock);
    return whole;
}
