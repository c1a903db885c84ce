/* What the endpoint's two halves share: the connections (discard.c) and what is kept of the blobs (blobs.c). */
#include <stddef.h>

/* One request. `body`: of a Put Block List only, NULL for all others, whose content was dropped. */
struct request { const char *head, *method, *path, *query, *body; long long length; };

/* Copy a header's value; empty when it is not there. */
void header(const char *head, const char *name, char *value, size_t room);

/* Carry out a request; return the whole reply, which the caller frees. Safe for many threads. */
char *answered(const struct request *request, size_t *length);

/* Write a reply that says nothing of a blob: status, headers each with its line's end, body. */
char *reply(const char *status, const char *headers, const char *body, int without_body, size_t *length);
