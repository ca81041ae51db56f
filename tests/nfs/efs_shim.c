/* LD_PRELOAD shim for nfs-ganesha's VFS back end: gives the exported directory EFS-like manners.
 * Control block = mmap'ed file named by $EFS_SHIM_CTL, an array of int64 (see pair.py):
 *   [0] hard-link limit (0 = none)      [1] READs and WRITEs of fewer bytes are never held
 *   then 8 words per op, in the order of OPS: calls, latency in us, errno to inject, how many more times,
 *   hold (0 = go on), how many more pass before one is held, how many are held now
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

static void wait_us(int64_t us) {
    struct timespec ts = { us / 1000000, (us % 1000000) * 1000 };
    nanosleep(&ts, NULL);
}

/* count, take time, wait until released, maybe fail: returns an errno or 0 */
static int gate_sized(int op, int64_t bytes) {
    if (!ctl) return 0;
    volatile int64_t *c = ctl + 8 + 8 * op;
    __sync_fetch_and_add(&c[0], 1);
    if (c[1] > 0) wait_us(c[1]);
    if (c[4] && bytes >= ctl[1] && __sync_fetch_and_sub(&c[5], 1) <= 0) {
        __sync_fetch_and_add(&c[6], 1);
        while (c[4]) wait_us(1000);
        __sync_fetch_and_sub(&c[6], 1);
    }
    if (c[2] && c[3] > 0 && __sync_fetch_and_sub(&c[3], 1) > 0) return (int)c[2];
    return 0;
}
static int64_t bytes_of(const struct iovec *v, int n) {
    int64_t sum = 0;
    for (int i = 0; i < n; i++) sum += v[i].iov_len;
    return sum;
}
#define REAL(ret, name, ...) static ret (*real)(__VA_ARGS__); if (!real) real = (ret (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)
#define GATE_SIZED(op, bytes) do { int e_ = gate_sized(op, bytes); if (e_) { errno = e_; return -1; } } while (0)
#define GATE(op) GATE_SIZED(op, INT64_MAX)

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
    REAL(ssize_t, preadv64, int, const struct iovec *, int, off64_t); GATE_SIZED(READ, bytes_of(v, n)); return real(fd, v, n, o);
}
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t o) {
    REAL(ssize_t, pwritev64, int, const struct iovec *, int, off64_t); GATE_SIZED(WRITE, bytes_of(v, n)); return real(fd, v, n, o);
}
int fsync(int fd) { REAL(int, fsync, int); GATE(COMMIT); return real(fd); }
int ftruncate64(int fd, off64_t l) { REAL(int, ftruncate64, int, off64_t); GATE(SETATTR); return real(fd, l); }
int fchmodat(int d, const char *p, mode_t m, int f) { REAL(int, fchmodat, int, const char *, mode_t, int); GATE(SETATTR); return real(d, p, m, f); }
