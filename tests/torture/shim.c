/* Preloaded into a daemon: what is called of the C library fails or lies as a shared page says.
 *
 * The page (struct control) is mapped from the file named by TORTURE_CONTROL; who wrote it may change it
 * at any time.  Errors strike only what concerns files below the directory named by TORTURE_DIRECTORY.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum call { OPEN, READ, WRITE, SYNC, RENAME, LOCK, SENDFILE, UNLINK, MKDIR, STAT, LIST, CHANGE, CALLS };

struct control {
    uint32_t seed;
    uint32_t unused;
    int64_t clock_offset; /* seconds added to the time of day */
    struct {
        uint32_t rate;  /* of 65536 calls */
        uint32_t error; /* errno */
        uint32_t struck; /* how often it did; counted here */
        uint32_t seen;
    } calls[CALLS];
};

static struct control *control;
static char directory[4096];
static size_t directory_length;
static __thread uint32_t state;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TORTURE_CONTROL"), *where = getenv("TORTURE_DIRECTORY");
    int (*real_open)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    if (where && strlen(where) < sizeof directory) {
        strcpy(directory, where);
        directory_length = strlen(where);
    }
    int fd = path ? real_open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED)
        control = page;
}

static int below(const char *path) {
    return path && directory_length && strncmp(path, directory, directory_length) == 0 &&
           (path[directory_length] == '/' || path[directory_length] == 0);
}

static int concerns(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

/* Whether this call fails; errno is then set. */
static int drawn(enum call call) {
    if (!state)
        state = control->seed ^ (uint32_t)getpid() ^ (uint32_t)(uintptr_t)&state ^ 0x9e3779b9u;
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    __sync_fetch_and_add(&control->calls[call].seen, 1);
    if ((state >> 8) % 65536 >= control->calls[call].rate)
        return 0;
    __sync_fetch_and_add(&control->calls[call].struck, 1);
    errno = (int)control->calls[call].error;
    return 1;
}

static int armed(enum call call) { return control && control->calls[call].rate; }
static int fd_fails(enum call call, int fd) { return armed(call) && concerns(fd) && drawn(call); }
static int path_fails(enum call call, const char *path) { return armed(call) && below(path) && drawn(call); }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define OF_FD(type, call, name, parameters, ...) \
    type name parameters { \
        REAL(name); \
        return fd_fails(call, fd) ? -1 : real(__VA_ARGS__); \
    }
#define OF_PATH(type, call, name, parameters, ...) \
    type name parameters { \
        REAL(name); \
        return path_fails(call, path) ? -1 : real(__VA_ARGS__); \
    }

OF_FD(ssize_t, READ, read, (int fd, void *to, size_t n), fd, to, n)
OF_FD(ssize_t, READ, pread, (int fd, void *to, size_t n, off_t at), fd, to, n, at)
OF_FD(ssize_t, READ, pread64, (int fd, void *to, size_t n, off64_t at), fd, to, n, at)
OF_FD(ssize_t, READ, preadv, (int fd, const struct iovec *v, int n, off_t at), fd, v, n, at)
OF_FD(ssize_t, READ, preadv64, (int fd, const struct iovec *v, int n, off64_t at), fd, v, n, at)
OF_FD(ssize_t, READ, preadv2, (int fd, const struct iovec *v, int n, off_t at, int how), fd, v, n, at, how)
OF_FD(ssize_t, READ, preadv64v2, (int fd, const struct iovec *v, int n, off64_t at, int how), fd, v, n, at, how)
OF_FD(ssize_t, WRITE, write, (int fd, const void *from, size_t n), fd, from, n)
OF_FD(ssize_t, WRITE, pwrite, (int fd, const void *from, size_t n, off_t at), fd, from, n, at)
OF_FD(ssize_t, WRITE, pwrite64, (int fd, const void *from, size_t n, off64_t at), fd, from, n, at)
OF_FD(ssize_t, WRITE, pwritev, (int fd, const struct iovec *v, int n, off_t at), fd, v, n, at)
OF_FD(ssize_t, WRITE, pwritev64, (int fd, const struct iovec *v, int n, off64_t at), fd, v, n, at)
OF_FD(ssize_t, WRITE, pwritev2, (int fd, const struct iovec *v, int n, off_t at, int how), fd, v, n, at, how)
OF_FD(ssize_t, WRITE, pwritev64v2, (int fd, const struct iovec *v, int n, off64_t at, int how), fd, v, n, at, how)
OF_FD(int, WRITE, ftruncate, (int fd, off_t n), fd, n)
OF_FD(int, WRITE, ftruncate64, (int fd, off64_t n), fd, n)
OF_FD(int, SYNC, fsync, (int fd), fd)
OF_FD(int, SYNC, fdatasync, (int fd), fd)
OF_FD(int, LOCK, flock, (int fd, int how), fd, how)
OF_PATH(int, RENAME, rename, (const char *path, const char *to), path, to)
OF_PATH(int, UNLINK, unlink, (const char *path), path)
OF_PATH(int, MKDIR, mkdir, (const char *path, mode_t mode), path, mode)
OF_FD(int, STAT, fstat, (int fd, struct stat *to), fd, to)
OF_FD(int, STAT, fstat64, (int fd, struct stat64 *to), fd, to)
OF_PATH(int, STAT, stat, (const char *path, struct stat *to), path, to)
OF_PATH(int, STAT, stat64, (const char *path, struct stat64 *to), path, to)
OF_PATH(int, STAT, lstat, (const char *path, struct stat *to), path, to)
OF_PATH(int, STAT, lstat64, (const char *path, struct stat64 *to), path, to)
OF_PATH(int, STAT, statvfs, (const char *path, struct statvfs *to), path, to)
OF_PATH(int, STAT, statvfs64, (const char *path, struct statvfs64 *to), path, to)
OF_FD(int, CHANGE, fchmod, (int fd, mode_t mode), fd, mode)
OF_PATH(int, CHANGE, chmod, (const char *path, mode_t mode), path, mode)

DIR *opendir(const char *path) {
    REAL(opendir);
    return path_fails(LIST, path) ? NULL : real(path);
}

int utimensat(int at, const char *path, const struct timespec times[2], int how) {
    REAL(utimensat);
    return path_fails(CHANGE, path) ? -1 : real(at, path, times, how);
}

/* Whether it takes a lock: letting go of one does not fail. */
static int locks(int what, const struct flock *how) {
    return (what == F_SETLK || what == F_SETLKW || what == F_OFD_SETLK || what == F_OFD_SETLKW) &&
           how->l_type != F_UNLCK;
}

/* Of what it is given nothing but a word that is as wide as a pointer is ever read. */
#define OF_FCNTL(name) \
    int name(int fd, int what, ...) { \
        REAL(name); \
        va_list more; \
        va_start(more, what); \
        void *with = va_arg(more, void *); \
        va_end(more); \
        return locks(what, with) && fd_fails(LOCK, fd) ? -1 : real(fd, what, with); \
    }
OF_FCNTL(fcntl)
OF_FCNTL(fcntl64)

ssize_t sendfile(int out, int fd, off_t *at, size_t n) {
    REAL(sendfile);
    return fd_fails(SENDFILE, fd) ? -1 : real(out, fd, at, n);
}

ssize_t sendfile64(int out, int fd, off64_t *at, size_t n) {
    REAL(sendfile64);
    return fd_fails(SENDFILE, fd) ? -1 : real(out, fd, at, n);
}

#define MODE(how) \
    mode_t mode = 0; \
    if ((how) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, how); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }
#define OF_OPEN(name) \
    int name(const char *path, int how, ...) { \
        REAL(name); \
        MODE(how) \
        return path_fails(OPEN, path) ? -1 : real(path, how, mode); \
    }
OF_OPEN(open)
OF_OPEN(open64)

int openat(int at, const char *path, int how, ...) {
    REAL(openat);
    MODE(how)
    return path_fails(OPEN, path) ? -1 : real(at, path, how, mode);
}

int openat64(int at, const char *path, int how, ...) {
    REAL(openat64);
    MODE(how)
    return path_fails(OPEN, path) ? -1 : real(at, path, how, mode);
}

/* The clock: the time of day only; what counts from the boot goes on as it is. */

static int stepped(clockid_t which) { return which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE; }

int clock_gettime(clockid_t which, struct timespec *to) {
    REAL(clock_gettime);
    int outcome = real(which, to);
    if (!outcome && control && stepped(which))
        to->tv_sec += control->clock_offset;
    return outcome;
}

int gettimeofday(struct timeval *restrict to, void *restrict zone) {
    REAL(gettimeofday);
    int outcome = real(to, zone);
    if (!outcome && control)
        to->tv_sec += control->clock_offset;
    return outcome;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to)
        *to = now.tv_sec;
    return now.tv_sec;
}
