/* loop_mpi.c - ranks that meet in a barrier for ever; "loop_mpi RANK CODE": that rank exits. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int rank;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    printf("rank %d is here\n", rank);
    fflush(stdout);
    for (long round = 0;; round++) {
        MPI_Barrier(MPI_COMM_WORLD);
        if (argc == 3 && rank == atoi(argv[1]) && round == 10)
            _exit(atoi(argv[2]));
        usleep(1000);
    }
}
