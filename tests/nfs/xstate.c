/* Lets the guest kernel run on processors whose registers outgrow its buffer (2,696 bytes, up to AVX-512; AMX needs 11,008).
 *
 * User-mode Linux saves and loads a process's extended registers by ptrace, and the host takes them back only whole
 * (xstateregs_set in arch/x86/kernel/fpu/regset.c: EFAULT), so that the guest dies at boot. Loaded with LD_PRELOAD, this
 * hands over what fits and leaves the rest, which no program of the guest uses, as it is.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

typedef long (*call)(int, pid_t, void *, void *);

long ptrace(enum __ptrace_request request, ...) {
    static call next;
    static char whole[32768];
    va_list given;
    va_start(given, request);
    pid_t pid = va_arg(given, pid_t);
    void *what = va_arg(given, void *);
    struct iovec *theirs = va_arg(given, void *);
    va_end(given);
    if (!next)
        next = (call)dlsym(RTLD_NEXT, "ptrace");
    if ((request != PTRACE_GETREGSET && request != PTRACE_SETREGSET) || (long)what != NT_X86_XSTATE)
        return next(request, pid, what, theirs);

    struct iovec ours = {whole, sizeof whole};
    long result = next(PTRACE_GETREGSET, pid, what, &ours);
    if (result < 0)
        return result;
    size_t size = theirs->iov_len < ours.iov_len ? theirs->iov_len : ours.iov_len;
    if (request == PTRACE_SETREGSET) {
        memcpy(whole, theirs->iov_base, size);
        return next(PTRACE_SETREGSET, pid, what, &ours);
    }
    memcpy(theirs->iov_base, whole, size);
    theirs->iov_len = size;
    return result;
}
