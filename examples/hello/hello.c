#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
    printf("%s, %s (uid %d)\n", GREETING, argc > 1 ? argv[1] : "nobody", (int)getuid());
    return 0;
}
