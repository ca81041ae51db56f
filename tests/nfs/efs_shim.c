/* LD_PRELOAD shim for nfs-ganesha's VFS back end: gives the exported directory EFS-like manners.
 * Control block = mmap'ed file named by $EFS_SHIM_CTL, an array of int64 (see pair.py):
 *   [0] hard-link limit (0 = none)      [1] reserved
 *   then per op k (order of OPS): [8+4k] calls, [9+4k] latency in us, [10+4k] errno to inject, [11+4k] how many more times
 * Build: gcc -O2 -shared -fPIC -o efs_shim.so efs_shim.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { LOOKUP, GETATTR, OPEN, CREATE, READ, WRITE, COMMIT, LINK, RENAME, REMOVE, MKDIR, SYMLINK, READLINK, SETATTR, NOPS };
static volatile int64_t *ctl;

__attribute__((constructor)) static void init(void) {
    const char *p = getenv("EFS_SHIM_CTL");
    int fd = p ? open(p, O_RDWR) : -1;
    if (fd < 0) return;
    void *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (m != MAP_FAILED) ctl = m;
}

/* count, sleep, maybe fail: returns an errno or 0 */
static int gate(int op) {
    if (!ctl) return 0;
    volatile int64_t *c = ctl + 8 + 4 * op;
    __sync_fetch_and_add(&c[0], 1);
    if (c[1] > 0) {
        struct timespec ts = { c[1] / 1000000, (c[1] % 1000000) * 1000 };
        nanosleep(&ts, NULL);
    }
    if (c[2] && c[3] > 0 && __sync_fetch_and_sub(&c[3], 1) > 0) return (int)c[2];
    return 0;
}
#define REAL(ret, name, ...) static ret (*real)(__VA_ARGS__); if (!real) real = (ret (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define GATE(op) do { int e_ = gate(op); if (e_) { errno = e_; return -1; } } while (0)

/* ganesha opens its FSALs with RTLD_DEEPBIND, which would bypass this shim */
void *dlopen(const char *p, int flags) {
    static void *(*real)(const char *, int);
    if (!real) real = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
    return real(p, flags & ~RTLD_DEEPBIND);
}

int linkat(int od, const char *o, int nd, const char *n, int f) {
    REAL(int, linkat, int, const char *, int, const char *, int);
    GATE(LINK);
    struct stat st;
    if (ctl && ctl[0] > 0 && fstatat(od, o, &st, (f & AT_EMPTY_PATH) | ((f & AT_SYMLINK_FOLLOW) ? 0 : AT_SYMLINK_NOFOLLOW)) == 0
        && (int64_t)st.st_nlink >= ctl[0]) { errno = EMLINK; return -1; }
    return real(od, o, nd, n, f);
}
int renameat(int od, const char *o, int nd, const char *n) {
    REAL(int, renameat, int, const char *, int, const char *); GATE(RENAME); return real(od, o, nd, n);
}
int unlinkat(int d, const char *p, int f) { REAL(int, unlinkat, int, const char *, int); GATE(REMOVE); return real(d, p, f); }
int mkdirat(int d, const char *p, mode_t m) { REAL(int, mkdirat, int, const char *, mode_t); GATE(MKDIR); return real(d, p, m); }
int symlinkat(const char *t, int d, const char *p) { REAL(int, symlinkat, const char *, int, const char *); GATE(SYMLINK); return real(t, d, p); }
ssize_t readlinkat(int d, const char *p, char *b, size_t n) {
    REAL(ssize_t, readlinkat, int, const char *, char *, size_t); GATE(READLINK); return real(d, p, b, n);
}
static int open_common(int (*real)(int, const char *, int, ...), int d, const char *p, int f, mode_t m) {
    GATE((f & O_CREAT) ? CREATE : OPEN);
    return real(d, p, f, m);
}
int openat64(int d, const char *p, int f, ...) {
    REAL(int, openat64, int, const char *, int, ...);
    mode_t m = 0;
    if (f & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, f); m = va_arg(a, mode_t); va_end(a); }
    return open_common(real, d, p, f, m);
}
struct file_handle;
int name_to_handle_at(int d, const char *p, struct file_handle *h, int *mnt, int f) {
    REAL(int, name_to_handle_at, int, const char *, struct file_handle *, int *, int);
    if (p && *p) GATE(LOOKUP);
    return real(d, p, h, mnt, f);
}
int fstat64(int fd, struct stat64 *s) { REAL(int, fstat64, int, struct stat64 *); GATE(GETATTR); return real(fd, s); }
ssize_t preadv64(int fd, const struct iovec *v, int n, off64_t o) {
    REAL(ssize_t, preadv64, int, const struct iovec *, int, off64_t); GATE(READ); return real(fd, v, n, o);
}
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t o) {
    REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t); GATE(WRITE); return real(fd, v, n, o);
}
int fsync(int fd) { REAL(int, fsync, int); GATE(COMMIT); return real(fd); }
int ftruncate64(int fd, off64_t l) { REAL(int, ftruncate64, int, off64_t); GATE(SETATTR); return real(fd, l); }
int fchmodat(int d, const char *p, mode_t m, int f) { REAL(int, fchmodat, int, const char *, mode_t, int); GATE(SETATTR); return real(d, p, m, f); }
