// Preloaded into servers that are measured: every sync takes SLOW_SYNC_MS longer, as on a slow disk.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static int waited(int result)
{
    const char *text = getenv("SLOW_SYNC_MS");
    long ms = text ? atol(text) : 0;
    struct timespec pause = { ms / 1000, ms % 1000 * 1000000 };
    int kept = errno;
    while (nanosleep(&pause, &pause) != 0 && errno == EINTR) {
    }
    errno = kept;
    return result;
}

#define NEXT(type, name) ((type)dlsym(RTLD_NEXT, name))

int fsync(int file)
{
    return waited(NEXT(int (*)(int), "fsync")(file));
}

int fdatasync(int file)
{
    return waited(NEXT(int (*)(int), "fdatasync")(file));
}

int syncfs(int file)
{
    return waited(NEXT(int (*)(int), "syncfs")(file));
}

int msync(void *at, size_t length, int flags)
{
    int result = NEXT(int (*)(void *, size_t, int), "msync")(at, length, flags);
    return flags & MS_SYNC ? waited(result) : result;
}
