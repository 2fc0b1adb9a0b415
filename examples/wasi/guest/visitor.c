// An ordinary program, which blocks. Its standard input and output are a socket. It asks for a word there, writes the word to a
// file, sleeps, and sends what it reads from the file.
//
// Arguments: the guest's name, and how many milliseconds to sleep.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fail(const char *what) {
    perror(what);
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fputs("usage: visitor NAME MILLISECONDS\n", stderr);
        return 2;
    }
    printf("hello from %s\n", argv[1]);
    fflush(stdout);

    char word[100];
    if (!fgets(word, sizeof word, stdin)) return fail("no word came");

    char path[100];
    snprintf(path, sizeof path, "/words/%s", argv[1]);
    FILE *file = fopen(path, "w+");
    if (!file) return fail(path);
    if (fputs(word, file) < 0 || fflush(file)) return fail(path);

    puts("sleeping");
    fflush(stdout);
    usleep(atoi(argv[2]) * 1000);

    char found[100] = "";
    rewind(file);
    if (!fgets(found, sizeof found, file)) return fail(path);
    if (fclose(file)) return fail(path);
    printf("%s", found);
    return strcmp(word, found) ? 3 : 0;
}
