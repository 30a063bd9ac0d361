/* meet.c - an MPI program: its ranks meet often; the first of them writes down that all have. */
#include <fcntl.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEETINGS 20

static void note(const char *path)
{
    char line[300];
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);

    snprintf(line, sizeof line, "ran %s %s\n", getenv("ATHANOR_JOB_NAME"),
             getenv("ATHANOR_ATTEMPT_ID"));
    if (file < 0 || write(file, line, strlen(line)) != (ssize_t)strlen(line))
        MPI_Abort(MPI_COMM_WORLD, 5);
    close(file);
}

int main(int argc, char **argv)
{
    int rank, size, sum;

    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    for (int i = 0; i < MEETINGS; i++) {
        int mine = rank + i;
        MPI_Allreduce(&mine, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
        if (sum != size * (size - 1) / 2 + size * i)
            MPI_Abort(MPI_COMM_WORLD, 4);
        usleep(20000);
    }
    if (rank == 0)
        note(argv[1]);
    MPI_Finalize();
    return 0;
}
