/* Preloaded into a process: what a slow, hung or failing disk does to those who sync.
 *
 * The file named by ROOKERY_TEST_SYNC says "MODE NUMBER DIRECTORY", and is read at each sync of a file
 * below that directory: "delay 300 /x" takes 300 ms more, "hang 0 /x" does not end until the file says
 * something else, "fail 5 /x" fails with that errno and syncs nothing, "lie 0 /x" succeeds and syncs
 * nothing. Without the file all is well. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void rest(long ms) {
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* What the control file says about this descriptor; 0 if nothing. */
static int told(int fd, char *mode, long *number) {
    char link[64], path[4096], under[4096];
    const char *control = getenv("ROOKERY_TEST_SYNC");
    FILE *file = control ? fopen(control, "re") : NULL;
    if (!file) return 0;
    int n_read = fscanf(file, "%15s %ld %4095s", mode, number, under);
    fclose(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, sizeof path - 1);
    if (n_read != 3 || len < 0) return 0;
    path[len] = 0;
    size_t n = strlen(under);
    return strncmp(path, under, n) == 0 && (path[n] == '/' || path[n] == 0);
}

enum { LIE = -1 };

/* The errno of a sync that is to fail, LIE if nobody is to know, or 0 once it may go on. */
static int suffer(int fd) {
    char mode[16];
    long number;
    int before = errno;
    while (told(fd, mode, &number)) {
        if (!strcmp(mode, "fail")) return (int)number;
        if (!strcmp(mode, "lie")) return LIE;
        if (!strcmp(mode, "delay")) {
            rest(number);
            break;
        }
        rest(10);
    }
    errno = before;
    return 0;
}

#define SUFFERING(name, parameters, arguments)                                  \
    int name parameters {                                                        \
        static int(*real) parameters;                                            \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);                    \
        int error = suffer(fd);                                                  \
        if (error == LIE) return 0;                                              \
        if (error) {                                                             \
            errno = error;                                                       \
            return -1;                                                           \
        }                                                                        \
        return real arguments;                                                   \
    }

SUFFERING(fsync, (int fd), (fd))
SUFFERING(fdatasync, (int fd), (fd))
SUFFERING(sync_file_range, (int fd, off64_t at, off64_t n, unsigned how), (fd, at, n, how))
